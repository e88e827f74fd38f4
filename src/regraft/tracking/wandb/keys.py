"""What a run's numbers, tables and pictures are called in W&B: the log writes these names, panels show them."""

from __future__ import annotations

STEP = "recover/step"
"""Optimizer steps over all recover stages of a run: the x-axis of training curves."""
STAGE = "stage"
TARGET, BLOCK, MODEL = "sparsity/target", "sparsity/block", "sparsity/model"
"""Share asked for, share of units removed from the pruned blocks, share of parameters removed from the model."""
PREDICTIONS = "predictions"
"""Table of questions with the answers of the dense, the pruned and the recovered model."""
FIGURES = "figures"
"""Job type of the run that holds the figures of a sweep; it is no run of the sweep and has no record."""

SEED = "seed"
SPARSITY = "sparsity"
LAYER_SCORES = "scores/layer_"
LAYER_SPARSITY = "layers/sparsity/layer_"


def measured(metric: str, split: str = "") -> str:
    """What the last evaluation measured: `test/accuracy`; `bytes` of a metric that asks no questions."""
    return f"{split}/{metric}" if split else metric


def dense(key: str) -> str:
    """The same of the dense model: `dense/test/accuracy`."""
    return f"dense/{key}"


def training(column: str) -> str:
    """A column of the training table: `recover/loss`."""
    return f"recover/{column}"


def choice(group: str) -> str:
    """The config key of the chosen YAML of a config group: `choices.loss`. Dots lead into nested keys, slashes do not."""
    return f"choices.{group}"


def scores(layer: int) -> str:
    """Histogram of the criterion's scores in a layer, counted from 0."""
    return f"{LAYER_SCORES}{layer:02d}"


def layer_sparsity(layer: int) -> str:
    """Share of a layer's units that were removed."""
    return f"{LAYER_SPARSITY}{layer:02d}"


def figure(name: str) -> str:
    """Image of a figure in the run of figures."""
    return f"{FIGURES}/{name}"
