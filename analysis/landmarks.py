"""Numbers that sum an accuracy-against-sparsity curve up: its area, how much can go, and where it falls off.

Each is computed for the curve of every seed, and averaged over seeds with a t interval. A seed that lacks a sparsity
has no whole curve and is left out.
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
from analysis.curves import REPLICATES, Points
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


def landmarks(found: Points, kept: float = KEPT) -> pandas.DataFrame:
    """One line for each condition of `found`, whose x-axis must be a sparsity.

    Returns:
        A table with the columns of the conditions and

        * `seeds`: number of different curves;
        * `area`, `area_low`, `area_high`: the mean of the metric over sparsity, between `from` and `to`;
        * `kept`, `kept_low`, `kept_high`: the sparsity at which the share `kept` of the dense model's value is left;
          inf if no seed fell below it, -inf if all began below. Where only some do, the mean is nan and
          `kept_beyond` counts those that never fell, `kept_before` those that began below;
        * `cliff_from`, `cliff_to`: the two neighbouring sparsities between which the mean curve falls most steeply,
          `cliff`, `cliff_low`, `cliff_high`: how steeply, in points of the metric per point of sparsity, and
          `cliff_seeds`: the number of seeds whose own curve falls most steeply there.

    Raises:
        AnalysisError: The axis is none of sparsity, or no condition has two sparsities.
    """
    if found.axis.swept != "sparsity":
        raise AnalysisError(f"--x {found.axis.name}: landmarks are those of a curve against sparsity.")
    by = [*found.facets, *found.lines]
    lines = []
    for key, group in found.table.groupby(by, dropna=False):
        sparsities = sorted(set(group["sparsity"]))
        if len(sparsities) < 2:
            continue
        wide = group.pivot_table(index=list(REPLICATES), columns="sparsity", values="value", dropna=False)
        curves = np.unique(wide.dropna(how="any").to_numpy(), axis=0)
        if not len(curves):
            continue
        condition = dict(zip(by, key, strict=True))
        dense = group["dense"].dropna()
        lines.append(
            condition
            | {"seeds": len(curves), "from": sparsities[0], "to": sparsities[-1]}
            | _told("area", Landmark.of([area(sparsities, curve) for curve in curves]))
            | (_kept(sparsities, curves, kept * float(dense.mean())) if len(dense) else {})
            | _cliff(sparsities, curves)
        )
    if not lines:
        raise AnalysisError("no condition was run at two sparsities, so there is no curve to sum up.")
    return pandas.DataFrame(lines)


def _kept(sparsities: Sequence[float], curves: np.ndarray, threshold: float) -> dict[str, float]:
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
    table = landmarks(found, kept)
    by = [*found.facets, *found.lines]
    header = [
        *(names.COLUMNS.get(column, column) for column in by),
        "area",
        f"{100 * kept:g} % kept at",
        "cliff",
        "falls",
    ]
    body = [
        [
            *(names.value(column, row[column]) for column in by),
            _spread(row, "area"),
            _kept_told(row),
            " to ".join(names.spaced(row[f"cliff_{end}"]) for end in ("from", "to"))
            + f" ({row['cliff_seeds']} of {row['seeds']})",
            _spread(row, "cliff", 1.0),
        ]
        for row in table.to_dict("records")
    ]
    ends = f"{names.spaced(table['from'].min())} and {names.spaced(table['to'].max())}"
    return [
        *names.aligned(header, body, len(by)),
        "",
        f"area: mean accuracy (%) between {ends} removed. kept at: the requested sparsity (%) at which {100 * kept:g} "
        "% of the dense accuracy is left.",
        "cliff: where the mean curve falls most steeply (seeds that agree); falls: in points per point of sparsity. "
        "± and brackets: 95 % over seeds (t).",
    ]


def _spread(row: Mapping[Hashable, Any], name: str, scale: float = 100.0) -> str:
    digits = 1 if scale == 100 else 2
    text = f"{scale * row[name]:.{digits}f}"
    if math.isnan(row[f"{name}_low"]):
        return text
    return f"{text} ± {scale * (row[f'{name}_high'] - row[f'{name}_low']) / 2:.{digits}f}"


def _kept_told(row: Mapping[Hashable, Any]) -> str:
    if "kept" not in row or (math.isnan(row["kept"]) and not row["kept_beyond"] and not row["kept_before"]):
        return "no dense accuracy"
    if math.isnan(row["kept"]):
        beyond = f"{row['kept_beyond']:g} of {row['seeds']} never fall below" if row["kept_beyond"] else ""
        before = f"{row['kept_before']:g} of {row['seeds']} begin below" if row["kept_before"] else ""
        return ", ".join(filter(None, [beyond, before]))
    if math.isinf(row["kept"]):
        return f"> {100 * row['to']:g}" if row["kept"] > 0 else f"< {100 * row['from']:g}"
    text = f"{100 * row['kept']:.1f}"
    if math.isnan(row["kept_low"]):
        return text
    return f"{text} [{100 * row['kept_low']:.1f}, {100 * row['kept_high']:.1f}]"
