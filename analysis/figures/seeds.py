"""How far seeds are apart: each run's distance from the mean of its condition."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis import names
from analysis.collect import AnalysisError, Collection
from analysis.curves import conditions, points, select
from analysis.figures.style import MARKERS, PLAIN, Drawn, Venue, grid, legend, looks, save, style, wrapped

if TYPE_CHECKING:
    from matplotlib.artist import Artist


def spread(collection: Collection, folder: Path, venue: Venue = PLAIN) -> Drawn:
    """One dot for each seed, a bar of one standard deviation to both sides.

    Raises:
        AnalysisError: No condition has two seeds that differ.
    """
    found = points(collection, x="target")
    by = [*found.facets, *found.lines, "sparsity"]
    table = found.table.drop_duplicates([*by, "work"]).copy()
    groups = table.groupby(by, dropna=False)["value"]
    table["distance"] = table["value"] - groups.transform("mean")
    table["deviation"] = groups.transform("std")
    table = table[table["deviation"].notna()]
    if table.empty:
        raise AnalysisError("no condition has two seeds that differ, so they have no spread.")
    panels = conditions(table, found.facets)
    appearance = looks(found.lines, conditions(table, found.lines))
    if len({line[1:] for line in appearance}) > 1:
        # there are no lines to be dashed: markers tell all that differs
        appearance = {
            line: (look[0], MARKERS[place % len(MARKERS)], look[2])
            for place, (line, look) in enumerate(appearance.items())
        }
    sparsities = sorted(set(table["sparsity"]))
    with style(venue):
        layout = grid(venue, len(panels))
        handles: dict[str, Artist] = {}
        for axes, facet in zip(layout.axes, panels, strict=True):
            axes.axhline(0, color="black", linewidth=0.6, zorder=1)
            for place, (line, (colour, marker, _)) in enumerate(appearance.items()):
                chosen = select(select(table, found.facets, facet), found.lines, line)
                at = chosen["sparsity"].map(sparsities.index) + 0.7 * ((place + 0.5) / len(appearance) - 0.5)
                bars = chosen.assign(at=at).drop_duplicates("sparsity")
                axes.vlines(bars["at"], -100 * bars["deviation"], 100 * bars["deviation"], color=colour, linewidth=0.9)
                handles[names.label(found.lines, line)] = axes.scatter(
                    at, 100 * chosen["distance"], s=9, color=colour, marker=marker, linewidth=0.6, zorder=3
                )
            axes.set_xticks(np.arange(len(sparsities)), [names.spaced(each).removesuffix(" %") for each in sparsities])
            axes.grid(visible=False, axis="x")
            layout.title(axes, names.title(found.facets, facet))
        layout.figure.supxlabel(found.axis.label)
        for axes in layout.leftmost:
            axes.set_ylabel(wrapped("Accuracy minus the mean over seeds (points)", venue))
        legend(layout.figure, handles, names.heading(found.lines[0]))
        data = table[[*by, "seed", "value", "distance", "deviation"]]
        seeds = names.span(found.table.groupby(by)["seed"].nunique())
        caption = (
            f"Accuracy of each seed minus the mean of its condition, {seeds} seeds, {names.span(found.table['n'])} "
            "test questions. Bars: one standard deviation to both sides. Conditions in which the seed changes nothing "
            "have no dots."
        )
        return save(layout.figure, folder, "spread_of_seeds", {"": data}, caption, found.gaps)
