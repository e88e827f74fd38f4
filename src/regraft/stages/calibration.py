"""The questions that units are scored by, as the pruning room may use them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import torch

from regraft.interfaces import (
    AfterStep,
    Answers,
    Batch,
    Calibration,
    EncodedQuestion,
    LanguageModel,
    Loss,
    LossNeed,
    LossValue,
    ModelOutputs,
    Positions,
    Reads,
    Term,
)
from regraft.models.forward import forward
from regraft.models.precision import autocast
from regraft.recovery import batches as recovery
from regraft.recovery.loop import Trainer
from regraft.stages.context import Context
from regraft.tasks.packing import length_grouped, move, pack


class Questions(Calibration):
    """The first of the recovery's questions.

    Args:
        context: Of the run.
        model: Whose tokens they are.
    """

    def __init__(self, context: Context, model: LanguageModel) -> None:
        self.context, self.config = context, context.config.calibration
        self._tokens = model

    def batches(self, loss: Loss | None = None) -> Iterator[Batch]:
        labelled = loss is not None and "labels" in loss.needs
        encoded = self._encoded(labelled)[: self.config.questions]
        reads: Reads = "choices" if loss is None else loss.reads
        positions: Positions = "all" if loss is None else loss.positions
        for chosen in length_grouped(encoded, self.config.batch_size, generator_seed=0):
            batch = pack(
                [encoded[index] for index in chosen],
                reads=reads,
                positions=positions,
                pad_token_id=self._tokens.pad_token_id,
                labelled=labelled,
            )
            yield move(batch, self.context.device)

    def forward(self, model: LanguageModel, batch: Batch) -> ModelOutputs:
        return self._said(model, batch)

    def value(self, model: LanguageModel, loss: Loss, batch: Batch) -> LossValue:
        known = self._known
        taught = _Dense(self, loss.asks_teacher)(batch).within(known) if "teacher_logits" in loss.needs else None
        return loss(batch, self._said(model, batch, loss.needs).within(known), taught)

    def _said(self, model: LanguageModel, batch: Batch, needs: frozenset[LossNeed] = frozenset()) -> ModelOutputs:
        with autocast(model.model, self.config.precision):
            return forward(model.model, batch, needs)

    def train(
        self,
        model: LanguageModel,
        loss: Loss,
        steps: int,
        *,
        learning_rate: float | None = None,
        terms: Sequence[Term] = (),
        on_gradients: Sequence[AfterStep] = (),
        after_step: Sequence[AfterStep] = (),
    ) -> None:
        config = self.context.config
        rate = config.recovery.learning_rate if learning_rate is None else learning_rate
        training = replace(
            config.recovery, steps=steps, tokens=None, flops=None, learning_rate=rate, lora=None, frozen=()
        )
        source = recovery.Questions(
            encoded=self._encoded("labels" in loss.needs),
            loss=loss,
            batch_size=training.batch_size,
            accumulation=training.accumulation,
            pad_token_id=model.pad_token_id,
            seed=config.seed,
            first=0,
            steps=steps,
        )
        torch.manual_seed(config.seed)
        Trainer(
            model,
            source,
            loss,
            training,
            steps,
            teacher=_Dense(self, loss.asks_teacher) if "teacher_logits" in loss.needs else None,
            seed=config.seed,
            vocabulary=model.vocabulary,
            terms=terms,
            on_gradients=on_gradients,
            after_step=after_step,
            bar="prune" if config.runtime.progress else None,
            key="recovery",
        ).run()

    @torch.no_grad()
    def _taught(self, batch: Batch, needs: frozenset[LossNeed]) -> ModelOutputs:
        assert self.context.dense is not None, "the pipeline starts with prepare"
        return self._said(self.context.dense.read(), batch, needs)

    @cached_property
    def _known(self) -> int:
        return self._tokens.vocabulary

    def _encoded(self, labelled: bool) -> list[EncodedQuestion]:
        return self._with_answers if labelled else self._without

    @cached_property
    def _with_answers(self) -> list[EncodedQuestion]:
        return self.context.encode(self._tokens, self.context.splits.recovery)

    @cached_property
    def _without(self) -> list[EncodedQuestion]:
        return self.context.encode(self._tokens, self.context.unlabelled("recovery"))


class _Dense(Answers):
    """The dense model, in the calibration's precision."""

    def __init__(self, questions: Questions, needs: frozenset[LossNeed]) -> None:
        self.questions, self.needs = questions, needs

    def __call__(self, batch: Batch) -> ModelOutputs:
        return self.questions._taught(batch, self.needs)
