"""Another model of the same vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from regraft.config.components import identified
from regraft.distillation.teachers.answers import OneModel
from regraft.interfaces import LanguageModel, Model, TeacherContext


@dataclass(frozen=True, kw_only=True)
class Other(OneModel):
    """A model of its own, such as a larger one of the same family."""

    model: Model
    """The model; any choice of the group `model`."""

    def model_name(self) -> str:
        return self.model.name

    def load(self, context: TeacherContext) -> LanguageModel:
        return self.model.load(context.cache)

    def identity(self, dense: str, previous: str) -> Any:
        return identified(self.model, self.model.identity())
