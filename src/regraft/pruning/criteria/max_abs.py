"""Largest weight of a neuron (Martra 2025, arXiv 2512.22671, for the gated feed-forward blocks of Llama).

s_j = max(|gate_j|, |up_j|, |down_j|)                  combine: max
s_j = max|gate_j| + max|up_j| + max|down_j|            combine: sum
s_j = max|gate_j| * max|up_j| * max|down_j|            combine: product
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from regraft.interfaces import LanguageModel, PruningContext, Structure
from regraft.pruning.criteria.norms import OfNorms, norms

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class MaxAbs(OfNorms):
    """Units whose largest weight is small go first."""

    combine: Literal["max", "sum", "product"] = "max"
    """Largest, sum, or product of the matrices' largest weights."""

    def scores(self, model: LanguageModel, structure: Structure, context: PruningContext) -> list[torch.Tensor]:
        import torch

        scores = []
        for group in structure.groups(model.model):
            each = torch.stack(norms(group, self.projections, float("inf")))
            if self.combine == "max":
                scores.append(each.amax(dim=0))
            else:
                scores.append(each.sum(dim=0) if self.combine == "sum" else each.prod(dim=0))
        return scores
