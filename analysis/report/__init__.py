"""A self-contained page, `report.html`: what was asked and found, charts, runs, answers, what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis import tables
from analysis.collect import AnalysisError, Collection
from analysis.curves import main_axis, points
from analysis.figures import FIGURES
from analysis.figures.style import PLAIN, Drawn, Venue
from analysis.report import accounts, answers, charts, findings, page
from analysis.report.findings import Compared

REPORT = "report.html"


def verdicts(collection: Collection) -> list[list[str]]:
    """The verdicts, and what is not compared, of each pair in `findings.pairs`; each is its own family."""
    return [pair.lines for pair in findings.pairs(collection)]


def draw_all(collection: Collection, folder: Path, venue: Venue = PLAIN) -> tuple[dict[str, Drawn], dict[str, str]]:
    """Draw every figure that the records allow.

    Returns:
        Those that are drawn by name, and name -> reason of those that are not.
    """
    drawn: dict[str, Drawn] = {}
    left_out = {}
    for name, figure in FIGURES.items():
        try:
            drawn[name] = figure(collection, folder, venue)
        except AnalysisError as error:
            left_out[name] = str(error).splitlines()[-1]
    return drawn, left_out


def write(collection: Collection, folder: Path) -> tuple[Path, list[str]]:
    """Write `report.html`, and into `folder/figures` the figures that it shows.

    Returns:
        The page, and what a terminal shows of it: the table and the verdicts of the first pair.

    Raises:
        AnalysisError: No run has an accuracy.
    """
    table = tables.of(collection, points(collection, x=main_axis(collection)))
    pairs = findings.pairs(collection)
    drawn, left_out = draw_all(collection, folder / "figures")
    path = folder / REPORT
    path.write_text(page.written(content(collection, table, pairs, drawn, left_out)), encoding="utf-8")
    return path, [table.written("text"), "", *(pairs[0].lines if pairs else [])]


def content(
    collection: Collection,
    table: tables.Table,
    pairs: list[Compared],
    drawn: Mapping[str, Drawn],
    left_out: Mapping[str, str],
) -> dict[str, Any]:
    """All that the page shows, as plain data; runs are named by their place in the collection.

    Args:
        collection: The runs.
        table: The table of accuracies.
        pairs: What was compared.
        drawn: Figures by name.
        left_out: Figures that could not be drawn, with the reason.
    """
    columns = accounts.columns(collection)
    return {
        "title": " and ".join(dict.fromkeys(folder.resolve().name for folder in collection.folders)),
        "study": findings.study(collection, pairs),
        "pairs": [findings.plain(pair) for pair in pairs],
        "table": findings.table(table),
        "landmarks": findings.landmarks(collection),
        "tuning": findings.tuned(collection),
        "columns": columns,
        "charts": charts.views(collection),
        "training": charts.training(collection),
        "answers": answers.answers(collection),
        **accounts.accounts(collection, columns),
        "figures": page.figures(drawn),
        "not_drawn": [[name, reason] for name, reason in left_out.items()],
    }
