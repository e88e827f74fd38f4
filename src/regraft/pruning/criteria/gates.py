"""How the loss would move if a unit were turned down: Michel et al. 2019 (arXiv 1905.10650, equation 2).

s_j = E over questions q of | dL_q / d xi_j |,   xi_j = 1 a factor on what unit j says (a head, a neuron) in question q

which is | sum over tokens of x_tj . dL_q / dx_tj |, with L_q the loss of that question. The scores of a layer are
divided by their Euclidean norm (section 4, after Molchanov et al. 2017), so that layers can be compared.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from regraft.interfaces import (
    Criterion,
    Group,
    Kind,
    LanguageModel,
    Loss,
    Part,
    PruningContext,
    PruningNeed,
    Structure,
)
from regraft.pruning.gradients import checked, differentiated, needed

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Gates(Criterion):
    """Units whose gate moves the loss least go first."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"neurons", "heads"})

    loss: Loss
    """Whose gradient counts; cross-entropy on labels in the paper."""
    normalise: bool = True
    """Whether the scores of each layer are divided by their Euclidean norm."""

    @property
    def needs(self) -> frozenset[PruningNeed]:
        return needed(self.loss)

    def scores(self, model: LanguageModel, structure: Structure, context: PruningContext) -> list[torch.Tensor]:
        import torch

        groups = structure.groups(model.model)
        device = model.model.device
        sums = [torch.zeros(group.units, dtype=torch.float64, device=device) for group in groups]
        questions = 0
        gates: dict[int, torch.Tensor] = {}
        handles = [
            part.module.register_forward_pre_hook(functools.partial(_gated, gates, number, group, part))
            for number, group in enumerate(groups)
            for part in group.readers
        ]
        try:
            with differentiated(model, ()):
                for batch in context.calibration.batches(self.loss):
                    gates.clear()
                    context.calibration.value(model, self.loss, batch).total.backward()
                    for number, gate in gates.items():
                        if gate.grad is not None:
                            sums[number] += gate.grad.abs().sum(dim=0, dtype=torch.float64)
                    questions += len(batch.ids)
        finally:
            for handle in handles:
                handle.remove()
        scores = checked(
            [total / questions for total in sums],
            self,
            "A model has no KL to itself: choose another pruner.criterion.loss.",
        )
        return [score / score.norm().clamp_min(1e-300) for score in scores] if self.normalise else scores


def _gated(
    gates: dict[int, torch.Tensor], number: int, group: Group, part: Part, module: nn.Module, inputs: tuple[Any, ...]
) -> tuple[Any, ...]:
    """The inputs of a reader times gates of 1, (batch, units), which leave every bit as it is."""
    import torch

    states = inputs[0]
    if number not in gates:
        gates[number] = torch.ones(len(states), group.units, dtype=states.dtype, device=states.device)
        gates[number].requires_grad_(True)
    assert part.index is not None
    units, width = part.index.shape
    factors = states.new_ones(len(states), states.shape[-1])
    at = part.index.flatten().to(states.device)
    factors = factors.index_copy(1, at, gates[number].repeat_interleave(width, dim=1))
    return (states * factors[:, None], *inputs[1:])
