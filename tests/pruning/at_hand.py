"""A few questions, as a run would hand them to criteria, for models of a few thousand parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from architectures import tiny_model

from regraft.interfaces import Batch, Calibration, EncodedQuestion, LanguageModel, Loss, LossValue, ModelOutputs
from regraft.models.forward import forward
from regraft.recovery.batches import Questions
from regraft.recovery.loop import Trainer
from regraft.recovery.training import Training
from regraft.tasks.packing import pack

QUESTIONS = [
    EncodedQuestion(
        id=str(number), context=(1, 2, 3 + number % 5), choices=((20 + number % 3, 5), (6 + number % 4,)), answer=0
    )
    for number in range(24)
]


class AtHand(Calibration):
    """Questions of a few tokens; the teacher is the model as it was when this was made."""

    def __init__(self, training: Training | None = None, batch_size: int = 12) -> None:
        self.training = training or Training(batch_size=8, learning_rate=3e-3, warmup=0.0, precision="float32")
        self.batch_size = batch_size
        self.lines: list[dict[str, float]] = []

    def batches(self, loss: Loss | None = None) -> Iterator[Batch]:
        for start in range(0, len(QUESTIONS), self.batch_size):
            yield pack(
                QUESTIONS[start : start + self.batch_size],
                reads="choices" if loss is None else loss.reads,
                positions="all" if loss is None else loss.positions,
                pad_token_id=0,
                labelled=loss is not None and "labels" in loss.needs,
            )

    def forward(self, model: LanguageModel, batch: Batch) -> ModelOutputs:
        return forward(model.model, batch)

    def value(self, model: LanguageModel, loss: Loss, batch: Batch) -> LossValue:
        return loss(batch, self.forward(model, batch), None)

    def train(self, model: LanguageModel, loss: Loss, steps: int, **seams: Any) -> None:
        rate = seams.pop("learning_rate", None) or self.training.learning_rate
        training = Training(**(vars(self.training) | {"learning_rate": rate, "steps": steps}))
        source = Questions(
            encoded=QUESTIONS,
            loss=loss,
            batch_size=training.batch_size,
            accumulation=1,
            pad_token_id=0,
            seed=0,
            first=0,
            steps=steps,
        )
        Trainer(model, source, loss, training, steps, observe=self.lines.append, **seams).run()


def language_model(architecture: str = "llama", **shape: Any) -> LanguageModel:
    return LanguageModel(model=tiny_model(architecture, **shape), tokenizer=None)  # type: ignore[arg-type]


def logits_loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy of the right choices, read off the packed batch by loops, one token at a time."""
    outputs = forward(model, batch)  # type: ignore[arg-type]
    total, count = torch.zeros((), dtype=outputs.logits.dtype), 0
    assert batch.answer is not None
    for read, token, option in zip(batch.token_read, batch.token_id, batch.token_option, strict=True):
        if batch.option_choice[option] != batch.answer[batch.option_question[option]]:
            continue
        row = outputs.logits[read]
        total = total - (row[token] - row.exp().sum().log())
        count += 1
    return total / count
