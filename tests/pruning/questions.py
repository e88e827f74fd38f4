"""A few made-up questions of unlike lengths as calibration, without a task, a run or a tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from architectures import VOCABULARY

from regraft.interfaces import Batch, Calibration, EncodedQuestion, LanguageModel, Loss, LossValue, ModelOutputs
from regraft.models.forward import forward
from regraft.tasks.packing import pack

PAD = 0
"""No question holds it."""


def made(number: int = 6, seed: int = 0, choices: int = 3) -> list[EncodedQuestion]:
    """Questions of 4 to 9 tokens with choices of 1 to 3."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        length = int(torch.randint(low, high + 1, (), generator=generator))
        return tuple(torch.randint(1, VOCABULARY, (length,), generator=generator).tolist())

    return [
        EncodedQuestion(
            id=f"q{index}",
            context=tokens(4, 9),
            choices=tuple(tokens(1, 3) for _ in range(choices)),
            answer=int(torch.randint(choices, (), generator=generator)),
        )
        for index in range(number)
    ]


class Made(Calibration):
    """Batches of `batch_size` of `questions`, in their order.

    Args:
        questions: With answers.
        batch_size: Questions a batch.
        dense: The teacher of losses that need one.
        pad: The token that fills up rows.
    """

    def __init__(
        self,
        questions: Sequence[EncodedQuestion] | None = None,
        batch_size: int = 3,
        dense: LanguageModel | None = None,
        pad: int = PAD,
    ) -> None:
        self.questions = list(questions) if questions is not None else made()
        self.batch_size, self.dense, self.pad = batch_size, dense, pad

    def batches(self, loss: Loss | None = None) -> Iterator[Batch]:
        labelled = loss is not None and "labels" in loss.needs
        for start in range(0, len(self.questions), self.batch_size):
            chosen = self.questions[start : start + self.batch_size]
            yield pack(
                chosen if labelled else [replace(question, answer=None) for question in chosen],
                reads="choices" if loss is None else loss.reads,
                positions="all" if loss is None else loss.positions,
                pad_token_id=self.pad,
                labelled=labelled,
            )

    def forward(self, model: LanguageModel, batch: Batch) -> ModelOutputs:
        return forward(model.model, batch)

    def value(self, model: LanguageModel, loss: Loss, batch: Batch) -> LossValue:
        taught = None
        if "teacher_logits" in loss.needs:
            assert self.dense is not None
            with torch.no_grad():
                taught = self.forward(self.dense, batch)
        return loss(batch, self.forward(model, batch), taught)

    def train(self, *arguments: object, **named: object) -> None:
        raise AssertionError("nobody trains here")


def sequences(question: EncodedQuestion) -> Iterator[tuple[list[int], range]]:
    """The question alone and with each choice as plain token sequences, and which positions are new in each."""
    yield list(question.context), range(len(question.context))
    for choice in question.choices:
        if len(choice) > 1:
            yield (
                [*question.context, *choice[:-1]],
                range(len(question.context), len(question.context) + len(choice) - 1),
            )


def with_other_answers(questions: Sequence[EncodedQuestion]) -> list[EncodedQuestion]:
    """The same questions, each with the next choice for its answer."""
    return [replace(question, answer=((question.answer or 0) + 1) % len(question.choices)) for question in questions]
