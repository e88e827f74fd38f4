"""Training curves: the loss of each optimizer step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas
from matplotlib.ticker import MaxNLocator, NullFormatter

from analysis import names
from analysis.collect import AnalysisError, Collection, Run
from analysis.curves import conditions, differ, points, select, with_condition
from analysis.figures.style import PLAIN, Drawn, Venue, grid, legend, log_numbers, looks, save, style
from regraft.records import LATER_TRAINING_COLUMNS, TRAINING, TRAINING_COLUMNS

if TYPE_CHECKING:
    from matplotlib.artist import Artist

STEPS = 400
"""Points of a drawn line; longer trainings are averaged over neighbouring steps."""
ROUNDING = 1e-9
"""A loss that is no larger has no place on a logarithmic axis: KL of a model to itself."""


def curves(collection: Collection, folder: Path, venue: Venue = PLAIN) -> Drawn:
    """One panel for each facet and loss, since values of different losses do not compare; one line for each sparsity.

    Where all runs have one sparsity, colour tells the first of what else they differ in.

    Lines are means over seeds, bands reach from the lowest to the highest seed. Steps count over all recover stages.

    Raises:
        AnalysisError: No run was trained, or a training table cannot be read.
    """
    found = points(collection, x="target")
    panels_by, others = [*found.facets, "loss"], [column for column in found.lines if column != "loss"]
    lines = ["sparsity", *others] if differ(found.table, "sparsity") or not others else others
    by = [*panels_by, *lines]
    tables = []
    for key, group in found.table[found.table["loss"] != "none"].groupby(by, dropna=False):
        runs = [collection.runs[run] for run in group.drop_duplicates("work")["run"]]
        if any((run.folder / TRAINING).exists() for run in runs):
            tables.append(with_condition(_averaged(runs), by, key))
    if not tables:
        raise AnalysisError("no run was trained, so there are no training curves.")
    data = pandas.concat(tables, ignore_index=True)[[*by, "step", "mean", "low", "high", "seeds"]]
    panels = conditions(data, panels_by)
    told = [column for column in found.facets if differ(data, column)]
    alike = [column for column in found.facets if column not in told]
    appearance = looks(lines, conditions(data, lines))
    with style(venue):
        # a row for each facet, unless all fit beside one another
        across = len({panel[-1] for panel in panels})
        layout = grid(venue, len(panels), most=3 if len(panels) <= 3 else min(3, across), sharey=False)
        handles: dict[str, Artist] = {}
        for axes, panel in zip(layout.axes, panels, strict=True):
            for line, (colour, _, dashes) in appearance.items():
                chosen = select(select(data, panels_by, panel), lines, line).sort_values("step")
                chosen = chosen[chosen["mean"] > ROUNDING]
                if chosen.empty:
                    continue
                axes.fill_between(
                    chosen["step"], chosen["low"].clip(ROUNDING), chosen["high"], color=colour, alpha=0.2, linewidth=0
                )
                (handles[names.label(lines, line)],) = axes.plot(
                    chosen["step"],
                    chosen["mean"],
                    color=colour,
                    linestyle=dashes,
                    linewidth=0.9,
                )
            where = [(column, value) for column, value in zip(panels_by, panel, strict=True) if column in told]
            layout.title(axes, names.label(*zip(("loss", panel[-1]), *where, strict=True)))
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
            axes.set_yscale("log", nonpositive="mask")
            axes.yaxis.set_minor_formatter(NullFormatter())
        for loss in {panel[-1] for panel in panels}:
            same = [axes for axes, panel in zip(layout.axes, panels, strict=True) if panel[-1] == loss]
            ends = np.array([axes.get_ylim() for axes in same])
            for axes in same:
                axes.set_ylim(ends[:, 0].min(), ends[:, 1].max())
                log_numbers(axes)
        layout.figure.supxlabel("Optimizer step")
        for axes in layout.leftmost:
            axes.set_ylabel("Loss")
        legend(layout.figure, handles, "Requested sparsity" if lines[0] == "sparsity" else names.heading(lines[0]))
        caption = (
            f"Training loss of each optimizer step of recovery, mean over {names.span(data['seeds'])} seeds; bands "
            "from the lowest to the highest seed. Values of different losses do not compare with each other."
        )
        if common := names.title(alike, [data[column].iloc[0] for column in alike]):
            caption += f" All: {common}."
        if "sparsity" not in lines:
            caption += f" Requested sparsity: {names.spaced(found.table['sparsity'].iloc[0])}."
        if (data["mean"] <= ROUNDING).any():
            caption += " Where the loss is 0, as KL of a model to itself is, there is no line."
        return save(layout.figure, folder, "training_curves", {"": data}, caption, found.gaps)


def trained(run: Run) -> pandas.DataFrame:
    """The run's training table with `total`: steps counted over all recover stages.

    Raises:
        AnalysisError: It cannot be read.
    """
    path = run.folder / TRAINING
    try:
        table = pandas.read_parquet(path)
    except (OSError, ValueError) as error:
        raise AnalysisError(
            f"{path}: cannot be read ({error}). Run the sweep again after deleting the folder."
        ) from None
    if missing := sorted(set(TRAINING_COLUMNS) - LATER_TRAINING_COLUMNS - set(table.columns)):
        raise AnalysisError(
            f"{path}: has no column {', '.join(missing)}. Run the sweep again after deleting the folder."
        )
    lengths = table.groupby("stage_index")["step"].max()
    return table.assign(total=table["step"] + table["stage_index"].map(lengths.cumsum() - lengths))


def _averaged(runs: list[Run]) -> pandas.DataFrame:
    """Mean, lowest and highest loss of the seeds at each step, at most `STEPS` of them."""
    losses = [trained(run).set_index("total")["loss"] for run in runs if (run.folder / TRAINING).exists()]
    table = pandas.concat(losses, axis=1).sort_index()
    width = -(-len(table) // STEPS)
    blocks = table.groupby(np.arange(len(table)) // width).mean()
    steps = table.index.to_series().groupby(np.arange(len(table)) // width).mean()
    return pandas.DataFrame(
        {
            "step": steps,
            "mean": blocks.mean(axis=1),
            "low": blocks.min(axis=1),
            "high": blocks.max(axis=1),
            "seeds": len(losses),
        }
    )
