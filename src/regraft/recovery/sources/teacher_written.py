"""Sequence-level distillation: the student learns from what the teacher writes (Kim & Rush 2016, arXiv 1606.07947).

    y* ~ p_teacher(y | question),   L = - log p_student(y* | question)     with loss=lm

The paper takes the mode of p by beam search; here it is the greedy text (a beam of one), or texts that are drawn. With
loss=kl the same texts are learned from softly. Self-Data Distillation (arXiv 2410.09982), by which a pruned model
learns from what its dense self wrote, is this with teacher=dense, but that there the dense self is shown the right
answer to reword, and here it sees no label.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from regraft.config.ranges import require
from regraft.interfaces import BatchContext, Batches, BatchSource, EncodedQuestion, LanguageModel


@dataclass(frozen=True, kw_only=True)
class TeacherWritten(Batches):
    """The teacher answers each recovery question in its own words, once, before the training; no choice is read."""

    written: ClassVar[bool] = True
    labelled: ClassVar[bool] = False

    tokens: int = 16
    """Most tokens of an answer."""
    answers: int = 1
    """Answers to each question; each counts as a text of the epoch."""
    temperature: float = 0.0
    """Of the teacher while it writes: 0 takes the likeliest token always, 1 draws from what it says."""

    def __post_init__(self) -> None:
        require(self.tokens >= 1, "tokens", self.tokens, "at least 1")
        require(self.answers >= 1, "answers", self.answers, "at least 1")
        drawn = 0 <= self.temperature < math.inf
        require(drawn, "temperature", self.temperature, "a finite number of at least 0")
        alike = self.answers == 1 or self.temperature > 0
        require(alike, "temperature", self.temperature, "above 0 with answers above 1", "Greedy answers are all alike.")

    @property
    def needs_writer(self) -> bool:
        return True

    def texts(self, questions: int) -> int:
        return questions * self.answers

    def source(self, context: BatchContext) -> BatchSource:
        from regraft.recovery.batches import Questions
        from regraft.recovery.sources.kept import written
        from regraft.recovery.writing import write

        asked = [
            replace(question, id=f"{question.id}/written/{number}")
            for question in context.encode(context.questions)
            for number in range(self.answers)
        ]
        settings = {"tokens": self.tokens, "temperature": self.temperature}
        if self.temperature > 0:
            settings["seed"] = context.seed

        def author(writer: LanguageModel, asked: Sequence[EncodedQuestion]) -> list[EncodedQuestion]:
            return write([(writer, 1.0)], asked, tokens=self.tokens, temperature=self.temperature, seed=context.seed)

        return Questions.of(context, written(context, asked, settings, author))
