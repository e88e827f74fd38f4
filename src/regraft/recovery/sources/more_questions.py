"""Unlabelled questions besides the recovery's: what a loss without labels can learn from and others cannot."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from regraft.config.ranges import ConfigError, require
from regraft.interfaces import AnyQuestion, BatchContext, Batches, BatchSource, LabelledQuestion, Task


@dataclass(frozen=True, kw_only=True)
class MoreQuestions(Batches):
    """The recovery's questions, and the first of another task's recovery questions that the run's task does not ask.

    What the run's task keeps for preparation, selection or test is not read, nor is what says the same in other words
    where a task knows that (`Task.about`). The other task may be the same one with other settings, such as all of its
    training questions. Their answers, if there are any, are not read.
    """

    labelled: ClassVar[bool] = False

    extra: Task
    """Whose questions: any choice of the group `task`, worded as it words them."""
    number: int = 240
    """How many of them."""

    def __post_init__(self) -> None:
        require(self.number >= 1, "number", self.number, "at least 1")

    @property
    def of_task(self) -> bool:
        return False

    def texts(self, questions: int) -> int:
        return questions + self.number

    def source(self, context: BatchContext) -> BatchSource:
        from regraft.recovery.batches import Questions
        from regraft.tasks.encoding import encode_all

        questions = [
            question.unlabelled if isinstance(question, LabelledQuestion) else question
            for question in self.extra.load(context.cache).recovery
        ]
        limit = getattr(context.student.model.config.get_text_config(), "max_position_embeddings", None)
        splits = context.task.load(context.cache)
        asked: list[AnyQuestion] = [*context.questions, *splits.preparation, *splits.selection, *splits.test]
        taken = {context.task.about(question) for question in asked}
        found = [question for question in questions if self.extra.about(question) not in taken]
        if len(found) < self.number:
            raise ConfigError(
                f"batches.number={self.number}: must be at most {len(found)}, the questions of batches.extra="
                f"{self.extra.name} that are in no split of the run's task. Lower it, lower task.train_size, or choose "
                "another task with task@batches.extra=CHOICE."
            )
        context.report({"extra": self.number, "task": self.extra.name})
        encoded = encode_all(context.student.tokenizer, self.extra, found[: self.number], limit)
        more = [replace(question, id=f"extra/{question.id}") for question in encoded]
        return Questions.of(context, [*context.encode(context.questions), *more])
