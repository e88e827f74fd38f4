"""Rounds that each remove a fixed fraction of what is left (Frankle and Carbin 2019, arXiv 1803.03635: 0.2).

s_i = 1 - (1 - p)^i,   i = 1 .. n - 1,   s_n = s,   n the smallest number with 1 - (1 - p)^n >= s
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from regraft.config.ranges import require
from regraft.interfaces import Schedule


@dataclass(frozen=True, kw_only=True)
class Rounds(Schedule):
    """Prune a fraction of what is left, train, and again; the last round removes what the sparsity still asks."""

    fraction: float = 0.2
    """Share p of what is left that each round removes, in (0, 1)."""

    def __post_init__(self) -> None:
        require(0 < self.fraction < 1, "fraction", self.fraction, "in (0, 1)")

    def targets(self, sparsity: float) -> tuple[float, ...]:
        if sparsity == 0:
            return (0.0,)
        # 1 - 0.8^2 is 0.36 to 16 digits: without rounding a sparsity of 0.36 might take a third round of nothing
        number = math.ceil(round(math.log(1 - sparsity) / math.log(1 - self.fraction), 6)) or 1
        return (*(round(1 - (1 - self.fraction) ** step, 9) for step in range(1, number)), sparsity)
