"""One run: walk the pipeline, leave a record."""

from __future__ import annotations

import json
import logging
import os
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import torch
import transformers

from regraft.cache import GIGABYTE, Cache
from regraft.config.compatibility import check_processes
from regraft.config.ranges import ConfigError
from regraft.config.schema import RunConfig
from regraft.environment import Memory, describe, is_out_of_memory, started_together
from regraft.interfaces import LanguageModel
from regraft.models import export
from regraft.records import (
    CHECKPOINT,
    PREDICTIONS,
    QUESTIONS,
    SCORES,
    TRAINING,
    Record,
    Row,
    StageRecord,
    is_finished,
)
from regraft.recovery.processes import Processes
from regraft.secrets import redact
from regraft.stages import evaluate, initialise, instruct, load, prepare, prune, recover, rewind
from regraft.stages.context import Context, Lineage
from regraft.stages.outcome import WARNINGS, Outcome
from regraft.stages.plan import PlannedStage, plan, questions_key, run_id
from regraft.tracking.none import Silent
from regraft.tracking.replay import info, steps

log = logging.getLogger(__name__)

KEPT = "model"
"""Folder of a cached recover stage with its weights, kept with `save_model=true` and where it may teach the next."""
REMOVED = "removed.json"
"""Beside it: which units its model lacks, in the numbering of the dense model."""
ORIGINS = {"prepare": prepare.dense, "load": load.saved}
"""Stages that a model comes from."""
STAGES = {
    "prepare": prepare.run,
    "load": load.run,
    "initialise": initialise.run,
    "prune": prune.run,
    "rewind": rewind.run,
    "recover": recover.run,
    "instruct": instruct.run,
    "evaluate": evaluate.run,
}
CHANGES = ("initialise", "prune", "rewind", "recover", "instruct")
"""Stages that change a model."""


def run(config: RunConfig, folder: Path, resolved: dict[str, Any], choices: dict[str, str], sweep: str) -> Record:
    """Walk the pipeline of `config` and write the record into `folder`.

    Args:
        config: What to do.
        folder: The run's folder, which exists.
        resolved: The config as plain data, for the record.
        choices: The chosen YAML of each config group.
        sweep: Name of the sweep.

    Returns:
        The record, whose status says whether the run finished. A failed run leaves its record too.

    Raises:
        ConfigError: So many processes cannot do it together.
        Stopped: The process was told to stop. There is no record: the same run goes on from where it was.
    """
    torch.set_num_threads(config.runtime.threads)
    # a bar for every checkpoint that is read would drown the training's own
    transformers.utils.logging.disable_progress_bar()
    check_processes(config, started_together())
    processes = Processes(_device(config.runtime.device), started_together(), config.runtime.shard)
    device = processes.device
    limit = config.runtime.cache_gb
    cache = Cache(config.runtime.cache, None if limit is None else round(limit * GIGABYTE))
    memory = Memory(device)
    record = Record(
        run_id=run_id(config),
        sweep=sweep,
        status="failed",
        error=None,
        config=resolved,
        choices=choices,
        environment=describe(device),
        stages=[],
        rows=[],
    )
    outcomes: list[tuple[PlannedStage, Outcome]] = []
    context = Context(
        config=config, cache=cache, device=device, log=Silent(), processes=processes, name=info(record, folder).name
    )
    if not processes.is_first:
        # the first writes; this one trains with it
        walk(context, outcomes)
        return replace(record, status="finished")
    context.log = config.tracker.start(info(record, folder))
    try:
        try:
            model = walk(context, outcomes)
            _save_tables(folder, outcomes)
            _save_questions(folder, context)
            record = replace(record, status="finished", error=_exported(model, folder, context))
        except Exception as error:
            # the traceback holds models alive; it is kept as text
            told = memory.told(error) if is_out_of_memory(error) else f"{error}" or type(error).__name__
            record = replace(record, status="failed", error=redact(f"{told}\n\n{traceback.format_exc()}"))
        record = replace(
            record,
            environment=record.environment | {"peak_memory_bytes": memory.peak()},
            stages=[_stage_record(stage, outcome, config) for stage, outcome in outcomes],
            rows=[row for stage, outcome in outcomes for row in _rows(stage, outcome)],
        )
        if record.status == "finished" or not is_finished(folder):
            record.save(folder)
    except BaseException:
        # stopped, or nothing can be written: it goes on another time
        context.log.finish(None)
        raise
    context.log.finish(record)
    if record.status == "finished":
        for stage in plan(config):
            context.progress(stage.key).path.unlink(missing_ok=True)
    return record


def _exported(model: Lineage, folder: Path, context: Context) -> str | None:
    """Save the model if asked; why it could not be, which is no reason to lose what was measured."""
    config = context.config
    if not config.save_model:
        return None
    try:
        config.export.write(model.read(), folder / CHECKPOINT)
    except Exception as error:
        return redact(f"{error}\n\n{traceback.format_exc()}")
    return None


def walk(context: Context, outcomes: list[tuple[PlannedStage, Outcome]]) -> Lineage:
    """Do the stages in order, add each outcome to `outcomes`, and return the last model.

    A stage that the cache knows is not done again, and its model is made only if needed.
    """
    model = Lineage("", _nothing)
    stages = plan(context.config)
    anchors = {stage.anchor for stage in stages} | {stage.teacher for stage in stages}
    for stage in stages:
        if stage.name in ORIGINS:
            model = ORIGINS[stage.name](stage, context)
        if stage.name == "prepare":
            context.dense = ORIGINS[stage.name](stage, context)
        outcome, model = perform(stage, model, context)
        outcomes.append((stage, outcome))
        for warning in outcome.details.get(WARNINGS, ()):
            log.warning("%s: %s", context.name, warning)
        if model.key in anchors:
            context.anchors.setdefault(model.key, model)
        if stage.name == "evaluate" and context.dense is not None and context.dense_evaluation is None:
            context.dense_evaluation = outcome
        if outcome.reused:
            steps(outcome.tables.get(TRAINING), int(outcome.details.get("first_step", 0)), context.log)
        context.log.stage(_stage_record(stage, outcome, context.config), _rows(stage, outcome), outcome.tables)
        if not outcome.reused and (outcome.seconds > 0 or outcome.metrics):
            log.info("%s: %s", context.name, _told(stage, outcome))
    return model


def perform(stage: PlannedStage, before: Lineage, context: Context) -> tuple[Outcome, Lineage]:
    """The outcome of one stage and the model that leaves it."""
    work = STAGES[stage.name]
    changes = stage.name in CHANGES
    if changes and stage.model_after == stage.model_before:
        return prune.NOTHING if stage.name == "prune" else Outcome(), before
    made: list[LanguageModel] = []
    processes = context.processes

    def make(folder: Path) -> None:
        processes.from_first(True)
        if stage.name not in ORIGINS:
            # to make the model that enters is no work of this stage, unless that is what the stage is for
            before.read()
        started = time.perf_counter()
        model = before.take() if changes else before.read()
        outcome = work(stage, model, context)
        replace(outcome, seconds=outcome.seconds + time.perf_counter() - started).save(folder)
        # what a recovery before this one teaches, this one may teach the next
        if stage.name == "recover" and (context.config.save_model or stage.teacher):
            export.save(model, folder / KEPT)
            (folder / REMOVED).write_text(json.dumps(model.removed), encoding="utf-8")
        made.append(model)

    def again() -> LanguageModel:
        kept = context.cache.find(context.kind("stages"), stage.key)
        if kept is not None and (kept / KEPT).is_dir():
            removed = json.loads((kept / REMOVED).read_text(encoding="utf-8"))
            return context.place(replace(export.load(kept / KEPT), removed=_tuples(removed)))
        model = before.take()
        # what trains again does so alone: other processes need not need this model
        alone = replace(context, log=Silent(), processes=Processes(context.device))
        fingerprints = work(stage, model, alone).fingerprints
        if fingerprints != outcome.fingerprints:
            log.warning("%s: the %s stage made again differs from the one recorded", context.name, stage.name)
        return model

    if processes.is_first:
        context.cache.entry(context.kind("stages"), stage.key, make)
        if not made:
            processes.from_first(False)
    elif processes.from_first(False) and stage.name == "recover":
        model = before.take()
        work(stage, model, context)
        made.append(model)
    processes.from_first(True)  # all wait until the outcome is there
    outcome = Outcome.load(context.cache.path(context.kind("stages"), stage.key))
    if not made:
        outcome = replace(outcome, reused=True)
    if not changes:
        return outcome, before
    after = Lineage(stage.model_after, again)
    return outcome, after.give(made[0]) if made else after


def _tuples(removed: dict[str, list[list[int]]]) -> dict[str, tuple[tuple[int, ...], ...]]:
    return {name: tuple(tuple(layer) for layer in layers) for name, layers in removed.items()}


def _nothing() -> LanguageModel:
    raise AssertionError("a pipeline starts with a model")


def _device(name: str) -> torch.device:
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = "cuda" if there["cuda"] else "cpu"
    if not there[name]:
        found = ", ".join(device for device, is_there in there.items() if is_there)
        raise ConfigError(f"runtime.device={name}: must be a device of this machine ({found}), or auto.")
    return torch.device(name)


def _stage_record(stage: PlannedStage, outcome: Outcome, config: RunConfig) -> StageRecord:
    asked: dict[str, object] = {}
    if stage.name == "evaluate":
        asked = {QUESTIONS: questions_key(config)}
    elif stage.name == "recover" and config.loss.trains:
        shown = {"labels"} if config.batches.shows_labels else set()
        asked = {"needs": sorted(config.loss.needs | shown)}
    return StageRecord(
        index=stage.index,
        stage=stage.name,
        key=stage.key,
        target_sparsity=stage.target_sparsity,
        fingerprints=outcome.fingerprints,
        seconds=outcome.seconds,
        reused=outcome.reused,
        details=outcome.details | asked,
    )


def _rows(stage: PlannedStage, outcome: Outcome) -> list[Row]:
    return [
        Row(
            stage_index=stage.index,
            stage=stage.name,
            target_sparsity=stage.target_sparsity,
            block_sparsity=outcome.block_sparsity,
            model_sparsity=outcome.model_sparsity,
            bits=outcome.bits,
            **vars(metric),
        )
        for metric in outcome.metrics
    ]


def _save_tables(folder: Path, outcomes: list[tuple[PlannedStage, Outcome]]) -> None:
    for name in (PREDICTIONS, TRAINING, SCORES):
        tables = [
            outcome.tables[name].assign(stage_index=stage.index, stage=stage.name)
            for stage, outcome in outcomes
            if name in outcome.tables
        ]
        if tables:
            pandas.concat(tables, ignore_index=True).to_parquet(folder / f".{name}", index=False)
            (folder / f".{name}").replace(folder / name)


def _save_questions(folder: Path, context: Context) -> None:
    """What was asked, once for all runs of the sweep that are asked the same."""
    path = folder.parent / QUESTIONS / f"{questions_key(context.config)}.parquet"
    if path.exists():
        return
    asked = [
        {"split": split, "id": question.id, "question": question.question, "choices": list(question.choices)}
        for split in context.config.evaluation.splits
        for question in context.labelled(split)
    ]
    path.parent.mkdir(exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        pandas.DataFrame(asked).to_parquet(aside, index=False)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _told(stage: PlannedStage, outcome: Outcome) -> str:
    accuracy = [metric for metric in outcome.metrics if (metric.metric, metric.split) == ("accuracy", "test")]
    text = f"{stage.name} at {stage.target_sparsity:.0%}" if stage.index > 1 else stage.name
    if accuracy:
        text += f": accuracy {accuracy[0].value:.3f} on {accuracy[0].n} test questions"
    return f"{text} ({outcome.seconds:.1f} s)"
