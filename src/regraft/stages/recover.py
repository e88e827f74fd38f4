"""Recover: train the pruned model on the recovery questions."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas
import torch
from transformers import PreTrainedModel

from regraft.config.components import described
from regraft.interfaces import AfterStep, AnyQuestion, BatchContext, LabelledQuestion, LanguageModel, TeacherContext
from regraft.models.precision import autocast, resolved_precision
from regraft.records import TRAINING
from regraft.recovery.loop import Trainer
from regraft.stages.context import Context
from regraft.stages.fingerprints import units, weights
from regraft.stages.outcome import Outcome
from regraft.stages.plan import PlannedStage
from regraft.tasks.packing import move
from regraft.tracking.replay import step


def run(stage: PlannedStage, model: LanguageModel, context: Context) -> Outcome:
    """Train `model` in place over this stage's share of the run's recovery steps.

    Raises:
        TrainingDiverged: The loss is no longer a number.
    """
    config = context.config
    loss, training = config.loss, config.recovery
    entered = weights(model.model)
    questions: Sequence[AnyQuestion] = context.splits.recovery
    if "labels" not in loss.needs:
        questions = [q.unlabelled if isinstance(q, LabelledQuestion) else q for q in questions]
    total = training.total_steps(config.batches.texts(len(questions)))
    first, last = round(total * stage.first_share), round(total * stage.last_share)
    earlier = round(total * stage.earlier_share)
    # the course of the learning rate: over these steps alone, or over all of which these are a part
    begin, end = (0, total) if stage.whole_course else (first, last)
    precision = resolved_precision(model.model, training.precision)
    reported: dict[str, Any] = {}
    assert context.dense is not None, "the pipeline starts with prepare"
    known = TeacherContext(
        dense=context.load_dense,
        dense_key=context.dense.key,
        student=model,
        cache=context.cache,
        questions=lambda: (),
        questions_key="",
        autocast=lambda: autocast(model.model, training.precision),
        report=reported.update,
        needs=loss.needs,
    )
    written: dict[str, Any] = {}
    batches = config.batches.source(
        BatchContext(
            student=model,
            task=config.task,
            questions=questions,
            encode=lambda asked: context.encode(model, asked),
            loss=loss,
            batch_size=training.batch_size,
            accumulation=training.accumulation,
            seed=config.seed,
            first=first,
            steps=last - first,
            rank=context.processes.rank,
            processes=context.processes.count,
            cache=context.cache,
            writer=lambda: config.teacher.writer(known),
            writer_key=[described(config.teacher), context.dense.key],
            autocast=known.autocast,
            report=written.update,
        )
    )
    teacher = None
    if "teacher_logits" in loss.needs:
        if config.teacher.asks_before:
            known = replace(
                known,
                questions=lambda: (move(batch, context.device) for batch in batches.each()),
                questions_key=f"{batches.content()} {precision}",
            )
        teacher = config.teacher.build(known)
    seams = config.schedule.seams(model, config.pruner.structures[0], last - first, config.seed)
    torch.manual_seed(config.seed)
    trainer = Trainer(
        model,
        batches,
        loss,
        training,
        end - begin,
        first=first - begin,
        last=last - begin,
        teacher=teacher,
        seed=config.seed,
        vocabulary=model.vocabulary,
        terms=seams.terms,
        on_gradients=_from(first - begin, seams.on_gradients),
        after_step=_from(first - begin, seams.after_step),
        observe=lambda line: step(line, earlier, context.log),
        bar=context.bar(stage),
        progress=context.progress(stage.key),
        processes=context.processes,
    )
    trainer.run()
    return Outcome(
        fingerprints={"model_in": entered, "batches": batches.fingerprint()}
        | ({"units": units(model)} if config.schedule.during_recovery else {}),
        details={
            "first_step": earlier,
            "steps": last - first,
            "questions": len(questions),
            "examples": trainer.examples,
            "precision": precision,
            "device": model.model.device.type,
        }
        | ({"teacher": reported} if reported else {})
        | ({"written": written} if written else {})
        | ({"processes": context.processes.count} if context.processes.count > 1 else {}),
        seconds=trainer.seconds,
        tables={TRAINING: pandas.DataFrame(trainer.lines)},
    )


def _from(first: int, actions: Sequence[AfterStep]) -> tuple[AfterStep, ...]:
    """The same actions, told the number of a step in this stage and not in the course that the trainer counts."""
    return tuple(functools.partial(_told, first, action) for action in actions)


def _told(first: int, action: AfterStep, network: PreTrainedModel, step: int) -> None:
    action(network, step - first)
