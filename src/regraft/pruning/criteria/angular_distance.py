"""Which layers in a row turn the hidden states least (Gromov et al. 2024, arXiv 2403.17887, equations 7 and 8).

    d(l, n) = E over questions of arccos(cos(x_l, x_{l+n})) / pi
    the n layers from l* = argmin over l of d(l, n) go

with x_l what enters layer l at a sequence's last token: here the last of the question, from which the answer is
predicted. n follows from the run's sparsity. The score of a layer is the least d of the blocks of n that it lies in, so
the block of l* goes first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from regraft.interfaces import Batch, Criterion, Kind, LanguageModel, PruningContext, PruningNeed, Structure
from regraft.pruning.depth import LAYERS, layers_of, layers_to_go, watch_layers

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class AngularDistance(Criterion):
    """The block of consecutive layers that turns the last token least goes first."""

    kinds: ClassVar[frozenset[Kind]] = LAYERS
    reads_sparsity: ClassVar[bool] = True

    @property
    def needs(self) -> frozenset[PruningNeed]:
        return frozenset({"calibration"})

    def scores(self, model: LanguageModel, structure: Structure, context: PruningContext) -> list[torch.Tensor]:
        import torch

        layers = layers_of(model, structure)
        length = max(layers_to_go(model, structure, context), 1)
        sums = torch.zeros(len(layers) - length + 1, dtype=torch.float64, device=model.model.device)
        entered: dict[int, torch.Tensor] = {}
        questions = 0

        def see(layer: int, before: torch.Tensor, after: torch.Tensor, batch: Batch) -> None:
            nonlocal questions
            last = last_of_question(batch)
            questions += len(last) if layer == 0 else 0
            entered[layer] = before.flatten(0, 1)[last].double()
            first = layer - length + 1
            if first >= 0:
                cosine = torch.cosine_similarity(entered[first], after.flatten(0, 1)[last].double(), dim=-1)
                sums[first] += (cosine.clamp(-1, 1).arccos() / math.pi).sum()

        watch_layers(model, context.calibration, layers, see)
        return [of_layers(sums / questions, length)]


def last_of_question(batch: Batch) -> torch.Tensor:
    """(questions,) long; the position of the flattened (batch * seq) from which the answer of each is predicted."""
    import torch

    first = torch.ones_like(batch.token_option, dtype=torch.bool)
    first[1:] = batch.token_option[1:] != batch.token_option[:-1]
    return batch.read[batch.token_read[first].unique()]


def of_layers(distances: torch.Tensor, length: int) -> torch.Tensor:
    """(layers,): the least distance of the blocks that each layer lies in; outside the best block above its own."""
    import torch

    best = int(distances.argmin())
    scores = torch.full((len(distances) + length - 1,), torch.inf, dtype=distances.dtype, device=distances.device)
    for first in range(len(distances)):
        block = scores[first : first + length]
        torch.minimum(block, distances[first], out=block)
    inside = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    inside[best : best + length] = True
    above = torch.nextafter(distances[best], torch.full_like(distances[best], torch.inf))
    return torch.where(inside, scores, scores.clamp_min(above))
