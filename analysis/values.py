r"""Every number that a text would quote, as LaTeX macros: `\regraft{quickstart/accuracy/l2/kl/90}` prints `84.0`.

A key is the sweep, what is told, the condition and, in percent or as a number, the point of the x-axis. `/low` and
`/high` behind it are the ends of its 95 % interval, `/half` is half the width of one over seeds. A key that does not
exist stops LaTeX with a message, so a text cannot quote what the records do not say. What LaTeX cannot have in a key is
a hyphen in it. Each pair of losses is a family of its own for Holm.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas

from analysis import names
from analysis.collect import AnalysisError, Collection
from analysis.comparison import Comparison, compare, loss_pairs
from analysis.curves import Points, main_axis, points, summarise
from analysis.landmarks import KEPT, landmarks
from analysis.metrics import metric
from analysis.tables import dense, latex

METRICS = ("accuracy", "nll", "ece", "dense_agreement", "parameters", "bytes", "macs_per_token")
"""Metrics that are told of every condition, where they were measured."""

MACRO = r"""% Written by `python -m analysis values`. \regraft{KEY} prints a number; an unknown KEY stops LaTeX.
\providecommand{\regraft}[1]{\ifcsname regraft@#1\endcsname\csname regraft@#1\endcsname\else
  \PackageError{regraft}{No value `#1'}{Look for its name in values.csv.}\fi}
"""

Value = tuple[str, str]
"""Key and text."""


def values(collection: Collection) -> tuple[list[Value], list[str]]:
    """All keys with their texts, in order, and a line for each thing that is not told, with the reason.

    Raises:
        AnalysisError: Two values would have the same key.
    """
    sweep = _plain("+".join(folder.resolve().name for folder in collection.folders))
    gaps: list[str] = []
    parts = (_counts(collection), _metrics(collection, gaps), _landmarks(collection, gaps))
    found = [value for part in (*parts, _differences(collection, gaps)) for value in part]
    twice = [key for key, times in Counter(key for key, _ in found).items() if times > 1]
    if twice:
        raise AnalysisError(
            f"{twice[0]}: two values would have this key, since names of conditions differ only in what a key cannot "
            "hold. Tell of one of them at a time with --where."
        )
    return [(f"{sweep}/{key}", text) for key, text in found], list(dict.fromkeys(gaps))


def write(found: Sequence[Value], folder: Path) -> tuple[Path, Path]:
    r"""`values.tex` for `\input` and `values.csv` to look keys up in."""
    folder.mkdir(parents=True, exist_ok=True)
    tex, csv = folder / "values.tex", folder / "values.csv"
    lines = [rf"\expandafter\def\csname regraft@{key}\endcsname{{{latex(text)}}}%" for key, text in found]
    tex.write_text(MACRO + "\n".join(lines) + "\n", encoding="utf-8")
    pandas.DataFrame(found, columns=["key", "value"]).to_csv(csv, index=False)
    return tex, csv


def _counts(collection: Collection) -> Iterator[Value]:
    table = collection.run_table
    yield "runs", f"{len(table):,}"
    yield "seeds", str(table["seed"].nunique())
    rows = [run.row(run.last_evaluation) for run in collection.runs]
    asked = [row.n for row in rows if row is not None and row.n]
    if asked:
        yield "questions", names.span(asked)


def _metrics(collection: Collection, gaps: list[str]) -> Iterator[Value]:
    for name in METRICS:
        known = metric(name)
        try:
            found = points(collection, known, main_axis(collection))
        except AnalysisError as error:
            gaps.append(f"{name}: not told: {error}")
            continue
        gaps += found.gaps
        for about, value in dense(found.table):
            yield "/".join([name, "dense", *map(_plain, about)]), known.number(value)
        for row in summarise(found).to_dict("records"):
            key = "/".join([name, *_condition(found, row), _point(found.axis.swept, row[found.axis.swept])])
            yield key, known.number(row["mean"])
            if math.isfinite(row["low"]):
                yield f"{key}/low", known.number(row["low"])
                yield f"{key}/high", known.number(row["high"])
                if row["over"] == "seeds":
                    yield f"{key}/half", known.number((row["high"] - row["low"]) / 2)


def _landmarks(collection: Collection, gaps: list[str]) -> Iterator[Value]:
    try:
        found = points(collection, x="target")
        table, left_out = landmarks(found)
    except AnalysisError as error:
        gaps.append(f"area, kept and cliff: not told: {error}")
        return
    gaps += left_out
    for row in table.to_dict("records"):
        condition = "/".join(_condition(found, row))
        told = {"area": "area", f"kept{100 * KEPT:g}": "kept"}
        for name, column in told.items():
            if math.isfinite(row[column]):
                yield f"{name}/{condition}", f"{100 * row[column]:.1f}"
                if math.isfinite(row[f"{column}_low"]):
                    yield f"{name}/{condition}/low", f"{100 * row[f'{column}_low']:.1f}"
                    yield f"{name}/{condition}/high", f"{100 * row[f'{column}_high']:.1f}"
        yield f"cliff/{condition}/from", _percent(row["cliff_from"])
        yield f"cliff/{condition}/to", _percent(row["cliff_to"])
        yield f"cliff/{condition}", f"{row['cliff']:.2f}"


def _differences(collection: Collection, gaps: list[str]) -> Iterator[Value]:
    for a, b in loss_pairs(set(collection.run_table["loss"])):
        try:
            comparisons, alone = compare(collection, "loss", a, b)
        except AnalysisError as error:
            gaps.append(f"difference of {a} and {b}: not told: {error}")
            continue
        gaps += alone
        for each in comparisons:
            condition = [each.criterion, *each.about.removeprefix(", ").split(", "), _percent(each.sparsity), each.size]
            key = "/".join([f"difference/{a}-{b}", *(_plain(part) for part in condition if part)])
            yield key, names.signed(100 * each.difference)
            yield from _tested(key, each)


def _tested(key: str, each: Comparison) -> Iterator[Value]:
    if each.estimate is not None:
        yield f"{key}/low", names.signed(100 * each.estimate.low)
        yield f"{key}/high", names.signed(100 * each.estimate.high)
    if each.adjusted is not None:
        yield f"{key}/p", names.p_value(each.adjusted)
    yield f"{key}/verdict", each.verdict


def _condition(found: Points, row: Mapping[Hashable, Any]) -> list[str]:
    parts = ((column, row[column]) for column in (*found.facets, *found.lines))
    return [_plain(str(value)) for column, value in parts if names.value(column, value)]


def _point(swept: str, value: float) -> str:
    return _percent(value) if swept == "sparsity" else f"{value:.12g}"


def _percent(share: float) -> str:
    return f"{round(100 * share, 4):g}"


def _plain(text: str) -> str:
    r"""With a hyphen for what `\csname` cannot hold, or what cannot stand where a key is written."""
    return re.sub(r"[\\{}%#~$^&\s]", "-", text)
