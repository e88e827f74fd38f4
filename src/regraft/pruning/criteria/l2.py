"""L2 norm of a neuron's weights: the criterion of L2PFT and L2PSD (arXiv 2505.18166).

    s_j = sqrt(|gate_j|^2 + |up_j|^2 + |down_j|^2)         combine: sum_sq
    s_j = |gate_j| * |up_j| * |down_j|                     combine: product
    s_j = max(|gate_j|, |up_j|, |down_j|)                  combine: max

with gate_j and up_j the rows, down_j the column of neuron j. The paper says "layer-wise L2-norm" and no more; which
projections and how they combine is therefore config.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from regraft.interfaces import LanguageModel, PruningContext, Structure
from regraft.pruning.criteria.norms import OfNorms, norms

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class L2(OfNorms):
    """Units of small L2 norm go first."""

    combine: Literal["sum_sq", "product", "max"] = "sum_sq"
    """Root of the sum of squares, product, or largest of the norms."""

    def scores(self, model: LanguageModel, structure: Structure, context: PruningContext) -> list[torch.Tensor]:
        import torch

        scores = []
        for group in structure.groups(model.model):
            each = torch.stack(norms(group, self.projections, 2))
            if self.combine == "sum_sq":
                scores.append(torch.linalg.vector_norm(each, dim=0))
            else:
                scores.append(each.prod(dim=0) if self.combine == "product" else each.amax(dim=0))
        return scores
