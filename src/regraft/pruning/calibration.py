"""Which questions units are scored by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from regraft.config.ranges import require
from regraft.interfaces import Component


@dataclass(frozen=True, kw_only=True)
class CalibrationQuestions(Component):
    """The first of the recovery's questions. Only criteria and allocations that need them are moved by this."""

    questions: int = 128
    """How many; the recovery may have fewer."""
    batch_size: int = 16
    """Questions a forward pass."""
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    """Autocast of the forward pass; `auto` takes bfloat16 where it pays."""

    def __post_init__(self) -> None:
        require(self.questions >= 1, "questions", self.questions, "at least 1")
        require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
