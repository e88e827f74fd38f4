"""Step by step, with recovery between.

s_i = s * i / n                      spacing: linear
s_i = 1 - (1 - s)^(i / n)            spacing: geometric       i = 1 .. n
s_i = s - s * (1 - i / n)^3          spacing: cubic           (Zhu and Gupta 2017, arXiv 1710.01878, from 0)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from regraft.config.ranges import require
from regraft.interfaces import Schedule


@dataclass(frozen=True, kw_only=True)
class Iterative(Schedule):
    """Prune, recover, and again. The recovery's steps are shared out, so their total is that of one shot."""

    steps: int = 4
    """Number n of pruning steps, at least 1."""
    spacing: Literal["linear", "geometric", "cubic"] = "linear"
    """`linear`: each step removes the same number of units; `geometric`: the same share of what is left; `cubic`: most
    at first, while much is to spare."""

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", self.steps, "at least 1")

    def targets(self, sparsity: float) -> tuple[float, ...]:
        if sparsity == 0:
            return (0.0,)
        shares = [step / self.steps for step in range(1, self.steps)]
        if self.spacing == "linear":
            between = [sparsity * share for share in shares]
        elif self.spacing == "geometric":
            between = [1 - (1 - sparsity) ** share for share in shares]
        else:
            between = [sparsity - sparsity * (1 - share) ** 3 for share in shares]
        return (*(round(target, 9) for target in between), sparsity)
