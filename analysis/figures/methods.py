"""Accuracy of each method where all runs were pruned alike: one row each, the best on top."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from analysis import names
from analysis.collect import AnalysisError, Collection
from analysis.curves import conditions, points, select, summarise
from analysis.figures.curve import guessed
from analysis.figures.style import COLOURS, PLAIN, Drawn, Venue, grid, legend, save, style, wrapped

if TYPE_CHECKING:
    from matplotlib.artist import Artist

MOST = 40
"""Rows of a figure."""
ROW, AROUND = 0.19, 0.8
"""Inches of a row, and of what is above and below all of them."""
LINE = 0.14
"""Inches of a line of a row's name."""


def at_one_sparsity(collection: Collection, folder: Path, venue: Venue = PLAIN) -> Drawn:
    """Accuracy of each loss, source of batches and setting at one sparsity, with intervals, the dense model and chance.

    Rows are in the order of their means, over the panels where there are several. Runs at sparsity 0 are left out
    unless there are no others.

    Raises:
        AnalysisError: There are several sparsities, one method, or more than fit a page.
    """
    found = points(collection, x="target")
    pruned = found.table[found.table["sparsity"] > 0]
    table = found.table if pruned.empty else pruned
    if table["sparsity"].nunique() > 1:
        raise AnalysisError(
            "runs have several sparsities, see accuracy_vs_block_sparsity. Choose one: --where sparsity=..."
        )
    found = replace(found, table=table)
    summary = summarise(found)
    means = {line: select(summary, found.lines, line)["mean"].mean() for line in conditions(summary, found.lines)}
    if not 2 <= len(means) <= MOST:
        raise AnalysisError(
            f"rows are for 2 to {MOST} methods, and there {'is' if len(means) == 1 else 'are'} {len(means)}. "
            "Choose some with --where loss=..."
        )
    order = sorted(means, key=lambda line: (means[line], names.label(found.lines, line)))
    panels = conditions(summary, found.facets)
    chances, gaps = guessed(collection, found, panels)
    scale, own = found.metric.scale, COLOURS.get(found.lines[0], {})
    labels = [wrapped(names.label(found.lines, line), venue) for line in order]
    tall = [LINE * (1 + label.count("\n")) for label in labels]
    row = max(ROW, *((one + other) / 2 for one, other in itertools.pairwise(tall)))
    with style(venue):
        layout = grid(venue, len(panels), most=2, height=AROUND + row * len(order))
        handles: dict[str, Artist] = {}
        for axes, panel in zip(layout.axes, panels, strict=True):
            chosen, single = (select(each, found.facets, panel) for each in (summary, table))
            for value in sorted(single["dense"].dropna().unique()):
                handles["dense"] = axes.axvline(scale * value, color="black", linewidth=0.8, dashes=(6, 3), zorder=1.5)
            if panel in chances:
                handles["chance"] = axes.axvline(
                    scale * chances[panel], color="black", linewidth=0.8, dashes=(1, 2), zorder=1.5
                )
            for place, line in enumerate(order):
                each = select(chosen, found.lines, line)
                colour, marker = own.get(str(line[0]), ("#333333", "o"))
                # the ends of an interval of shares may lie outside of them
                low, high = (scale * each[end].clip(0, 1) for end in ("low", "high"))
                axes.hlines([place] * len(each), low, high, color=colour, linewidth=1.1, zorder=3)
                axes.plot(scale * each["mean"], [place] * len(each), color=colour, marker=marker, markersize=3.6, ls="")
                runs = select(single, found.lines, line)["value"]
                axes.scatter(scale * runs, [place] * len(runs), s=6, color=colour, alpha=0.45, linewidth=0, zorder=5)
            layout.title(axes, names.title(found.facets, panel))
            axes.set_yticks(range(len(order)), labels)
            axes.set_ylim(-0.6, len(order) - 0.4)
        layout.axes[0].set_ylabel(", ".join(names.COLUMNS.get(line, line) for line in found.lines))
        layout.figure.supxlabel(found.metric.axis)
        if handles:
            legend(layout.figure, handles)
        units = names.units(set(table["structure"]), set(table["budget"]))
        caption = (
            f"{found.metric.label} on {names.span(summary['questions'].dropna())} test questions, "
            f"{names.spaced(table['sparsity'].iloc[0])} of {units} removed. Dots: means over "
            f"{names.span(summary['seeds'])} seeds. Bars: 95 % intervals of the mean over seeds (t quantiles); where "
            "the seeds tell no spread, over the questions (Wilson). Faint points: single runs. Where intervals "
            "overlap, differences are told by pairs of the same questions and seeds: `compare`."
        )
        return save(layout.figure, folder, "accuracy_of_methods", {"": summary}, caption, [*found.gaps, *gaps])
