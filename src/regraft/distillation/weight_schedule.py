"""The weight of a loss, as a course over the recovery.

    w(s) = start + (end - start) * f(x),   x = (s - from_share) / (to_share - from_share), held within 0 and 1

with f(x) = x (linear) or (1 - cos(pi x)) / 2 (cosine). At step t of T, counted from 1, s = (t - 1) / T, the share that
is done: the last step has the weight of 1 - 1 / T, and `end` itself comes with a `to_share` below that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from regraft.config.ranges import require
from regraft.interfaces import Component


@dataclass(frozen=True, kw_only=True)
class WeightSchedule(Component):
    """Goes from one weight to another while the recovery trains, and stays at each before and after."""

    start: float
    """Weight at the beginning, at least 0."""
    end: float
    """Weight to which it goes, at least 0."""
    from_share: float = 0.0
    """Share of the recovery's steps after which it begins to move, in [0, 1]."""
    to_share: float = 1.0
    """Share after which it has arrived, in [from_share, 1]; equal to `from_share`, the weight steps there."""
    shape: Literal["linear", "cosine"] = "linear"
    """How it moves: evenly, or slowly at both ends."""

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            weight = getattr(self, name)
            require(0 <= weight < math.inf, name, weight, "a finite number of at least 0")
        require(0 <= self.from_share <= 1, "from_share", self.from_share, "in [0, 1]")
        allowed = f"from from_share ({self.from_share}) to 1"
        require(self.from_share <= self.to_share <= 1, "to_share", self.to_share, allowed)

    def at(self, share: float) -> float:
        """The weight at a share of the recovery's steps.

        Args:
            share: As `Moment.share`.
        """
        if share >= self.to_share:
            return self.end
        if share <= self.from_share:
            return self.start
        way = (share - self.from_share) / (self.to_share - self.from_share)
        if self.shape == "cosine":
            way = (1 - math.cos(math.pi * way)) / 2
        return self.start + (self.end - self.start) * way
