"""L1 norm of a neuron's weights (Li et al. 2017, arXiv 1608.08710).

s_j = |gate_j|_1 + |up_j|_1 + |down_j|_1               combine: sum
s_j = |gate_j|_1 * |up_j|_1 * |down_j|_1               combine: product
s_j = max(|gate_j|_1, |up_j|_1, |down_j|_1)            combine: max
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from regraft.interfaces import LanguageModel, PruningContext, Structure
from regraft.pruning.criteria.norms import OfNorms, norms

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class L1(OfNorms):
    """Units of small L1 norm go first."""

    combine: Literal["sum", "product", "max"] = "sum"
    """Sum, product, or largest of the norms."""

    def scores(self, model: LanguageModel, structure: Structure, context: PruningContext) -> list[torch.Tensor]:
        import torch

        scores = []
        for group in structure.groups(model.model):
            each = torch.stack(norms(group, self.projections, 1))
            if self.combine == "sum":
                scores.append(each.sum(dim=0))
            else:
                scores.append(each.prod(dim=0) if self.combine == "product" else each.amax(dim=0))
        return scores
