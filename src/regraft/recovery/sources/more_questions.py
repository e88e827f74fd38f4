"""Unlabelled questions besides the recovery's: what a loss without labels can learn from and others cannot."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from regraft.config.ranges import ConfigError, require
from regraft.interfaces import BatchContext, Batches, BatchSource, LabelledQuestion, Task


@dataclass(frozen=True, kw_only=True)
class MoreQuestions(Batches):
    """The recovery's questions, and the first of another task's recovery questions that are not among them.

    The other task may be the same one with other settings, such as all of its training questions. Their answers, if
    there are any, are not read.
    """

    labelled: ClassVar[bool] = False

    extra: Task
    """Whose questions: any choice of the group `task`, worded as it words them."""
    number: int = 240
    """How many of them."""

    def __post_init__(self) -> None:
        require(self.number >= 1, "number", self.number, "at least 1")

    def texts(self, questions: int) -> int:
        return questions + self.number

    def source(self, context: BatchContext) -> BatchSource:
        from regraft.recovery.batches import Questions
        from regraft.tasks.encoding import encode_all

        known = context.encode(context.questions)
        questions = [
            question.unlabelled if isinstance(question, LabelledQuestion) else question
            for question in self.extra.load(context.cache).recovery
        ]
        limit = getattr(context.student.model.config.get_text_config(), "max_position_embeddings", None)
        texts = {(question.context, question.choices) for question in known}
        found = [
            replace(question, id=f"extra/{question.id}")
            for question in encode_all(context.student.tokenizer, self.extra, questions, limit)
            if (question.context, question.choices) not in texts
        ]
        if len(found) < self.number:
            raise ConfigError(
                f"batches.number={self.number}: must be at most {len(found)}, the questions of batches.extra="
                f"{self.extra.name} that the recovery does not have. Lower it, lower task.train_size, or choose "
                "another task with task@batches.extra=CHOICE."
            )
        context.report({"extra": self.number, "task": self.extra.name})
        return Questions.of(context, [*known, *found[: self.number]])
