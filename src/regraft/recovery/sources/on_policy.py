"""The student learns from what it writes itself: GKD (Agarwal et al. 2023, arXiv 2306.13649), algorithm 1.

    at each step, with probability lambda:   y ~ p_student(y | question) as the student is then,   else y from the data
    L = sum over the positions of y of D(p_teacher || p_student)

No gradient flows through what was drawn. D is the loss (GKD's is the generalised Jensen-Shannon divergence).

With alpha > 0 the teacher helps to write, y_t ~ alpha p_teacher + (1 - alpha) p_student, as in MiniLLM (Gu et al. 2023,
arXiv 2306.08543, section 2.2), whose loss corrects for it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from regraft.cache import digest
from regraft.config.ranges import ConfigError, require
from regraft.interfaces import Batch, BatchContext, Batches, BatchSource
from regraft.recovery.sources.asked import Asked

if TYPE_CHECKING:
    from regraft.interfaces import LanguageModel
    from regraft.recovery.batches import Questions


@dataclass(frozen=True, kw_only=True)
class OnPolicy(Batches):
    """A share of the steps reads what the student writes behind the step's questions, the others the data.

    Who writes when, and what is drawn, follow from the run's seed and the step: a training that is interrupted goes on
    with the same texts. Both kinds of steps have the same questions.
    """

    known: ClassVar[bool] = False
    written: ClassVar[bool] = True
    labelled: ClassVar[bool] = False

    share: float = 0.5
    """Lambda: probability that a step reads what the student writes, in [0, 1]."""
    tokens: int = 8
    """Most tokens of a text."""
    temperature: float = 0.9
    """Of the student while it writes, above 0."""
    teacher_mixed: float = 0.0
    """Alpha: the share of the teacher in the distribution that tokens are drawn from, in [0, 1). It takes another copy
    of the teacher in memory."""
    data: Batches = field(default_factory=Asked)
    """What the other steps read, and where the questions come from: any choice of the group `batches` whose texts are
    known, such as teacher_written."""

    def __post_init__(self) -> None:
        require(0 <= self.share <= 1, "share", self.share, "in [0, 1]")
        require(self.tokens >= 1, "tokens", self.tokens, "at least 1")
        require(0 < self.temperature < math.inf, "temperature", self.temperature, "a finite number above 0")
        require(0 <= self.teacher_mixed < 1, "teacher_mixed", self.teacher_mixed, "in [0, 1)")
        known = self.data.known
        require(known, "data", type(self.data).__name__, "batches that are known before the training")

    @property
    def needs_writer(self) -> bool:
        return self.teacher_mixed > 0 or self.data.needs_writer

    @property
    def follows(self) -> bool:
        return True

    @property
    def shows(self) -> int:
        return self.data.shows

    @property
    def shows_labels(self) -> bool:
        return self.data.shows_labels

    @property
    def of_task(self) -> bool:
        return self.data.of_task

    @property
    def drawn_with(self) -> float | None:
        return self.teacher_mixed if self.share == 1 and self.temperature == 1 else None

    def texts(self, questions: int) -> int:
        return self.data.texts(questions)

    def source(self, context: BatchContext) -> BatchSource:
        from regraft.recovery.batches import Questions

        data = self.data.source(context)
        assert isinstance(data, Questions), "what is known is a list of questions"
        limit = getattr(context.student.model.config.get_text_config(), "max_position_embeddings", None)
        longest = data.longest(self.tokens)
        if self.share > 0 and limit is not None and longest > limit:
            raise ConfigError(
                f"batches.tokens={self.tokens}: the longest question with all that comes before and behind it would "
                f"take {longest} positions, and the model has {limit}. Lower it"
                + (", or batches.data.shots." if self.shows else ".")
            )
        source = _Writing(batches=self, context=context, data=data)
        read = sum(len(data.order[step]) for step in source.turns)
        context.report({"student_steps": len(source.turns), "student_texts": read})
        return source


@dataclass(frozen=True, kw_only=True)
class _Writing(BatchSource):
    batches: OnPolicy
    context: BatchContext
    data: Questions

    @cached_property
    def turns(self) -> frozenset[int]:
        """Steps at which the student writes."""
        import numpy

        def drawn(number: int) -> float:
            return numpy.random.default_rng(int(digest(["turn", *self._seed(number)]), 16)).random()

        return frozenset(number for number in range(self.context.steps) if drawn(number) < self.batches.share)

    @cached_property
    def teacher(self) -> LanguageModel:
        return self.context.writer()

    def step(self, number: int, student: LanguageModel) -> Iterator[tuple[Batch, int]]:
        from regraft.models.cost import Ledger, counted
        from regraft.recovery.writing import write

        if number not in self.turns:
            yield from self.data.step(number, student)
            return
        alpha = self.batches.teacher_mixed
        writers = [(student, 1 - alpha)] + ([(self.teacher, alpha)] if alpha > 0 else [])
        for asked, count in self.data.parts(number):
            # what is written only to keep in step with other processes is nobody's cost
            counting = contextlib.nullcontext() if count else counted(Ledger())
            with counting, self.context.autocast():
                texts = write(
                    writers,
                    asked,
                    tokens=self.batches.tokens,
                    temperature=self.batches.temperature,
                    seed=self._seed(number),
                )
            yield self.data.packed(texts), count

    def longest(self) -> int:
        return max(self.data.longest(), self.data.longest(self.batches.tokens) if self.turns else 0)

    def fingerprint(self) -> str:
        batches = self.batches
        rule = [batches.tokens, batches.temperature, batches.teacher_mixed, self.context.seed, sorted(self.turns)]
        return digest([self.data.fingerprint(), rule])

    def _seed(self, number: int) -> list[Any]:
        return [self.context.seed, self.context.first + number]
