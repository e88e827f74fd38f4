"""One threshold over the scores of all groups (Han et al. 2015, arXiv 1506.02626; Synaptic-Flow's `_global_mask`).

    group g loses the units with s_j <= t,   t such that   sum over g of the losses = round(sparsity * all units)

Scores are compared across groups as they are: a layer whose scores are small for any reason, its shape included, loses
most. The floor keeps it from vanishing; the others make up for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from regraft.interfaces import Allocation, Scored
from regraft.pruning.allocation.shares import lowest, require_floor, room


@dataclass(frozen=True, kw_only=True)
class GlobalThreshold(Allocation):
    """The units of lowest score in the model go; of equal scores those of the first group, the lower number first."""

    floor: float = 0.05
    """Share of each group's dense units that stays at least; one unit stays anyway."""

    def __post_init__(self) -> None:
        require_floor(self.floor)

    def losses(self, scored: Scored, sparsity: float) -> list[int]:
        return lowest(scored.scores, room(scored, sparsity, self.floor))
