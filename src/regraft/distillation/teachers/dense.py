"""The unpruned self."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regraft.distillation.teachers.answers import answers_of
from regraft.interfaces import Batch, LanguageModel, ModelOutputs, Teacher

if TYPE_CHECKING:
    from regraft.cache import Cache


@dataclass(frozen=True, kw_only=True)
class Dense(Teacher):
    """The prepared model before anything was removed: self-distillation."""

    def build(
        self, dense: Callable[[], LanguageModel], student: LanguageModel, cache: Cache
    ) -> Callable[[Batch], ModelOutputs]:
        return answers_of(dense(), student, "dense")
