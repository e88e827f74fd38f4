"""Prune: score the units, decide which go, take them out."""

from __future__ import annotations

import numpy
import pandas
import torch

from regraft.cache import digest
from regraft.interfaces import LanguageModel, PruningContext
from regraft.records import SCORES
from regraft.stages.calibration import Questions
from regraft.stages.context import Context
from regraft.stages.fingerprints import units, weights
from regraft.stages.outcome import Outcome
from regraft.stages.plan import PlannedStage

BINS = 32
"""Of the histogram of a layer's scores."""
NOTHING = Outcome(fingerprints={"units": digest({})})
"""What a prune stage leaves that removes nothing."""


def run(stage: PlannedStage, model: LanguageModel, context: Context) -> Outcome:
    """Remove units of `model`, in place, until `stage.target_sparsity` of the dense model's are gone."""
    entered = weights(model.model)
    pruner = context.config.pruner
    dense = context.dense_units()
    scored = pruner.prune(
        model,
        dense,
        stage.target_sparsity,
        PruningContext(
            generator=torch.Generator().manual_seed(context.config.seed),
            sparsity=stage.target_sparsity,
            data=Questions(context, model) if pruner.needs else None,
        ),
    )
    left = pruner.left(model)
    return Outcome(
        fingerprints={"model_in": entered, "units": units(model)},
        details={
            "removed": {
                name: [before - there for before, there in zip(dense[name], left[name], strict=True)] for name in dense
            },
            "dense": dense,
        },
        tables={SCORES: pandas.concat([_histogram(layer, *each) for layer, each in enumerate(scored)])},
    )


def _histogram(layer: int, scores: torch.Tensor, keep: torch.Tensor) -> pandas.DataFrame:
    """How the scores of a group's units are spread, and which of them went: lines of the table of scores."""
    numbers = scores.detach().double().cpu().numpy()
    there = numpy.isfinite(numbers)
    units, edges = numpy.histogram(numbers[there], BINS)
    removed, _ = numpy.histogram(numbers[there & ~keep.cpu().numpy()], edges)
    return pandas.DataFrame({"layer": layer, "low": edges[:-1], "high": edges[1:], "units": units, "removed": removed})
