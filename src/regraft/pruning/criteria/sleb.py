"""Layers one by one, each time that without which the loss is least: SLEB (Song et al. 2024, arXiv 2402.09025).

    for k = 1 .. n:   l_k = argmin over layers l still there of L(model without l_1 .. l_{k-1}, l)

with L the log of the perplexity: the mean negative log-likelihood of the calibration questions' own tokens, which sees
no answer, or a loss that is given. n follows from the run's sparsity. The score of a layer is its place in that order;
layers that stay follow in the order of the last round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from regraft.interfaces import Criterion, Kind, LanguageModel, Loss, PruningContext, PruningNeed, Structure
from regraft.pruning.depth import LAYERS, layers_of, layers_to_go, skipped
from regraft.pruning.gradients import needed

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class SLEB(Criterion):
    """Layers that are missed least go first, each judged without those before it."""

    kinds: ClassVar[frozenset[Kind]] = LAYERS
    reads_sparsity: ClassVar[bool] = True

    loss: Loss | None = None
    """What is least; null takes the mean negative log-likelihood of the questions' tokens."""

    @property
    def needs(self) -> frozenset[PruningNeed]:
        return needed() if self.loss is None else needed(self.loss)

    def scores(self, model: LanguageModel, structure: Structure, context: PruningContext) -> list[torch.Tensor]:
        import torch

        layers = layers_of(model, structure)
        order: list[int] = []
        losses: dict[int, float] = {}
        for _ in range(max(layers_to_go(model, structure, context), 1)):
            losses = {
                layer: self._mean_loss(model, [layers[gone] for gone in (*order, layer)], context)
                for layer in range(len(layers))
                if layer not in order
            }
            order.append(min(losses, key=lambda layer: (losses[layer], layer)))
        order += sorted(losses.keys() - set(order), key=lambda layer: (losses[layer], layer))
        return [torch.tensor(order).argsort().double()]

    def _mean_loss(self, model: LanguageModel, without: Sequence[nn.Module], context: PruningContext) -> float:
        import torch

        total, count = 0.0, 0
        with skipped(without), torch.no_grad():
            for batch in context.calibration.batches(self.loss):
                if self.loss is not None:
                    value = context.calibration.value(model, self.loss, batch)
                    total, count = total + float(value.total), count + value.count
                    continue
                logits = context.calibration.forward(model, batch).logits[batch.context_read]
                nll = torch.nn.functional.cross_entropy(logits.float(), batch.context_token, reduction="sum")
                total, count = total + float(nll), count + len(batch.context_token)
        return total / count
