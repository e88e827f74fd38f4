"""Where batches come from: the first seam of the loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from regraft.cache import digest
from regraft.config.ranges import ConfigError
from regraft.interfaces import Batch, BatchContext, BatchSource, EncodedQuestion, Loss

if TYPE_CHECKING:
    from regraft.interfaces import LanguageModel


QUESTIONS_A_BATCH = 32
"""Of those that `Questions.each` gives."""


@dataclass(frozen=True, kw_only=True)
class Questions(BatchSource):
    """The recovery questions, in an order that the seed fixes and every loss shares.

    Batches hold questions of similar length, counted with all their choices, so the answer decides nothing.
    """

    encoded: Sequence[EncodedQuestion]
    loss: Loss
    batch_size: int
    accumulation: int
    pad_token_id: int
    seed: int
    first: int
    """Number of the run's first step that this source feeds."""
    steps: int
    rank: int = 0
    """Of the processes that train together, which one this is."""
    processes: int = 1

    @classmethod
    def of(cls, context: BatchContext, encoded: Sequence[EncodedQuestion], **more: Any) -> Self:
        """Texts that are known, fed to the training of `context`; `more` are the fields that a subclass adds."""
        return cls(
            encoded=encoded,
            loss=context.loss,
            batch_size=context.batch_size,
            accumulation=context.accumulation,
            pad_token_id=context.student.pad_token_id,
            seed=context.seed,
            first=context.first,
            steps=context.steps,
            rank=context.rank,
            processes=context.processes,
            **more,
        )

    @cached_property
    def order(self) -> list[list[int]]:
        """Positions in `encoded` of the questions of each step."""
        from regraft.tasks.packing import length_grouped

        if not self.encoded:
            raise ConfigError("there is no question to train on: lower task.preparation_size or task.selection_size.")
        order: list[list[int]] = []
        epoch = 0
        while len(order) < self.first + self.steps:
            order += length_grouped(self.encoded, self.batch_size, generator_seed=self.seed * 1_000_003 + epoch)
            epoch += 1
        return order[self.first : self.first + self.steps]

    def fingerprint(self) -> str:
        """Digest of the example ids in order, step by step. The same for every loss."""
        return digest([[self.encoded[index].id for index in step] for step in self.order])

    def fingerprints(self) -> list[str]:
        found = [""]
        for step in self.order:
            found.append(digest([found[-1], [self.encoded[index].id for index in step]], length=8))
        return found[1:]

    def step(self, number: int, student: LanguageModel) -> Iterator[tuple[Batch, int]]:
        for asked, count in self.parts(number):
            yield self.packed(asked), count

    def parts(self, number: int) -> Iterator[tuple[list[EncodedQuestion], int]]:
        """The questions of the parts of step `number`, each with how many of them count."""
        chosen = self.order[number]
        size = -(-len(chosen) // self.accumulation)
        for start in range(0, len(chosen), size):
            part = chosen[start : start + size]
            own = part[self.rank :: self.processes]
            # all processes make the same number of passes: without a question of its own one reads the first
            yield [self.encoded[index] for index in own or part[:1]], len(own)

    def each(self) -> Iterator[Batch]:
        """Every question once, in batches of similar length, which the hyper-parameters of training do not move."""
        from regraft.tasks.packing import length_grouped

        for chosen in length_grouped(self.encoded, QUESTIONS_A_BATCH, generator_seed=0):
            yield self.packed([self.encoded[index] for index in chosen])

    def content(self) -> str:
        """Digest of everything that can be packed: ids and tokens of the questions, and how they are read."""
        drawn = self.seed if self.loss.reads == "drawn_choice" else None
        told = self.loss.reads == "gold"
        questions = sorted((q.id, q.context, q.choices, q.answer if told else None) for q in self.encoded)
        return digest([questions, self.loss.reads, self.loss.positions, drawn])

    def longest(self, written: int | None = None) -> int:
        """Most positions of a text as the teacher reads it.

        Args:
            written: Tokens behind each question in place of its choices.
        """
        behind = [
            max(map(len, question.choices), default=0) if written is None else written for question in self.encoded
        ]
        # nothing reads the last token of a text
        return max(len(question.context) + tokens for question, tokens in zip(self.encoded, behind, strict=True)) - 1

    def packed(self, questions: Sequence[EncodedQuestion]) -> Batch:
        """A batch of these, as the loss reads them."""
        from regraft.tasks.packing import pack

        return pack(
            questions,
            reads=self.loss.reads,
            positions=self.loss.positions,
            pad_token_id=self.pad_token_id,
            seed=self.seed,
            labelled="labels" in self.loss.needs,
        )
