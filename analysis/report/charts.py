"""The numbers of the interactive charts: every metric against every axis, and training curves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas

from analysis import names
from analysis.collect import AnalysisError, Collection, Run
from analysis.curves import (
    NUMBERS,
    SPARSITIES,
    Axis,
    Points,
    axis,
    conditions,
    main_axis,
    measured,
    points,
    select,
    summarise,
)
from analysis.figures import curve, pareto
from analysis.figures.style import COLOURS, CYCLE, looks
from analysis.figures.training import trained
from analysis.metrics import CLOCKED, KNOWN, Metric, metric
from analysis.report.accounts import few
from regraft.records import TRAINING

COSTS = ("parameters", "bytes", "macs_per_token", "milliseconds_per_token")
"""Metrics that are axes too, since less of them is what pruning is for."""
STEPS = 120
"""Points of a training curve of which there are few; longer trainings are averaged over neighbouring steps."""
STEPS_ALTOGETHER = 60_000
"""Points of all curves of the page: with many runs each has fewer."""
FEWEST_STEPS = 12
SERIES = ("loss", "lr", "grad_norm")
"""What is told of a training."""
SYMBOLS = {
    "x": "x",
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "v": "triangle-down",
    "D": "diamond",
    "P": "cross",
    "*": "star",
    "h": "hexagon",
}
"""Marker of the figures -> symbol of the charts."""


def views(collection: Collection) -> list[dict[str, Any]]:
    """One view for each thing whose values make the points of a line; the main one first."""
    table = collection.run_table
    found = ["target", *(column for column in NUMBERS if table[column].dropna().nunique() > 1)]
    main = main_axis(collection)
    if main != "target" and table["sparsity"].nunique() == 1:
        found.remove("target")
    found.sort(key=lambda name: name != main)
    return [view for name in found if (view := _view(collection, name))]


def _view(collection: Collection, name: str) -> dict[str, Any] | None:
    structures = set(collection.run_table["structure"])
    known = [each for each in _measured(collection) if each.name != name]
    costs = [each for each in COSTS if any(each == one.name for one in known)]
    axes = [axis(each, structures) for each in ((*SPARSITIES, *costs) if name == "target" else (name,))]
    at = {each.name: [_at(run, each) for run in collection.runs] for each in axes}
    axes = [each for each in axes if any(value is not None for value in at[each.name])]
    blocks = {}
    for each in known:
        try:
            found = points(collection, each, name)
        except AnalysisError:
            continue
        blocks[each.name] = _block(collection, found, at)
    if not blocks:
        return None
    return {
        "swept": name,
        "axes": [
            {
                "name": each.name,
                "label": each.label + " — by the clock of each machine" * (each.name in CLOCKED),
                "scale": each.scale,
                "logarithmic": each.logarithmic,
                "reversed": each.name == "retention",
                "cost": each.name in costs,
                "clocked": each.name in CLOCKED,
                "values": _rounded(at[each.name]),
                "dense": _dense(collection, each),
            }
            for each in axes
        ],
        "metrics": blocks,
        "fronts": _fronts(collection, costs, known),
        "colours": _colours(blocks.values()),
    }


def _measured(collection: Collection) -> Iterator[Metric]:
    """Every metric of a last evaluation on test questions, known ones first, in their order."""
    there = {
        row.metric
        for run in collection.runs
        for row in run.record.rows
        if run.last_evaluation is not None
        and row.stage_index == run.last_evaluation.index
        and row.split in ("test", "")
        and row.value is not None
    }
    yield from (each for each in KNOWN.values() if (each.inverse_of or each.name) in there)
    # of a metric that is not known here it is not known what is better; nothing in these charts says so
    yield from (metric(name, "higher") for name in sorted(there - set(KNOWN)))


def _at(run: Run, where: Axis) -> float | None:
    row = run.row(run.last_evaluation) or next((row for row in run.record.rows if row.stage == "evaluate"), None)
    return None if row is None else where.value(run, row)


def _dense(collection: Collection, where: Axis) -> list[float]:
    """Where the dense models stand on an axis of costs."""
    if where.name not in COSTS or where.name in CLOCKED:
        return []
    found = {measured(run, run.dense_evaluation, KNOWN[where.name]) for run in collection.runs}
    return sorted(value for value in found if value is not None)


def _block(collection: Collection, found: Points, at: Mapping[str, Sequence[float | None]]) -> dict[str, Any]:
    """One metric: its runs, the mean and interval of each condition, dense and chance."""
    known, columns = found.metric, [*found.facets, *found.lines]
    summary, table = summarise(found), found.table
    keys = conditions(table, columns)
    places = {key: number for number, key in enumerate(keys)}
    panels = conditions(table, found.facets)
    chances, gaps = curve.guessed(collection, found, panels)

    def placed(frame: pandas.DataFrame, by: Sequence[str], where: Mapping[tuple[object, ...], int]) -> list[int]:
        lines = frame[list(by)].itertuples(index=False, name=None) if by else [()] * len(frame)
        return [where[tuple(None if names.is_gap(value) else value for value in line)] for line in lines]

    owners = placed(table, columns, places)
    # the place of a mean is the mean place of its runs, as `summarise` has it for the axis of the points
    by = [*columns, found.axis.swept]
    x = table[by].assign(**{f"at {name}": [values[run] for run in table["run"]] for name, values in at.items()})
    x = x.astype({f"at {name}": float for name in at}).groupby(by, sort=True, dropna=False, as_index=False).mean()
    return {
        "label": known.label,
        "axis": known.axis + " — by the clock of each machine" * (known.name in CLOCKED),
        "unit": "%" if known.share else known.unit,
        "scale": known.scale,
        "share": known.share,
        "clocked": known.name in CLOCKED,
        "facets": [[column, names.COLUMNS.get(column, column)] for column in found.facets],
        "lines": [[column, names.heading(column)] for column in found.lines],
        "conditions": [[names.value(*each) for each in zip(columns, key, strict=True)] for key in keys],
        "runs": {"run": table["run"].tolist(), "condition": owners, "value": _rounded(table["value"])},
        "means": {
            "condition": placed(summary, columns, places),
            "mean": _rounded(summary["mean"]),
            "low": _rounded(summary["low"]),
            "high": _rounded(summary["high"]),
            "over": summary["over"].tolist(),
            "seeds": summary["seeds"].tolist(),
            "x": {name: _rounded(x[f"at {name}"]) for name in at},
        },
        "dense": _by_panel(found, panels),
        "chance": [
            [[names.value(*each) for each in zip(found.facets, panel, strict=True)], value]
            for panel, value in chances.items()
        ],
        "gaps": few([*found.gaps, *gaps]),
    }


def _by_panel(found: Points, panels: Sequence[tuple[object, ...]]) -> list[list[Any]]:
    """The dense values of each panel."""
    return [
        [
            [names.value(*each) for each in zip(found.facets, panel, strict=True)],
            _rounded(sorted(set(select(found.table, found.facets, panel)["dense"].dropna()))),
        ]
        for panel in panels
    ]


def _fronts(collection: Collection, costs: Sequence[str], known: Sequence[Metric]) -> dict[str, dict[str, Any]]:
    """Cost -> metric -> the runs that no other beats in both, and the questions that choose them."""
    number = {run.record.run_id: place for place, run in enumerate(collection.runs)}
    found: dict[str, dict[str, Any]] = {}
    for cost in costs:
        found[cost] = {}
        for each in known:
            if each.name not in KNOWN or each.name in COSTS:
                continue
            try:
                table, chooses, _ = pareto.points(collection, metric(cost), each)
            except AnalysisError:
                continue
            best = table[table["front"]]["run_id"]
            found[cost][each.name] = {"runs": [number[run] for run in best], "split": chooses}
    return found


def _colours(blocks: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """What the first column of lines is called -> colour and symbol, those of the figures."""
    texts: dict[str, dict[str, None]] = {}
    for block in blocks:
        place = len(block["facets"])
        column = block["lines"][0][0]
        texts.setdefault(column, {}).update(dict.fromkeys(condition[place] for condition in block["conditions"]))
    found = {}
    for column, values in texts.items():
        own = {names.value(column, value): value for value in COLOURS.get(column, {})}
        lines = [(own.get(text, text),) for text in values]
        try:
            appearance = looks([column], lines)
        except AnalysisError:  # more than can be told apart: colours come round again
            appearance = {line: (*CYCLE[place % len(CYCLE)], "-") for place, line in enumerate(lines)}
        for text, line in zip(values, lines, strict=True):
            colour, marker, _ = appearance[line]
            found[text] = [colour, SYMBOLS[marker]]
    return found


def training(collection: Collection) -> dict[str, Any]:
    """The curves of each run that was trained; equal lists of numbers are kept once."""
    trained_runs = [place for place, run in enumerate(collection.runs) if (run.folder / TRAINING).exists()]
    most = max(FEWEST_STEPS, min(STEPS, STEPS_ALTOGETHER // max(1, len(trained_runs))))
    lists: dict[tuple[float | None, ...], int] = {}
    gaps, lines = [], []
    averaged = 1
    for place in trained_runs:
        try:
            table = trained(collection.runs[place])
        except AnalysisError as error:
            gaps.append(str(error))
            continue
        width = -(-len(table) // most)
        averaged = max(averaged, width)
        blocks = table.sort_values("total").groupby(np.arange(len(table)) // width)[["total", *SERIES]].mean()
        lines.append(
            [
                place,
                *(lists.setdefault(tuple(_rounded(blocks[name], 4)), len(lists)) for name in ("total", *SERIES)),
            ]
        )
    return {
        "series": list(SERIES),
        "lists": [list(each) for each in lists],
        "lines": lines,
        "averaged": averaged,
        "gaps": few(gaps),
    }


def _rounded(values: Sequence[float | None] | pandas.Series[float], digits: int = 6) -> list[float | None]:
    """Numbers with few digits; what is none is None. Whole numbers stay exact."""
    told: list[float | None] = []
    for value in values:
        if value is None or not np.isfinite(value):
            told.append(None)
        elif float(value).is_integer():
            told.append(int(value))
        else:
            told.append(float(f"{value:.{digits}g}"))
    return told
