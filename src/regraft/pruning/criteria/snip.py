"""Connection sensitivity at one glance: SNIP (Lee et al. 2019, arXiv 1810.02340, equation 6).

s_j = |g_j| / sum over all units k of |g_k|,   g_j = sum over the weights w of unit j of dL/dw * w

g_j is the derivative of the loss by a gate that multiplies all that the unit owns, at the gate's value of 1. For single
weights this is the paper's; the normalisation leaves the order as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from regraft.interfaces import Criterion, Kind, LanguageModel, Loss, PruningContext, PruningNeed, Structure
from regraft.pruning.criteria import gradients
from regraft.pruning.gradients import needed
from regraft.pruning.spread import owned_sums, parameters

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Snip(Criterion):
    """Units to whose gate the loss is least sensitive go first."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"neurons", "weights"})

    loss: Loss
    """What is differentiated."""

    @property
    def needs(self) -> frozenset[PruningNeed]:
        return needed(self.loss)

    def scores(self, model: LanguageModel, structure: Structure, context: PruningContext) -> list[torch.Tensor]:
        groups = structure.groups(model.model)
        tensors = parameters(groups)
        found = gradients.gradients(model, tensors, self.loss, context)
        gradient = {id(tensor): each for tensor, each in zip(tensors, found, strict=True)}
        sensitivity = [
            owned_sums(group, lambda part: gradient[id(part.parameter)] * part.parameter.detach().float()).abs()
            for group in groups
        ]
        total = sum(float(each.double().sum()) for each in sensitivity)
        # all zero: nothing moves the loss, and every unit is as good as any other
        return [each / (total or 1.0) for each in sensitivity]
