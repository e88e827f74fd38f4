r"""Every number that a text would quote, as LaTeX macros: `\regraft{quickstart/accuracy/l2/kl/90}` prints `84.0`.

A key is the sweep, what is told, the condition and, in percent or as a number, the point of the x-axis. `/low` and
`/high` behind it are the ends of its 95 % interval, `/half` is half its width. A key that does not exist stops LaTeX
with a message, so a text cannot quote what the records do not say.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas

from analysis import names
from analysis.collect import AnalysisError, Collection
from analysis.comparison import LOSSES, Comparison, compare
from analysis.curves import Points, main_axis, points, summarise
from analysis.landmarks import KEPT, landmarks
from analysis.metrics import Metric, metric
from analysis.tables import latex

METRICS = ("accuracy", "nll", "ece", "dense_agreement", "parameters", "bytes", "macs_per_token")
"""Metrics that are told of every condition, where they were measured."""

MACRO = r"""% Written by `python -m analysis values`. \regraft{KEY} prints a number; an unknown KEY stops LaTeX.
\providecommand{\regraft}[1]{\ifcsname regraft@#1\endcsname\csname regraft@#1\endcsname\else
  \PackageError{regraft}{No value `#1'}{Look for its name in values.csv.}\fi}
"""

Value = tuple[str, str]
"""Key and text."""


def values(collection: Collection) -> list[Value]:
    """All keys with their texts, in order."""
    sweep = "+".join(folder.name for folder in collection.folders)
    found = [*_counts(collection), *_metrics(collection), *_landmarks(collection), *_differences(collection)]
    return [(f"{sweep}/{key}", text) for key, text in found]


def write(found: Sequence[Value], folder: Path) -> tuple[Path, Path]:
    r"""`values.tex` for `\input` and `values.csv` to look keys up in."""
    folder.mkdir(parents=True, exist_ok=True)
    tex, csv = folder / "values.tex", folder / "values.csv"
    lines = [
        rf"\expandafter\def\csname regraft@{key}\endcsname{{{latex(text)}}}".replace("−", "-") for key, text in found
    ]
    tex.write_text(MACRO + "\n".join(lines) + "\n", encoding="utf-8")
    pandas.DataFrame(found, columns=["key", "value"]).to_csv(csv, index=False)
    return tex, csv


def _counts(collection: Collection) -> Iterator[Value]:
    table = collection.run_table
    yield "runs", f"{len(table):,}"
    yield "seeds", str(table["seed"].nunique())
    for run in collection.runs[:1]:
        row = run.row(run.last_evaluation)
        if row is not None and row.n:
            yield "questions", f"{row.n:,}"


def _metrics(collection: Collection) -> Iterator[Value]:
    for name in METRICS:
        known = metric(name)
        try:
            found = points(collection, known, main_axis(collection))
        except AnalysisError:
            continue
        for value in sorted(found.table["dense"].dropna().unique()):
            yield f"{name}/dense", _number(known, float(value))
            break
        for row in summarise(found).to_dict("records"):
            key = "/".join([name, *_condition(found, row), _point(found.axis.swept, row[found.axis.swept])])
            yield key, _number(known, row["mean"])
            if math.isfinite(row["low"]):
                yield f"{key}/low", _number(known, row["low"])
                yield f"{key}/high", _number(known, row["high"])
                yield f"{key}/half", _number(known, (row["high"] - row["low"]) / 2)


def _landmarks(collection: Collection) -> Iterator[Value]:
    try:
        found = points(collection, x="target")
        table = landmarks(found)
    except AnalysisError:
        return
    for row in table.to_dict("records"):
        condition = "/".join(_condition(found, row))
        told = {"area": "area", f"kept{100 * KEPT:g}": "kept"}
        for name, column in told.items():
            if column in row and math.isfinite(row[column]):
                yield f"{name}/{condition}", f"{100 * row[column]:.1f}"
                if math.isfinite(row[f"{column}_low"]):
                    yield f"{name}/{condition}/low", f"{100 * row[f'{column}_low']:.1f}"
                    yield f"{name}/{condition}/high", f"{100 * row[f'{column}_high']:.1f}"
        yield f"cliff/{condition}/from", _percent(row["cliff_from"])
        yield f"cliff/{condition}/to", _percent(row["cliff_to"])
        yield f"cliff/{condition}", f"{row['cliff']:.2f}"


def _differences(collection: Collection) -> Iterator[Value]:
    present = set(collection.run_table["loss"])
    for a, b in LOSSES:
        if a not in present or b not in present:
            continue
        for each in compare(collection, "loss", a, b)[0]:
            condition = [each.criterion, *each.about.removeprefix(", ").split(", "), _percent(each.sparsity), each.size]
            key = "/".join([f"difference/{a}-{b}", *(_plain(part) for part in condition if part)])
            yield key, names.signed(100 * each.difference)
            yield from _tested(key, each)


def _tested(key: str, each: Comparison) -> Iterator[Value]:
    if each.estimate is not None:
        yield f"{key}/low", f"{100 * each.estimate.low:.1f}"
        yield f"{key}/high", f"{100 * each.estimate.high:.1f}"
    if each.adjusted is not None:
        yield f"{key}/p", names.p_value(each.adjusted)
    yield f"{key}/verdict", each.verdict


def _condition(found: Points, row: Mapping[Hashable, Any]) -> list[str]:
    return [text for column in (*found.facets, *found.lines) if (text := _plain(str(row[column])))]


def _point(swept: str, value: float) -> str:
    return _percent(value) if swept == "sparsity" else f"{value:g}"


def _percent(share: float) -> str:
    return f"{round(100 * share, 4):g}"


def _plain(text: str) -> str:
    r"""Without what `\csname` cannot hold."""
    return "".join(character for character in text if character not in "\\{}%#~$^& ")


def _number(known: Metric, value: float) -> str:
    return known.told(value).removesuffix("%").removesuffix(known.unit).strip()
