"""Layer-wise sparsity: the share of each layer's units that was removed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas
from matplotlib.ticker import MaxNLocator

from analysis import names
from analysis.collect import AnalysisError, Collection, Run
from analysis.curves import conditions, differ, select
from analysis.figures.style import PLAIN, Drawn, Venue, grid, legend, looks, save, style, wrapped

if TYPE_CHECKING:
    from matplotlib.artist import Artist

MOVES = ("criterion", "structure", "model", "task", "preparation", "allocation", "schedule")
"""Columns that can decide where units go."""
MOST = 12
"""Conditions in one figure."""


def sparsity(collection: Collection, folder: Path, venue: Venue = PLAIN) -> Drawn:
    """One panel for each condition, one line for each sparsity; bands reach from the lowest to the highest run.

    Raises:
        AnalysisError: No record says what was removed by layer, or there are more conditions than can be shown.
    """
    about = collection.run_table
    lines = []
    for run, condition in zip(collection.runs, about.to_dict("records"), strict=True):
        for structure, shares in removed(run).items():
            place = {column: condition[column] for column in (*MOVES, "sparsity")}
            lines += [
                place | {"pruned": structure, "layer": layer, "removed": share} for layer, share in enumerate(shares)
            ]
    if not lines:
        raise AnalysisError(
            "no record says how many units of each layer were removed: they are of an earlier version. Run the sweep "
            "again under another name, sweep=NAME."
        )
    table = pandas.DataFrame(lines)
    by = [*(column for column in MOVES if differ(table, column)), *(["pruned"] if differ(table, "pruned") else [])]
    groups = table.groupby([*by, "sparsity", "layer"], dropna=False)["removed"]
    data = groups.agg(mean="mean", low="min", high="max", runs="size").reset_index()
    panels = conditions(data, by)
    if len(panels) > MOST or data["sparsity"].nunique() > MOST:
        raise AnalysisError("too many conditions for one figure. Draw fewer runs, for instance --where criterion=l2.")
    appearance = looks(["sparsity"], conditions(data, ["sparsity"]))
    with style(venue):
        layout = grid(venue, len(panels))
        handles: dict[str, Artist] = {}
        for axes, panel in zip(layout.axes, panels, strict=True):
            for line, (colour, marker, _) in appearance.items():
                chosen = select(select(data, by, panel), ["sparsity"], line)
                if chosen.empty:
                    continue
                x, low, high = chosen["layer"], 100 * chosen["low"], 100 * chosen["high"]
                axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
                (handles[names.label(["sparsity"], line)],) = axes.plot(
                    x, 100 * chosen["mean"], color=colour, marker=marker, markersize=3, linewidth=0.9
                )
            layout.title(axes, names.title(by, panel))
            axes.set_ylim(-3, 103)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        layout.figure.supxlabel("Layer (0 is next to the embedding)")
        for axes in layout.leftmost:
            axes.set_ylabel(wrapped(f"Share of {names.units(set(table['pruned']))} removed (%)", venue))
        legend(layout.figure, handles, "Requested sparsity")
        caption = (
            f"Share of units removed from each layer at the end, mean over {names.span(data['runs'])} runs (seeds and "
            "losses); bands from the lowest to the highest run."
        )
        return save(layout.figure, folder, "layer_wise_sparsity", {"": data}, caption)


def removed(run: Run) -> dict[str, list[float]]:
    """Structure -> share of each layer's units that is gone at the end; empty if that is not known."""
    stages = [stage for stage in run.record.stages if stage.stage == "prune" and "dense" in stage.details]
    if not stages:
        return {}
    details = stages[-1].details
    return {
        structure: [gone / there for gone, there in zip(details["removed"][structure], dense, strict=True)]
        for structure, dense in details["dense"].items()
        if structure in details["removed"]
    }
