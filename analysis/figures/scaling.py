"""Accuracy and what is uncertain about it, against the number of recovery questions (the paper's second figure)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas
from scipy.special import chdtri

from analysis import names
from analysis.collect import AnalysisError, Collection
from analysis.crossed import estimate
from analysis.curves import Points, conditions, points, select
from analysis.figures import curve
from analysis.figures.style import PLAIN, Drawn, Venue, grid, legend, log_axis, looks, save, style, wrapped
from analysis.metrics import metric
from analysis.statistics import LEVEL, t_interval

if TYPE_CHECKING:
    from matplotlib.artist import Artist

X = "recovery_questions"


def accuracy(collection: Collection, folder: Path, venue: Venue = PLAIN) -> Drawn:
    """Accuracy against the number of recovery questions.

    Raises:
        AnalysisError: All runs had the same number.
    """
    return curve.draw(collection, _points(collection), folder, venue)


def uncertainty(collection: Collection, folder: Path, venue: Venue = PLAIN) -> Drawn:
    """Three readings of uncertainty against the number of recovery questions.

    * Width of the 95 % interval of the mean accuracy, over questions and seeds (over seeds alone if there are few).
    * Standard deviation of accuracy over seeds, each with a subset of recovery questions of its own if
      `task.subset: ${seed}`, with its 95 % interval (chi square).
    * Expected calibration error, mean over seeds with 95 % interval (t quantiles).

    Raises:
        AnalysisError: All runs had the same number of questions, or no condition has two seeds.
    """
    found = _points(collection)
    calibration = points(collection, metric("ece"), X)
    data = pandas.DataFrame(
        [
            dict(zip([*found.facets, *found.lines, X], key, strict=True)) | _readings(collection, group, calibration)
            for key, group in found.table.groupby([*found.facets, *found.lines, X], dropna=False)
            if group["work"].nunique() > 1
        ]
    )
    if data.empty:
        raise AnalysisError("no condition has two seeds that differ, so nothing is known of their spread.")
    panels = conditions(data, found.facets)
    appearance = looks(found.lines, conditions(data, found.lines))
    with style(venue):
        rows = len(panels)
        layout = grid(venue, len(READINGS) * rows, sharey=False)
        handles: dict[str, Artist] = {}
        for place, axes in enumerate(layout.axes):
            facet, reading = panels[place // len(READINGS)], READINGS[place % len(READINGS)]
            for line, look in appearance.items():
                chosen = select(select(data, found.facets, facet), found.lines, line).sort_values(X)
                if chosen.empty:
                    continue
                colour, marker, dashes = look
                y = reading.scale * chosen[reading.name]
                shift = 1.03 ** (list(appearance).index(line) - (len(appearance) - 1) / 2)
                if reading.bars:
                    ends = [reading.scale * chosen[f"{reading.name}_{end}"] for end in ("low", "high")]
                    axes.errorbar(
                        shift * chosen[X],
                        y,
                        yerr=[(y - ends[0]).clip(0), (ends[1] - y).clip(0)],
                        fmt="none",
                        ecolor=colour,
                        elinewidth=0.9,
                        capsize=1.8,
                    )
                (handles[names.label(found.lines, line)],) = axes.plot(
                    shift * chosen[X],
                    y,
                    color=colour,
                    marker=marker,
                    markersize=3.4,
                    linestyle=dashes,
                    linewidth=1.1,
                )
            log_axis(axes, set(data[X]))
            axes.set_ylim(bottom=0)
            axes.set_ylabel(wrapped(reading.label, venue))
            if rows > 1:
                layout.title(axes, names.title(found.facets, facet))
        layout.figure.supxlabel("Recovery questions")
        legend(layout.figure, handles, names.heading(found.lines[0]))
        gaps = list(dict.fromkeys([*found.gaps, *calibration.gaps]))
        return save(
            layout.figure,
            folder,
            "uncertainty_vs_recovery_questions",
            {"": data},
            _caption(found, data, collection.drawn_by_seed),
            gaps,
        )


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One way of telling uncertainty."""

    name: str
    label: str
    bars: bool
    scale: float = 100.0


READINGS = (
    Reading(name="width", label="Width of the 95 % interval (points)", bars=False),
    Reading(name="deviation", label="Standard deviation over seeds (points)", bars=True),
    Reading(name="ece", label="Expected calibration error (%)", bars=True),
)


def _points(collection: Collection) -> Points:
    found = points(collection, x=X)
    if found.table[X].nunique() < 2:
        raise AnalysisError("all runs had the same number of recovery questions. Run experiment=data_scaling.")
    return found


def _readings(collection: Collection, group: pandas.DataFrame, calibration: Points) -> dict[str, object]:
    distinct = group.drop_duplicates("work")
    runs = [collection.runs[run] for run in distinct["run"]]
    if any(not run.right.index.equals(runs[0].right.index) for run in runs):
        raise AnalysisError(
            f"{runs[0].folder} and other seeds of the same condition answered different test questions, so they have "
            "no interval in common. Analyse their sweeps separately."
        )
    right = np.stack([run.right.to_numpy(dtype=float) for run in runs], axis=1)
    over = estimate(right)
    values = list(distinct["value"])
    freedom = len(values) - 1
    deviation = float(np.std(values, ddof=1))
    upper = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    low, high = (deviation * math.sqrt(freedom / float(chdtri(freedom, share))) for share in upper)
    errors = calibration.table.set_index("run")["value"].reindex(distinct["run"])
    ece = t_interval(list(errors)) if errors.notna().all() and errors.nunique() > 1 else (math.nan, math.nan)
    return {
        "seeds": len(distinct),
        "questions": int(group["n"].max()),
        "width": over.high - over.low if over else math.nan,
        "width_over": over.over if over else "",
        "deviation": deviation,
        "deviation_low": low,
        "deviation_high": high,
        "ece": float(errors.mean()),
        "ece_low": ece[0],
        "ece_high": ece[1],
    }


def _caption(found: Points, data: pandas.DataFrame, drawn_by_seed: bool) -> str:
    over = " or ".join(sorted(set(data["width_over"]) - {""}))
    same = "All seeds had the same recovery questions in another order (task.subset is not set)."
    drew = curve.DRAWN if drawn_by_seed else same
    return (
        f"Uncertainty against the number of recovery questions{curve.at_one_sparsity(found)}; "
        f"{names.span(data['seeds'])} seeds, {names.span(data['questions'])} test questions. "
        f"Left: width of the 95 % interval of the mean accuracy, over {over}. Middle: standard deviation of accuracy "
        "over the seeds, with its 95 % interval (chi square). Right: expected calibration error, mean over seeds with "
        f"its 95 % interval (t quantiles). {drew} Conditions in which the seed changes nothing are left out."
    )
