"""The compact table: accuracy by criterion, loss and sparsity."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas

from analysis import names
from analysis.collect import Collection
from analysis.curves import FACETS, LINES, points, summarise, varying

MARK = "*"


def accuracy(collection: Collection, markdown: bool = False) -> str:
    """Mean accuracy on test questions in % with the half-width of its 95 % interval.

    Args:
        collection: The runs.
        markdown: Whether to write a Markdown table instead of aligned columns.

    Raises:
        AnalysisError: No run has an accuracy.
    """
    table, gaps = points(collection)
    facets, lines = varying(table, FACETS), varying(table, LINES)
    summary = summarise(table, [*facets, *lines])
    most = int(summary["seeds"].max())
    sparsities = sorted(summary["sparsity"].unique())
    header = [*(names.COLUMNS.get(column, column) for column in (*facets, *lines)), *map(names.spaced, sparsities)]
    body = []
    for facet, panel in summary.groupby(facets, sort=True, dropna=False):
        for line in order(panel, lines):
            chosen = panel[(panel[lines] == list(line)).all(axis=1)]
            cells = {row["sparsity"]: _cell(row, most) for row in chosen.to_dict("records")}
            keys = zip((*facets, *lines), (*facet, *line), strict=True)
            body.append([*(names.value(*key) for key in keys), *(cells.get(sparsity, "") for sparsity in sparsities)])
    for about, value in dense(table):
        body.append(
            [f"dense{about}", *[""] * (len(facets) + len(lines) - 1), *[f"{100 * value:.1f}"] * len(sparsities)]
        )
    return "\n".join(
        [
            f"Accuracy on test questions (%), mean ± half-width of the 95 % interval, by {sparsity_name(table)}",
            "",
            *(_markdown(header, body) if markdown else _aligned(header, body, len(facets) + len(lines))),
            "",
            *_notes(summary, most),
            *gaps,
        ]
    )


def sparsity_name(table: pandas.DataFrame) -> str:
    """What the requested sparsity is a share of."""
    return f"requested share of {names.units(set(table['structure']))} removed"


def order(panel: pandas.DataFrame, lines: list[str]) -> list[tuple[object, ...]]:
    """The lines of a panel, losses in the order of `names.LOSSES`, then by name."""
    known = list(names.LOSSES)
    found = set(panel[lines].itertuples(index=False, name=None))
    return sorted(
        found, key=lambda line: (known.index(line[0]) if line[0] in known else len(known), *map(names.rank, line))
    )


def dense(table: pandas.DataFrame) -> list[tuple[str, float]]:
    """Accuracy before pruning of each dense model, with what tells it from the others."""
    columns = [column for column in ("model", "task", "preparation") if table[column].nunique() > 1]
    measured = table.dropna(subset="dense").drop_duplicates([*columns, "dense"])
    return [
        (" " + " ".join(str(row[column]) for column in columns) if columns else "", float(row["dense"]))
        for row in measured.to_dict("records")
    ]


def _cell(row: Mapping[Hashable, Any], most: int) -> str:
    mean, low, high = (100 * row[key] for key in ("mean", "low", "high"))
    text = f"{mean:.1f} ± {(high - low) / 2:.1f}"
    if row["over"] == "questions":
        text += MARK
    return text if row["seeds"] == most else f"{text} (seeds: {row['seeds']})"


def _notes(summary: pandas.DataFrame, most: int) -> list[str]:
    number = summary["questions"]
    questions = f"{number.min():,}" if number.nunique() == 1 else f"{number.min():,} to {number.max():,}"
    notes = [f"{most} seed{'s' * (most > 1)} unless a cell says otherwise, {questions} questions."]
    over = set(summary["over"])
    if "seeds" in over:
        notes.append("±: interval of the mean over seeds (t quantiles), for these questions.")
    if "questions" in over:
        why = "one seed, or seeds that all came to the same accuracy"
        notes.append(f"{MARK}: interval over the questions (Wilson), since there is no spread over seeds: {why}.")
    return notes


def _aligned(header: list[str], body: list[list[str]], left: int) -> list[str]:
    widths = [max(len(line[column]) for line in (header, *body)) for column in range(len(header))]

    def written(line: list[str]) -> str:
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return [written(header), "  ".join("-" * width for width in widths), *map(written, body)]


def _markdown(header: list[str], body: list[list[str]]) -> list[str]:
    def written(line: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"

    return [written(header), "|" + " --- |" * len(header), *map(written, body)]
