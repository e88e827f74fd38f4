"""Another model of the same vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regraft.distillation.teachers.answers import answers_of
from regraft.interfaces import Batch, LanguageModel, Model, ModelOutputs, Teacher

if TYPE_CHECKING:
    from regraft.cache import Cache


@dataclass(frozen=True, kw_only=True)
class Other(Teacher):
    """A model of its own, such as a larger one of the same family."""

    model: Model
    """The model; any choice of the group `model`."""

    def build(
        self, dense: Callable[[], LanguageModel], student: LanguageModel, cache: Cache
    ) -> Callable[[Batch], ModelOutputs]:
        return answers_of(self.model.load(cache), student, self.model.name)
