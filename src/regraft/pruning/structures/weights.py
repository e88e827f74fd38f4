"""Single weights, wherever they are (Han et al. 2015, arXiv 1506.02626)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from regraft.pruning.structures.masked import Masked, without_lowest

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Weights(Masked):
    """Weights of the linear maps of the decoder layers, set to zero and held there."""

    name: str = "weights"
    """Name of the structure in records."""
    compare: Literal["matrix", "output"] = "matrix"
    """Which weights compete: all of a matrix, as magnitude pruning and SparseGPT do, or those that make one output (a
    row), as Wanda does."""

    @property
    def by_output(self) -> bool:
        return self.compare == "output"

    def choose(self, scores: torch.Tensor, left: int) -> torch.Tensor:
        import torch

        lost = scores.numel() - left
        if self.compare == "matrix":
            return without_lowest(scores.reshape(1, -1), lost).view(scores.shape)
        each, more = divmod(lost, len(scores))
        if not more:
            return without_lowest(scores, each)
        # what cannot be shared out evenly the first rows lose
        return torch.cat([without_lowest(scores[:more], each + 1), without_lowest(scores[more:], each)])
