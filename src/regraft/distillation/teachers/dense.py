"""The unpruned self."""

from __future__ import annotations

from dataclasses import dataclass

from regraft.distillation.teachers.answers import OneModel
from regraft.interfaces import LanguageModel, TeacherContext


@dataclass(frozen=True, kw_only=True)
class Dense(OneModel):
    """The prepared model before anything was removed: self-distillation."""

    def model_name(self) -> str:
        return "dense"

    def load(self, context: TeacherContext) -> LanguageModel:
        return context.dense()

    def identity(self, dense: str, previous: str) -> str:
        return dense
