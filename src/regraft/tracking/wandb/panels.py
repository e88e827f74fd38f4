"""The panels of a W&B dashboard, in sections; what they show has the names in `keys`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import wandb_workspaces.reports.v2 as wr
from wandb_workspaces.reports.v2.interface import PanelTypes

from regraft.tracking.wandb import keys

ACCURACY = keys.metric("accuracy", "test")
LOSS = wr.Config(f"choices.{keys.choice('loss')}")
CRITERION = wr.Config(f"choices.{keys.choice('pruner/criterion')}")
SEED = wr.Config("seed")
SPARSITY = wr.Config("sparsity")

SPARSITIES = {
    keys.BLOCK: "share of units removed from the pruned blocks",
    keys.TARGET: "share of units asked to remove",
    keys.MODEL: "share of parameters removed from the model",
}
STAGES = {keys.STAGE: "stage", keys.TARGET: SPARSITIES[keys.TARGET], keys.BLOCK: SPARSITIES[keys.BLOCK]}
SIZES = {
    keys.metric("parameters"): "parameters",
    keys.metric("bytes"): "bytes of the weights",
    keys.metric("macs_per_token"): "multiplications per token",
}
CURVES = {
    keys.training("loss"): "recovery loss",
    keys.training("lr"): "learning rate",
    keys.training("grad_norm"): "gradient norm before clipping",
}
EVERY_RUN = 1000
"""More runs than a panel is asked to show: W&B would stop at 10."""
NAMED = "${run:displayName}"
"""What a point of a scatter plot is called."""
SCORES, LAYERS = "scores/", "layers/"
"""How the names of what is logged for each layer begin."""


@dataclass(frozen=True)
class Section:
    """Panels that answer one question."""

    name: str
    panels: tuple[PanelTypes, ...]


def stored(key: wr.Config) -> str:
    """Where W&B keeps the value of a config key: `choices.loss` in `choices.value.loss`."""
    first, dot, rest = key.name.partition(".")
    return f"{first}.value{dot}{rest}"


def sections(logged: Sequence[str]) -> list[Section]:
    """What a dashboard shows, from the question of the study to what happens in a layer.

    Args:
        logged: The summary keys of the runs: those of layers tell which layers there are.
    """
    return [
        Section("Accuracy vs sparsity by loss", tuple(_scatter(x, label) for x, label in SPARSITIES.items())),
        Section("Choices and accuracy", (_parallel(),)),
        Section("Training curves", tuple(_curve(y, label) for y, label in CURVES.items())),
        Section("Accuracy per stage", tuple(_per_stage(x, label) for x, label in STAGES.items())),
        Section("Accuracy vs size", tuple(_scatter(x, label) for x, label in SIZES.items())),
        Section("Predictions", (wr.WeavePanelSummaryTable(table_name=keys.PREDICTIONS, layout=wr.Layout(w=24, h=16)),)),
        Section("Layers", tuple(_layers(sorted(logged)))),
    ]


def _scatter(x: str, label: str) -> PanelTypes:
    """One point for each run, after its last stage."""
    return wr.ScatterPlot(
        title=f"Accuracy vs {label}",
        x=wr.SummaryMetric(x),
        y=wr.SummaryMetric(ACCURACY),
        legend_template=NAMED,
    )


def _parallel() -> PanelTypes:
    """One line for each run, from what was chosen to what came of it."""
    columns: dict[str, wr.Config | wr.SummaryMetric] = {
        "criterion": CRITERION,
        "sparsity": SPARSITY,
        "loss": LOSS,
        "seed": SEED,
        "test accuracy": wr.SummaryMetric(ACCURACY),
    }
    return wr.ParallelCoordinatesPlot(
        title="Choices and accuracy",
        columns=[wr.ParallelCoordinatesPlotColumn(metric=key, display_name=name) for name, key in columns.items()],
        layout=wr.Layout(w=24, h=12),
    )


def _curve(y: str, label: str) -> PanelTypes:
    """The mean over the runs of each loss, with the lowest and the highest."""
    return wr.LinePlot(
        title=label.capitalize(),
        x=keys.STEP,
        y=[y],
        title_x="optimizer steps",
        groupby=LOSS,
        groupby_aggfunc="mean",
        groupby_rangefunc="minmax",
        max_runs_to_show=EVERY_RUN,
    )


def _per_stage(x: str, label: str) -> PanelTypes:
    """One line for each run, one point for each of its evaluations."""
    return wr.LinePlot(
        title=f"Accuracy after each stage vs {label}",
        x=x,
        y=[ACCURACY],
        title_x=label,
        title_y="test accuracy",
        max_runs_to_show=EVERY_RUN,
    )


def _layers(logged: Sequence[str]) -> list[PanelTypes]:
    """What was removed from each layer, and how the criterion scored its units: a histogram is drawn as a line plot."""
    shares = [key for key in logged if key.startswith(LAYERS)]
    scores = [key for key in logged if key.startswith(SCORES)]
    removed = [
        wr.BarPlot(
            title="Share of units removed from each layer",
            metrics=list(shares),
            orientation="v",
            groupby=CRITERION,
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            max_runs_to_show=EVERY_RUN,
            max_bars_to_show=EVERY_RUN,
            layout=wr.Layout(w=24, h=8),
        )
    ]
    histograms = [
        wr.LinePlot(title=f"Scores of units, layer {int(key.rpartition('_')[2])}", x=keys.STAGE, y=[key])
        for key in scores
    ]
    return [*(removed if shares else []), *histograms]
