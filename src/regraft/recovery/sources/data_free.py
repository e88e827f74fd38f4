"""No data: the teacher writes all texts from nothing, as in LLM-QAT (Liu et al. 2023, arXiv 2305.17888).

    y_1 uniform over the vocabulary,   y_2 .. y_(k+1) the likeliest,   then y_t ~ p_teacher(y_t | y_<t)

Their finding: a few likeliest tokens first make sense of the random start, and drawing after that makes texts differ;
k is 3 to 5 there, spread evenly, and one number here. As in their code, nothing but what the tokenizer puts before
every text comes before y_1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from regraft.config.ranges import require
from regraft.interfaces import BatchContext, Batches, BatchSource, EncodedQuestion, LanguageModel


@dataclass(frozen=True, kw_only=True)
class DataFree(Batches):
    """Texts of the teacher in place of the recovery questions, of which none is read."""

    written: ClassVar[bool] = True
    labelled: ClassVar[bool] = False

    number: int = 512
    """Texts, each with its own first token as far as there are enough."""
    tokens: int = 32
    """Most tokens of a text, the first one not counted."""
    greedy: int = 4
    """Tokens after the first that are the likeliest; all that follow are drawn."""

    def __post_init__(self) -> None:
        require(self.number >= 1, "number", self.number, "at least 1")
        require(self.tokens >= 1, "tokens", self.tokens, "at least 1")
        require(0 <= self.greedy <= self.tokens, "greedy", self.greedy, f"from 0 to tokens ({self.tokens})")

    @property
    def needs_writer(self) -> bool:
        return True

    @property
    def of_task(self) -> bool:
        return False

    def texts(self, questions: int) -> int:
        return self.number

    def source(self, context: BatchContext) -> BatchSource:
        from regraft.recovery.batches import Questions
        from regraft.recovery.sources.kept import written
        from regraft.recovery.writing import write

        settings = {"tokens": self.tokens, "greedy": self.greedy, "seed": context.seed}

        def author(writer: LanguageModel, asked: Sequence[EncodedQuestion]) -> list[EncodedQuestion]:
            return write(
                [(writer, 1.0)],
                asked,
                tokens=self.tokens,
                temperature=1.0,
                seed=context.seed,
                greedy=self.greedy,
            )

        return Questions.of(context, written(context, self._beginnings(context), settings, author))

    def _beginnings(self, context: BatchContext) -> list[EncodedQuestion]:
        """First tokens: all of the vocabulary but those of no text, in an order that the seed draws."""
        import numpy

        tokenizer = context.student.tokenizer
        before = tokenizer("")["input_ids"]
        if before[-1:] == [tokenizer.eos_token_id]:
            before = before[:-1]
        words = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))
        draw = numpy.random.default_rng(context.seed)
        order: list[int] = []
        while len(order) < self.number:
            order += draw.permutation(words).tolist()
        return [
            EncodedQuestion(id=f"written/{number}", context=(*before, first), choices=())
            for number, first in enumerate(order[: self.number])
        ]
