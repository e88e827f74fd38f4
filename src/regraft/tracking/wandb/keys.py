"""What a run's numbers are called in W&B: shared by what logs them, what draws them and what reads them back."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from regraft.records import Row, StageRecord

STEP = "recover/step"
"""Optimizer steps so far, over all recover stages of a run: the x-axis of training curves."""
STAGE = "stage"
"""Stages so far: what was measured after each is logged with it."""
TARGET, BLOCK, MODEL = SPARSITIES = ("sparsity/target", "sparsity/block", "sparsity/model")
"""Asked for; share of the units of the pruned blocks that is gone; share of the model's parameters that is gone."""
SIZES = ("parameters", "non_embedding_parameters", "bytes", "macs_per_token")
"""What is measured of the model without asking it."""
DENSE = "dense"
"""Prefix, in the summary, of what was measured of the dense model."""
RECORD = "record"
"""In the summary: digest of the record that the W&B run mirrors; it is set when all of it has been sent."""
ARTIFACT = "record"
"""Type of the artifact that holds the files of a run."""
PREDICTIONS = "predictions"
"""Table of the test questions with the answers of the dense, the pruned and the recovered model."""


def wandb_id(run_id: str, sweep: str) -> str:
    """The id of the W&B run: one for each run of each sweep, the same whenever it is done again."""
    return f"{run_id}-{hashlib.sha256(sweep.encode()).hexdigest()[:8]}"


def config(resolved: Mapping[str, Any], choices: Mapping[str, str], run_id: str, sweep: str) -> dict[str, Any]:
    """The config of a W&B run: the resolved config as it is nested, and what it was made from.

    `choices` holds the chosen YAML of each config group; W&B addresses keys by dots and takes no slash in them, so
    `pruner/criterion` is `choices.pruner_criterion`.
    """
    chosen = {choice(group): name for group, name in choices.items()}
    return {**resolved, "choices": chosen, "run_id": run_id, "sweep": sweep}


def choice(group: str) -> str:
    """The key below `choices` of a config group: `pruner/criterion` is `pruner_criterion`."""
    return group.replace("/", "_")


def metric(name: str, split: str = "") -> str:
    """A number that a stage measured: `test/accuracy`; `parameters`, which has no split."""
    return f"{split}/{name}".strip("/")


def training(column: str) -> str:
    """A column of the training table: `recover/loss`."""
    return f"recover/{column}"


def scores(layer: int, structure: str = "layer") -> str:
    """Histogram of the criterion's scores in a layer: `scores/layer_00`; of several structures `scores/hidden_00`."""
    return f"scores/{structure}_{layer:02d}"


def layer(structure: str, number: int) -> str:
    """Share of a layer's units that is gone: `layers/mlp_neurons_00`."""
    return f"layers/{structure}_{number:02d}"


def of_stage(stage: StageRecord, rows: Sequence[Row]) -> dict[str, float]:
    """What is logged of a stage that measured something."""
    numbers: dict[str, float] = {STAGE: stage.index, TARGET: stage.target_sparsity}
    for row in rows:
        for key, share in ((BLOCK, row.block_sparsity), (MODEL, row.model_sparsity)):
            if share is not None:
                numbers[key] = share
        if row.value is not None and math.isfinite(row.value):
            numbers[row.name] = row.value
    return numbers
