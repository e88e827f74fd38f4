"""What is measured on held-out questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from regraft.config.ranges import require
from regraft.interfaces import Component, EncodedQuestion, LanguageModel

if TYPE_CHECKING:
    import numpy

Split = Literal["test", "selection", "recovery", "preparation"]


@dataclass(frozen=True, kw_only=True)
class Evaluation(Component):
    """Multiple-choice evaluation by log-likelihood."""

    splits: tuple[Split, ...] = ("test",)
    """Questions to ask: `test` is what is reported, `selection` chooses hyper-parameters, `recovery` and `preparation`
    are what was trained on."""
    questions: int | None = None
    """The first so many of each split; null asks all. A quarter of the questions makes intervals twice as wide."""
    normalisation: Literal["sum", "character"] = "sum"
    """Which score decides: the sum of an answer's log-likelihoods, or that divided by its characters."""
    batch_size: int = 64
    """Questions a forward pass."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Autocast of the forward pass, as in `recovery.precision`."""
    latency: bool = False
    """Whether to time a token as well: batch 1, with a mean question in the cache of keys and values."""

    def __post_init__(self) -> None:
        require(len(self.splits) > 0, "splits", list(self.splits), "at least one split")
        require(len(set(self.splits)) == len(self.splits), "splits", list(self.splits), "a list without repeats")
        require(self.questions is None or self.questions >= 1, "questions", self.questions, "null or at least 1")
        require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")

    def scores(
        self, model: LanguageModel, encoded: Sequence[EncodedQuestion]
    ) -> dict[Literal["sum", "character"], numpy.ndarray]:
        """The score of each choice, (questions, choices), by each normalisation."""
        from regraft.evaluation.likelihood import per_character, score_questions
        from regraft.models.precision import autocast

        model.model.eval()
        with autocast(model.model, self.precision):
            sums = score_questions(model.model, encoded, self.batch_size, model.pad_token_id)
        return {"sum": sums, "character": per_character(sums, encoded)}
