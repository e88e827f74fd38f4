"""What the run recovered before.

In a schedule of many steps each step is taught by the recovered model of the step before, a pruned model that is nearer
in size than the dense one (teacher assistants, arXiv 1902.03393); with `pipeline=generations` each generation by the
one before (born-again networks, arXiv 1805.04770).
"""

from __future__ import annotations

from dataclasses import dataclass

from regraft.distillation.teachers.answers import OneModel
from regraft.interfaces import LanguageModel, TeacherContext


@dataclass(frozen=True, kw_only=True)
class Previous(OneModel):
    """The model that left the run's recovery before this one; before the first, the dense model."""

    reads_previous = True

    def model_name(self) -> str:
        return "previous"

    def load(self, context: TeacherContext) -> LanguageModel:
        assert context.previous is not None, "who reads it gets it"
        return context.previous()

    def identity(self, dense: str, previous: str) -> str:
        return previous
