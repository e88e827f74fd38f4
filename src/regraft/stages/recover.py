"""Recover: train the pruned model on the recovery questions."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import pandas
import torch
from transformers import PreTrainedModel

from regraft.interfaces import AfterStep, LanguageModel
from regraft.records import BATCHES_BY_STEP, TRAINING
from regraft.recovery.loop import Trainer
from regraft.stages.context import Context
from regraft.stages.fingerprints import units, weights
from regraft.stages.outcome import Outcome
from regraft.stages.plan import PlannedStage
from regraft.stages.teaching import Teaching
from regraft.tracking.replay import step


def run(stage: PlannedStage, model: LanguageModel, context: Context) -> Outcome:
    """Train `model` in place over this stage's share of the run's recovery steps.

    Raises:
        TrainingDiverged: The loss is no longer a number.
    """
    config = context.config
    entered = weights(model.model)
    teaching = Teaching(stage, model, context)
    total = teaching.steps()
    first, last = round(total * stage.first_share), round(total * stage.last_share)
    earlier = round(total * stage.earlier_share)
    # the course of the learning rate: over these steps alone, or over all of which these are a part
    begin, end = (0, total) if stage.whole_course else (first, last)
    batches = teaching.source(first, last - first)
    teacher = teaching.answers(batches)
    seams = config.schedule.seams(model, config.pruner.structures[0], last - first, config.seed)
    torch.manual_seed(config.seed)
    trainer = Trainer(
        model,
        batches,
        config.loss,
        config.recovery,
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
    spent = trainer.spent
    return Outcome(
        fingerprints={"model_in": entered, "batches": batches.fingerprint()}
        | ({"units": units(model)} if config.schedule.during_recovery else {}),
        details={
            "first_step": earlier,
            "steps": last - first,
            "questions": len(teaching.questions),
            "examples": trainer.examples,
            "tokens": spent.tokens,
            "teacher_tokens": spent.teacher_tokens + teaching.before("tokens"),
            "flops": spent.flops + spent.teacher_flops + teaching.before("flops"),
            "teacher_flops": spent.teacher_flops + teaching.before("flops"),
            "precision": teaching.precision,
            "device": model.model.device.type,
        }
        | ({"teacher": teaching.reported} if teaching.reported else {})
        | ({"written": teaching.written} if teaching.written else {})
        | ({BATCHES_BY_STEP: batches.fingerprints()} if config.recovery.has_budget else {})
        | ({"processes": context.processes.count} if context.processes.count > 1 else {}),
        seconds=trainer.seconds,
        tables={TRAINING: pandas.DataFrame(trainer.lines)},
    )


def _from(first: int, actions: Sequence[AfterStep]) -> tuple[AfterStep, ...]:
    """The same actions, told the number of a step in this stage and not in the course that the trainer counts."""
    return tuple(functools.partial(_told, first, action) for action in actions)


def _told(first: int, action: AfterStep, network: PreTrainedModel, step: int) -> None:
    action(network, step - first)
