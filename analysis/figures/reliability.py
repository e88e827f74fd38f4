"""Reliability diagram: how often a model is right when it is so sure (Guo et al. 2017, arXiv 1706.04599)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas

from analysis import names
from analysis.collect import AnalysisError, Collection, Run
from analysis.curves import conditions, points, select, with_condition
from analysis.figures.style import PLAIN, Drawn, Venue, grid, legend, looks, save, style

if TYPE_CHECKING:
    from matplotlib.artist import Artist

BINS = 10
"""Equal-width bins of confidence, as in the metric `ece`."""
MOST = 6
"""Panels."""
FEWEST = 10
"""Answers in a bin that is drawn: of fewer, a share says nothing."""


def reliability(collection: Collection, folder: Path, venue: Venue = PLAIN) -> Drawn:
    """One panel for each facet and sparsity, one line for each condition; discs say how many answers a bin holds.

    Confidence is the largest probability of the softmax over the scores of the choices. Bins of all seeds are joined.
    Those of fewer than `FEWEST` answers are in the csv alone.

    Raises:
        AnalysisError: There are more panels than can be shown, predictions are missing, or no bin has enough answers.
    """
    found = points(collection, x="target")
    by = [*found.facets, *found.lines, "sparsity"]
    tables = [
        with_condition(_binned([collection.runs[run] for run in group.drop_duplicates("work")["run"]]), by, key)
        for key, group in found.table.groupby(by, dropna=False)
    ]
    data = pandas.concat(tables, ignore_index=True)[[*by, "bin", "confidence", "accuracy", "answers", "share"]]
    if (data["answers"] < FEWEST).all():
        raise AnalysisError(f"no bin of confidence holds {FEWEST} answers: ask more questions.")
    shown = [*found.facets, "sparsity"]
    panels = conditions(data, shown)
    if len(panels) > MOST:
        keep = sorted({float(str(panel[-1])) for panel in panels})
        per = max(1, MOST // len(conditions(data, found.facets)))
        kept = {keep[round(place)] for place in np.linspace(0, len(keep) - 1, min(per, len(keep)))}
        panels = [panel for panel in panels if panel[-1] in kept]
    if len(panels) > MOST:
        raise AnalysisError(
            f"{len(panels)} panels do not fit a page. Draw fewer runs, for instance --where criterion=l2."
        )
    facets, sparsities = conditions(data, found.facets), {panel[-1] for panel in panels}
    if len(facets) > len(sparsities):
        panels.sort(key=lambda panel: (float(str(panel[-1])), facets.index(panel[:-1])))
    appearance = looks(found.lines, conditions(data, found.lines))
    with style(venue):
        layout = grid(venue, len(panels), most=min(3, max(len(facets), len(sparsities))), height=2.1)
        handles: dict[str, Artist] = {}
        for axes, panel in zip(layout.axes, panels, strict=True):
            handles["as sure as right"] = axes.plot([0, 100], [0, 100], color="black", linewidth=0.7, dashes=(4, 3))[0]
            for line, (colour, marker, dashes) in appearance.items():
                chosen = select(select(data, shown, panel), found.lines, line).sort_values("bin")
                chosen = chosen[chosen["answers"] >= FEWEST]
                if chosen.empty:
                    continue
                x, y = 100 * chosen["confidence"], 100 * chosen["accuracy"]
                discs = 3 + 200 * chosen["share"]
                axes.scatter(x, y, s=discs, color=colour, alpha=0.45, linewidth=0, zorder=3, clip_on=False)
                (handles[names.label(found.lines, line)],) = axes.plot(
                    x,
                    y,
                    color=colour,
                    marker=marker,
                    markersize=2,
                    linestyle=dashes,
                    linewidth=0.9,
                    zorder=4,
                    clip_on=False,
                )
            removed = f"{names.spaced(float(str(panel[-1])))} removed"
            layout.title(axes, ", ".join(filter(None, [names.title(found.facets, panel[:-1]), removed])))
            axes.set_xlim(0, 100)
            axes.set_ylim(0, 102)
        layout.figure.supxlabel("Confidence (%)")
        for axes in layout.leftmost:
            axes.set_ylabel("Accuracy (%)")
        legend(layout.figure, handles, names.heading(found.lines[0]))
        seeds = names.span(found.table.groupby(by)["seed"].nunique())
        caption = (
            f"Accuracy against confidence (the largest probability over the choices) in {BINS} bins of equal width, "
            f"{names.span(found.table['n'])} test questions, answers of {seeds} seeds "
            "joined. Discs: the share of answers in the bin. Below the dashed line a model is surer than right."
        )
        if (data["answers"] < FEWEST).any():
            caption += f" Bins of fewer than {FEWEST} answers are not drawn."
        gaps = list(found.gaps)
        if left := sorted({float(str(panel[-1])) for panel in conditions(data, shown)} - set(sparsities)):
            told = ", ".join(map(names.spaced, left))
            gaps.append(f"panels of {told} removed are not drawn, to fit a page; their numbers are in reliability.csv")
        return save(layout.figure, folder, "reliability", {"": data}, caption, gaps)


def confidences(run: Run) -> pandas.DataFrame:
    """`confidence` and `right` of each test question."""
    asked = run.predictions()
    largest = [float(1 / np.exp(np.asarray(scores) - max(scores)).sum()) for scores in asked["scores"]]
    return pandas.DataFrame({"confidence": largest, "right": (asked["predicted"] == asked["gold"]).to_numpy()})


def _binned(runs: list[Run]) -> pandas.DataFrame:
    """Bins (low, high] as in the metric."""
    answers = pandas.concat([confidences(run) for run in runs], ignore_index=True)
    place = np.clip(np.ceil(answers["confidence"].to_numpy() * BINS).astype(int) - 1, 0, BINS - 1)
    bins = answers.assign(bin=place).groupby("bin")
    binned = bins.agg(confidence=("confidence", "mean"), accuracy=("right", "mean"), answers=("right", "size"))
    return binned.assign(share=binned["answers"] / len(answers)).reset_index()
