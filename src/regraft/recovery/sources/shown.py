"""Questions that the teacher reads behind a text that the student does not see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from regraft.cache import digest
from regraft.interfaces import Batch, EncodedQuestion
from regraft.recovery.batches import Questions


@dataclass(frozen=True, kw_only=True)
class Shown(Questions):
    """Each batch holds for the teacher the same questions behind `shown`, read at the same tokens."""

    shown: tuple[int, ...]
    """What the teacher sees before every question."""
    begins: int | None = None
    """The token that begins every text, if there is one: it comes before all that the teacher sees, and once."""

    def behind(self, question: EncodedQuestion) -> EncodedQuestion:
        """The question as the teacher reads it."""
        begun = self.begins is not None and self.shown[:1] == question.context[:1] == (self.begins,)
        context = (*self.shown, *question.context[1 if begun else 0 :])
        return replace(question, context=context, unread=len(context) - len(question.context))

    def longest(self, written: int | None = None) -> int:
        # the question that begins all texts alike loses its first token, so this is at most one too many
        return len(self.shown) + super().longest(written)

    def packed(self, questions: Sequence[EncodedQuestion]) -> Batch:
        batch = super().packed(questions)
        return replace(batch, for_teacher=super().packed([self.behind(question) for question in questions]))

    def content(self) -> str:
        return digest([super().content(), self.shown])
