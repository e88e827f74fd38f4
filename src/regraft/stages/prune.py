"""Prune: score the units, decide which go, take them out."""

from __future__ import annotations

import functools
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pandas
import torch

from regraft.cache import digest
from regraft.interfaces import LanguageModel, PruningContext
from regraft.pruning.pruner import PrunedGroup
from regraft.records import SCORES
from regraft.stages.calibration import Questions
from regraft.stages.context import Context
from regraft.stages.fingerprints import units, weights
from regraft.stages.outcome import WARNINGS, Outcome
from regraft.stages.plan import PlannedStage

BINS = 32
"""Of the histogram of a layer's scores."""
MEASURED = "measured.json"
"""File of a cache entry with what was measured for a prune stage."""
NOTHING = Outcome(fingerprints={"units": digest({})})
"""What a prune stage leaves that removes nothing."""


def run(stage: PlannedStage, model: LanguageModel, context: Context) -> Outcome:
    """Remove units of `model`, in place, until `stage.target_sparsity` of the dense model's are gone."""
    entered = weights(model.model)
    pruner = context.config.pruner
    dense = context.dense_units()
    told: dict[str, Any] = {}
    groups = pruner.prune(
        model,
        dense,
        stage.target_sparsity,
        PruningContext(
            generator=torch.Generator().manual_seed(context.config.seed),
            sparsity=stage.target_sparsity,
            data=Questions(context, model) if pruner.needs else None,
            dense=context.dense.read if context.dense is not None else None,
            length=functools.cache(lambda: context.length(model)),
            is_last=stage.target_sparsity >= context.config.sparsity,
            report=told.update,
            once=lambda name, measure: _once(context, stage.key, name, measure),
            once_of_dense=lambda name, measure: _once(context, _dense_here(context), name, measure),
        ),
    )
    left = pruner.left(model)
    removed = {name: [before - there for before, there in zip(dense[name], left[name], strict=True)] for name in dense}
    # a budget may leave the model as it is, and says what it reached
    idle = [] if "budget" in told else [name for name, gone in removed.items() if not any(gone)]
    warnings = [_told_idle(stage.target_sparsity, name, max(dense[name])) for name in idle]
    return Outcome(
        fingerprints={"model_in": entered, "units": units(model)},
        details={"removed": removed, "dense": dense, **({WARNINGS: warnings} if warnings else {}), **told},
        tables={SCORES: pandas.concat(list(map(_histogram, groups)))},
    )


def _told_idle(sparsity: float, structure: str, most: int) -> str:
    return (
        f"sparsity={sparsity:g} removed nothing: of {structure}, at most {most} units a group, it rounds to none. "
        f"Choose {1 / most:.2g}, a share of one unit, or more."
    )


def _dense_here(context: Context) -> str:
    """The dense model on this machine: a cache may be shared by several."""
    assert context.dense is not None, "the pipeline starts with prepare"
    return digest([context.dense.key, platform.node()])


def _once(context: Context, key: str, name: str, measure: Callable[[], Any]) -> Any:
    """What was measured of this under this name, before now or now."""

    def make(folder: Path) -> None:
        (folder / MEASURED).write_text(json.dumps(measure()), encoding="utf-8")

    entry = context.cache.entry(context.kind("measured"), digest([key, name]), make)
    return json.loads((entry / MEASURED).read_text(encoding="utf-8"))


def _histogram(group: PrunedGroup) -> pandas.DataFrame:
    """How the scores of a group's units are spread, and which of them went: lines of the table of scores."""
    numbers = group.scores.detach().double().cpu().numpy()
    there = numpy.isfinite(numbers)
    units, edges = numpy.histogram(numbers[there], BINS)
    removed, _ = numpy.histogram(numbers[there & ~group.keep.cpu().numpy()], edges)
    return pandas.DataFrame(
        {
            "structure": group.structure,
            "layer": group.number,
            "low": edges[:-1],
            "high": edges[1:],
            "units": units,
            "removed": removed,
        }
    )
