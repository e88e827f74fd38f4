"""One threshold over scores that are standardised in each group (FLAP, An et al. 2023, arXiv 2312.11983).

    z_j = (s_j - mean_g) / std_g,   std_g^2 = sum over j of (s_j - mean_g)^2 / (n_g - 1)

over the n_g units of group g that are there; then the lowest z of all groups go. The sample's deviation, as in FLAP's
code (`torch.std`). A group whose scores are all alike has z = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regraft.interfaces import Allocation, Scored
from regraft.pruning.allocation.shares import lowest, require_floor, room

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Standardised(Allocation):
    """The units that lie lowest among those of their group go, whatever the scale of its scores."""

    floor: float = 0.05
    """Share of each group's dense units that stays at least; one unit stays anyway."""

    def __post_init__(self) -> None:
        require_floor(self.floor)

    def losses(self, scored: Scored, sparsity: float) -> list[int]:
        return lowest([standardised(score) for score in scored.scores], room(scored, sparsity, self.floor))


def standardised(scores: torch.Tensor) -> torch.Tensor:
    """(units,) with mean 0 and deviation 1; of units that are gone minus infinity, as they were."""
    there = scores[scores.isfinite()]
    centred = scores - there.mean()
    if len(there) < 2 or bool((there == there[0]).all()):
        return centred.masked_fill(scores.isfinite(), 0.0)
    return centred / there.std()
