"""The order of the stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from regraft.config.ranges import require
from regraft.interfaces import Component

StageName = Literal["prepare", "prune", "recover", "evaluate"]


@dataclass(frozen=True, kw_only=True)
class Pipeline(Component):
    """Stages that come once, and stages that are repeated for each step of the schedule."""

    before: tuple[StageName, ...] = ("prepare", "evaluate")
    """Stages before pruning: `prepare`, whose result is the dense model and the teacher, and its evaluation."""
    repeat: tuple[StageName, ...] = ("prune", "evaluate", "recover", "evaluate")
    """Stages of each step of the schedule. The last must be `evaluate`: a run that measures nothing is no run. What
    is measured between pruning and recovery is measured once for all runs that prune alike."""

    def __post_init__(self) -> None:
        require(self.before == ("prepare", "evaluate"), "before", list(self.before), "[prepare, evaluate]")
        require("prepare" not in self.repeat, "repeat", list(self.repeat), "a list without prepare")
        require(self.repeat[-1:] == ("evaluate",), "repeat", list(self.repeat), "a list that ends with evaluate")
