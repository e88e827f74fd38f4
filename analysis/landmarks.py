"""Numbers that sum an accuracy-against-sparsity curve up: its area, how much can go, and where it falls off.

Each is computed for the curve of every seed, and averaged over seeds with a t interval. A seed that lacks a sparsity
has no whole curve; it is left out, and named.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas

from analysis import names
from analysis.collect import AnalysisError
from analysis.curves import Points, conditions, explained, select
from analysis.statistics import t_interval

KEPT = 0.95
"""Share of the dense model's accuracy that is to be kept, unless another is asked for."""


@dataclass(frozen=True, kw_only=True)
class Landmark:
    """A mean over seeds with its 95 % interval; the ends are nan where there is none."""

    mean: float
    low: float = math.nan
    high: float = math.nan

    @classmethod
    def of(cls, values: Sequence[float]) -> Landmark:
        if len(set(values)) < 2:
            return cls(mean=float(np.mean(values)))
        return cls(mean=float(np.mean(values)), **dict(zip(("low", "high"), t_interval(values), strict=True)))


def area(sparsities: Sequence[float], values: Sequence[float]) -> float:
    """Area under the curve by the trapezoid rule, over the width of the range: the mean accuracy over sparsity."""
    x = np.asarray(sparsities, dtype=float)
    return float(np.trapezoid(np.asarray(values, dtype=float), x) / (x[-1] - x[0]))


def crossing(sparsities: Sequence[float], values: Sequence[float], threshold: float) -> float:
    """The sparsity at which the curve, joined by straight lines, first falls below `threshold`.

    -inf if it is below from the start, inf if it never is.
    """
    if values[0] < threshold:
        return -math.inf
    for place in range(1, len(values)):
        if values[place] < threshold:
            share = (values[place - 1] - threshold) / (values[place - 1] - values[place])
            return float(sparsities[place - 1] + share * (sparsities[place] - sparsities[place - 1]))
    return math.inf


def falls(sparsities: Sequence[float], values: Sequence[float]) -> np.ndarray:
    """How much is lost between neighbouring sparsities, for each unit of sparsity."""
    return -np.diff(np.asarray(values, dtype=float)) / np.diff(np.asarray(sparsities, dtype=float))


def landmarks(found: Points, kept: float = KEPT) -> tuple[pandas.DataFrame, list[str]]:
    """One line for each condition of `found`, whose x-axis must be a sparsity.

    Args:
        found: The points.
        kept: Share of the dense model's value that is to be kept.

    Returns:
        A table with the columns of the conditions and those below; then a line for each condition of which no curve, or
        not that of every seed, is known.

        * `seeds`: number of different curves, `left_out`: number of seeds that lack a sparsity;
        * `area`, `area_low`, `area_high`: the mean of the metric over sparsity, between `from` and `to`;
        * `kept`, `kept_low`, `kept_high`: the sparsity at which the share `kept` of the dense model's value is left;
          inf if no seed fell below it, -inf if all began below, nan if only some do or the dense model was not
          measured; `kept_beyond` counts those that never fell, `kept_before` those that began below;
        * `cliff_from`, `cliff_to`: the two neighbouring sparsities between which the mean curve falls most steeply,
          `cliff`, `cliff_low`, `cliff_high`: how steeply, in points of the metric per point of sparsity, and
          `cliff_seeds`: the number of seeds whose own curve falls most steeply there.

    Raises:
        AnalysisError: The axis is none of sparsity, tasks are pooled, lower values of the metric are better, `kept` is
            no share, or no condition has a seed with two sparsities.
    """
    if found.axis.swept != "sparsity":
        raise AnalysisError(f"--x {found.axis.name}: landmarks are those of a curve against sparsity.")
    if found.pooled:
        raise AnalysisError(f"--pool {','.join(found.pooled)}: landmarks are those of the curves themselves.")
    if not found.metric.higher:
        raise AnalysisError(f"--y {found.metric.name}: landmarks are those of a curve that falls; take accuracy.")
    if not 0 < kept <= 1:
        raise AnalysisError(f"--kept {kept:g}: must be a share of the dense accuracy above 0, at most 1, such as 0.95.")
    by = [*found.facets, *found.lines]
    lines, gaps = [], []
    for key in conditions(found.table, by):
        group = select(found.table, by, key)
        condition = dict(zip(by, key, strict=True))
        name = explained(condition, by)
        sparsities = sorted(set(group["sparsity"]))
        if len(sparsities) < 2:
            gaps.append(f"{name}: run at one sparsity, so it has no curve to sum up")
            continue
        curves, lacking = _curves(group, len(sparsities))
        if lacking:
            seeds = len(lacking) + len(curves)
            gaps.append(f"{name}: {len(lacking)} of {seeds} seeds lack a sparsity, left out: {'; '.join(lacking)}")
        if not len(curves):
            continue
        lines.append(
            condition
            | {"seeds": len(curves), "left_out": len(lacking), "from": sparsities[0], "to": sparsities[-1]}
            | _told("area", Landmark.of([area(sparsities, curve) for curve in curves]))
            | _kept(sparsities, curves, kept * float(group["dense"].mean()))
            | _cliff(sparsities, curves)
        )
    if not lines:
        raise AnalysisError("\n".join([*gaps, "No seed of any condition was run at two sparsities or more."]))
    return pandas.DataFrame(lines), gaps


def _curves(group: pandas.DataFrame, points: int) -> tuple[np.ndarray, list[str]]:
    """(curves, sparsities) of the seeds that have all points, each model once, and the names of those that lack one."""
    found: dict[tuple[str, ...], pandas.Series[float]] = {}
    lacking = []
    for key, runs in group.groupby("seed", dropna=False):
        runs = runs.sort_values("sparsity")
        if len(runs) < points:
            lacking.append(f"seed {key}")
        else:
            found.setdefault(tuple(runs["work"]), runs["value"])
    return np.array([curve.to_numpy() for curve in found.values()]), lacking


def _kept(sparsities: Sequence[float], curves: np.ndarray, threshold: float) -> dict[str, float]:
    """`threshold` is nan where the dense model was not measured."""
    if math.isnan(threshold):
        return dict.fromkeys(("kept", "kept_low", "kept_high"), math.nan) | {"kept_beyond": 0, "kept_before": 0}
    found = [crossing(sparsities, curve, threshold) for curve in curves]
    beyond, before = found.count(math.inf), found.count(-math.inf)
    if beyond == len(found) or before == len(found):
        told = {"kept": found[0], "kept_low": math.nan, "kept_high": math.nan}
    elif beyond or before:
        told = {"kept": math.nan, "kept_low": math.nan, "kept_high": math.nan}
    else:
        told = _told("kept", Landmark.of(found))
    return told | {"kept_beyond": beyond, "kept_before": before}


def _cliff(sparsities: Sequence[float], curves: np.ndarray) -> dict[str, float]:
    steepness = np.stack([falls(sparsities, curve) for curve in curves])
    place = int(steepness.mean(axis=0).argmax())
    return {
        "cliff_from": sparsities[place],
        "cliff_to": sparsities[place + 1],
        **_told("cliff", Landmark.of(list(steepness[:, place]))),
        "cliff_seeds": int((steepness.argmax(axis=1) == place).sum()),
    }


def _told(name: str, landmark: Landmark) -> dict[str, float]:
    return {name: landmark.mean, f"{name}_low": landmark.low, f"{name}_high": landmark.high}


def told(found: Points, kept: float = KEPT) -> list[str]:
    """`landmarks` as aligned columns for people."""
    table, gaps = landmarks(found, kept)
    by = [*found.facets, *found.lines]
    ranges = [" to ".join(names.spaced(row[end]) for end in ("from", "to")) for row in table.to_dict("records")]
    alike = len(set(ranges)) == 1
    header = [
        *(names.COLUMNS.get(column, column) for column in by),
        *(() if alike else ("range",)),
        "area",
        f"{100 * kept:g} % kept at",
        "cliff",
        "falls",
    ]
    body = [
        [
            *(names.value(column, row[column]) for column in by),
            *(() if alike else (swept,)),
            _spread(row, "area", found.metric.scale),
            _kept_told(row),
            " to ".join(names.spaced(row[f"cliff_{end}"]) for end in ("from", "to"))
            + f" ({row['cliff_seeds']} of {row['seeds']})",
            _spread(row, "cliff", 1.0),
        ]
        for swept, row in zip(ranges, table.to_dict("records"), strict=True)
    ]
    over = f"sparsities from {ranges[0]}" if alike else "the range of sparsities, which is not the same for all lines"
    return [
        *names.aligned(header, body, len(by)),
        "",
        f"area: mean of the {found.metric.axis.lower()} over {over}. kept at: the requested sparsity (%) at which "
        f"{100 * kept:g} % of the dense model's is left.",
        "cliff: where the mean curve falls most steeply (seeds that agree); falls: in points per point of sparsity. "
        "± and brackets: 95 % over seeds (t).",
        *gaps,
    ]


def _spread(row: Mapping[Hashable, Any], name: str, scale: float) -> str:
    digits = 1 if scale == 100 else 2
    text = f"{scale * row[name]:.{digits}f}"
    if math.isnan(row[f"{name}_low"]):
        return text
    return f"{text} ± {scale * (row[f'{name}_high'] - row[f'{name}_low']) / 2:.{digits}f}"


def _kept_told(row: Mapping[Hashable, Any]) -> str:
    if math.isnan(row["kept"]):
        if not row["kept_beyond"] and not row["kept_before"]:
            return "dense not measured"
        beyond = f"{row['kept_beyond']:g} of {row['seeds']} never fall below" if row["kept_beyond"] else ""
        before = f"{row['kept_before']:g} of {row['seeds']} begin below" if row["kept_before"] else ""
        return ", ".join(filter(None, [beyond, before]))
    if math.isinf(row["kept"]):
        return f"> {100 * row['to']:g}" if row["kept"] > 0 else f"< {100 * row['from']:g}"
    text = f"{100 * row['kept']:.1f}"
    if math.isnan(row["kept_low"]):
        return text
    return f"{text} [{100 * row['kept_low']:.1f}, {100 * row['kept_high']:.1f}]"
