"""The numbers of the interactive charts: every metric against every axis, and training curves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
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

COSTS = ("parameters", "bytes", "macs_per_token", "milliseconds_per_token", "milliseconds_per_new_token")
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
    counted = [set(collection.run_table[column]) for column in ("structure", "budget")]
    known = [each for each in _measured(collection) if each.name != name]
    costs = [each for each in COSTS if name == "target" and any(each == one.name for one in known)]
    axes = [axis(each, *counted) for each in ((*SPARSITIES, *costs) if name == "target" else (name,))]
    at = {each.name: [_at(run, each) for run in collection.runs] for each in axes}
    dense = {
        each: [measured(run, run.dense_evaluation, KNOWN[each]) for run in collection.runs]
        for each in costs
        if each not in CLOCKED
    }
    axes = [each for each in axes if any(value is not None for value in at[each.name])]
    blocks = {}
    for each in known:
        try:
            found = points(collection, each, name)
        except AnalysisError:
            continue
        blocks[each.name] = _block(collection, found, at, dense)
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
            }
            for each in axes
        ],
        "metrics": blocks,
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


def _block(
    collection: Collection,
    found: Points,
    at: Mapping[str, Sequence[float | None]],
    dense: Mapping[str, Sequence[float | None]],
) -> dict[str, Any]:
    """One metric: its runs, the mean and interval of each condition, and what each panel has beside them.

    Args:
        collection: The runs.
        found: The metric of each run.
        at: Axis -> the place of each run on it.
        dense: Axis of costs that compare -> the place of each run's dense model.
    """
    known, table = found.metric, found.table
    columns, others = [*found.facets, *found.lines], found.lines[1:]
    places = {f"at {name}": [values[run] for run in table["run"]] for name, values in at.items()}
    summary = summarise(
        replace(found, table=table.assign(**places).astype(dict.fromkeys(places, float))), also=[*places]
    )
    keys, panels, settings = (conditions(table, each) for each in (columns, found.facets, others))
    chances, gaps = curve.guessed(collection, found, panels)
    told = _titled(found.facets, panels)
    first = len(found.facets)
    return {
        "label": known.label,
        "axis": known.axis + " — by the clock of each machine" * (known.name in CLOCKED),
        "unit": "%" if known.share else known.unit,
        "scale": known.scale,
        "share": known.share,
        "asked": known.asked,
        "clocked": known.name in CLOCKED,
        "facets": [[column, names.COLUMNS.get(column, column)] for column in found.facets],
        "lines": [[column, names.heading(column)] for column in found.lines],
        "conditions": [[names.value(*each) for each in zip(columns, key, strict=True)] for key in keys],
        "labels": [names.label(found.lines, key[first:]) for key in keys],
        "panel": [panels.index(key[:first]) for key in keys],
        "setting": [settings.index(key[first + 1 :]) for key in keys],
        "panels": [
            {
                "title": names.title(
                    told, [value for column, value in zip(found.facets, panel, strict=True) if column in told]
                ),
                "chance": chances.get(panel),
                **_dense(select(table, found.facets, panel), dense),
            }
            for panel in panels
        ],
        "fronts": {cost: front for cost in dense if (front := _front(collection, cost, found)) is not None},
        "runs": {
            "run": table["run"].tolist(),
            "condition": _numbers(table, columns, keys),
            "value": _rounded(table["value"]),
        },
        "means": {
            "condition": _numbers(summary, columns, keys),
            "mean": _rounded(summary["mean"]),
            "low": _rounded(summary["low"]),
            "high": _rounded(summary["high"]),
            "over": summary["over"].tolist(),
            "seeds": summary["seeds"].tolist(),
            "x": {name: _rounded(summary[f"at {name}"]) for name in at},
        },
        "gaps": few([*found.gaps, *gaps]),
    }


def _numbers(table: pandas.DataFrame, columns: Sequence[str], keys: Sequence[tuple[object, ...]]) -> list[int]:
    """The number of the condition of each line."""
    places = {key: number for number, key in enumerate(keys)}
    lines = table[list(columns)].itertuples(index=False, name=None)
    return [places[tuple(None if names.is_gap(value) else value for value in line)] for line in lines]


def _titled(facets: Sequence[str], panels: Sequence[tuple[object, ...]]) -> list[str]:
    """Columns that the title of a panel needs: not those that follow from its model and task."""
    whole = pandas.DataFrame(panels, columns=list(facets), dtype=object)
    known = [column for column in ("model", "task") if column in facets]
    return [
        column
        for column in facets
        if column in ("criterion", *known)
        or not known
        or whole.groupby(known, dropna=False)[column].nunique(dropna=False).gt(1).any()
    ]


def _dense(table: pandas.DataFrame, dense: Mapping[str, Sequence[float | None]]) -> dict[str, Any]:
    """The dense models of a panel: their values, and with each cost the pairs of both."""
    table = table.dropna(subset="dense")
    pairs = {
        cost: {
            (values[run], value)
            for run, value in zip(table["run"], table["dense"], strict=True)
            if values[run] is not None
        }
        for cost, values in dense.items()
    }
    return {
        "dense": _rounded(sorted(set(table["dense"]))),
        "stars": {cost: [_rounded(pair) for pair in sorted(each)] for cost, each in pairs.items()},
    }


def _front(collection: Collection, cost: str, found: Points) -> dict[str, Any] | None:
    """The runs of each panel that no other of it beats in cost and metric, and the questions that choose them.

    None where better has no meaning: of what is counted rather than asked, of a clock, of an unknown metric.
    """
    known = found.metric
    if known.name not in KNOWN or known.name in CLOCKED or not (known.asked and known.judged):
        return None
    try:
        table, chooses, _ = pareto.points(collection, metric(cost), known, within=found.facets)
    except AnalysisError:
        return None
    best = set(table[table["front"]]["run_id"])
    return {
        "split": chooses,
        "rows": [row for row, run in enumerate(found.table["run"]) if collection.runs[run].record.run_id in best],
    }


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
