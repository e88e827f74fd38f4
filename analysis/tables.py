"""The compact table: a metric by condition, one column for each point of the x-axis. As text, Markdown, LaTeX, HTML."""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas

from analysis import names
from analysis.collect import AnalysisError, Collection, Run
from analysis.comparison import differences, replicates
from analysis.crossed import estimate
from analysis.curves import Points, conditions, select, summarise
from analysis.metrics import ACCURACY, Metric
from analysis.statistics import LEVEL, holm

Format = Literal["text", "markdown", "latex", "html"]
MARK = "*"
BOLD = (
    "Bold, in formats that have it: significantly better than every other line of the panel (p < 0.05 after Holm over "
    "all pairs)."
)


@dataclass(frozen=True)
class Cell:
    text: str
    best: bool = False
    """Whether it is significantly better than all others of its column."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table before it is written."""

    title: str
    header: tuple[str, ...]
    body: tuple[tuple[Cell, ...], ...]
    left: int
    """Columns that say what a line is; the others hold numbers."""
    rules: frozenset[int] = frozenset()
    """Lines of the body before which a rule is drawn."""
    notes: tuple[str, ...] = ()

    def written(self, form: Format) -> str:
        """The whole table with title and notes."""
        return WRITERS[form](self)


def of(collection: Collection, found: Points) -> Table:
    """Mean of a metric with the half-width of its 95 % interval.

    Accuracies are set bold where they are significantly best: better than every other line of the panel at that point
    of the x-axis by the test of `compare`, p adjusted by Holm over all pairs of lines of the table.

    Args:
        collection: The runs.
        found: Their points.
    """
    metric, swept = found.metric, found.axis.swept
    facets, lines = found.facets, found.lines
    summary = summarise(found)
    by_seed = bool((summary["over"] == "seeds").any())
    bold, gaps = best(collection, found, summary)
    most = int(summary["seeds"].max())
    points = sorted(summary[swept].unique())
    header = [
        *(names.COLUMNS.get(column, column) for column in (*facets, *lines)),
        *(names.point(swept, each) for each in points),
    ]
    body: list[tuple[Cell, ...]] = []
    rules = set()
    for facet in conditions(summary, facets):
        rules.add(len(body))
        panel = select(summary, facets, facet)
        for line in conditions(panel, lines):
            chosen = select(panel, lines, line)
            cells = {
                row[swept]: Cell(_text(row, most, metric, by_seed), (facet, line, row[swept]) in bold)
                for row in chosen.to_dict("records")
            }
            keys = zip((*facets, *lines), (*facet, *line), strict=True)
            body.append((*(Cell(names.value(*key)) for key in keys), *(cells.get(each, Cell("")) for each in points)))
    rules.add(len(body))
    for about, value in dense(found.table):
        blank = [Cell("")] * (len(facets) + len(lines) - 1)
        told = " ".join(["dense", *about])
        body.append((Cell(told), *blank, *[Cell(metric.number(value))] * len(points)))
    what = found.axis.label.removesuffix(" (%)") if swept != "sparsity" else sparsity_name(found.table)
    what = what[0].lower() + what[1:]
    return Table(
        title=f"{metric.axis} on test questions, mean{' ± half-width of the 95 % interval' * by_seed}, by {what}",
        header=tuple(header),
        body=tuple(body),
        left=len(facets) + len(lines),
        rules=frozenset(rules - {0, len(body)}),
        notes=(*_notes(summary, most, found), *found.gaps, *gaps),
    )


Place = tuple[tuple[object, ...], tuple[object, ...], Any]
"""Facet, line and point of the x-axis."""


def best(collection: Collection, found: Points, summary: pandas.DataFrame) -> tuple[set[Place], list[str]]:
    """The cells that are significantly best, and what kept some from being tested.

    A single seed claims nothing, nor do conditions that did not answer the same questions.
    """
    if found.metric != ACCURACY or found.pooled:
        return set(), []
    swept = found.axis.swept
    ahead: dict[tuple[Place, Place], float] = {}
    untested: dict[str, tuple[list[str], str]] = {}
    most = int(summary["seeds"].max())
    for facet in conditions(summary, found.facets):
        panel = select(found.table, found.facets, facet)
        for point, group in panel.groupby(swept):
            runs: dict[Place, dict[Hashable, Run]] = {
                (facet, line, point): {
                    key: collection.runs[run]
                    for key, run in select(group, found.lines, line).set_index("seed")["run"].items()
                }
                for line in conditions(group, found.lines)
            }
            for first, second in itertools.combinations(runs, 2):
                shared = [key for key in runs[first] if key in runs[second]]
                try:
                    if len(shared) < 2:
                        raise AnalysisError("they have fewer than two seeds in common.")
                    pairs = replicates([(runs[first][key], runs[second][key]) for key in shared])
                    found_estimate = estimate(differences(pairs))
                except AnalysisError as error:
                    at, _ = untested.setdefault(_named(found, first, second), ([], str(error)))
                    at.append(names.point(swept, first[2]))
                    continue
                if found_estimate is not None:
                    pair = (first, second) if found_estimate.mean > 0 else (second, first)
                    ahead[pair] = found_estimate.p
    adjusted = dict(zip(ahead, holm(list(ahead.values())), strict=True))
    wins = {pair for pair, p in adjusted.items() if p < 1 - LEVEL}
    places = {place for pair in ahead for place in pair}
    found_best = {
        place
        for place in places
        if all((place, other) in wins for other in _column(summary, found, place) if other != place)
    }
    gaps = [
        f"{pair}: not tested at {', '.join(at)}, so neither can be bold there: {why}"
        for pair, (at, why) in untested.items()
        if most > 1
    ]
    return found_best, gaps


def _named(found: Points, first: Place, second: Place) -> str:
    """Two lines of a panel in words."""
    panel = names.title(found.facets, first[0])
    lines = " and ".join(names.label(found.lines, line) for _, line, _ in (first, second))
    return f"{panel}: {lines}" if panel else lines


def _column(summary: pandas.DataFrame, found: Points, place: Place) -> list[Place]:
    """All cells of the panel at the same point."""
    facet, _, point = place
    panel = select(summary, [*found.facets, found.axis.swept], [*facet, point])
    return [(facet, line, point) for line in conditions(panel, found.lines)]


def sparsity_name(table: pandas.DataFrame) -> str:
    """What the requested sparsity is a share of."""
    return f"requested share of {names.units(set(table['structure']), set(table['budget']))} removed"


def dense(table: pandas.DataFrame) -> list[tuple[tuple[str, ...], float]]:
    """The metric before pruning of each dense model, with what tells it from the others; a mean over seeds."""
    columns = [column for column in ("model", "task", "preparation") if table[column].nunique() > 1]
    measured = table.dropna(subset="dense").drop_duplicates([*columns, "seed", "dense"])
    return [
        (tuple(map(str, key)), float(select(measured, columns, key)["dense"].mean()))
        for key in conditions(measured, columns)
        if len(measured)
    ]


def _text(row: Mapping[Hashable, Any], most: int, metric: Metric, by_seed: bool) -> str:
    """The mean with half the width of its interval over seeds; where no cell has one, with both ends of Wilson's."""
    text = metric.number(row["mean"])
    if row["over"] == "seeds":
        text += f" ± {metric.number((row['high'] - row['low']) / 2)}"
    elif by_seed:
        text += MARK
    elif row["over"] == "questions":
        text += f" [{metric.number(row['low'])}, {metric.number(row['high'])}]"
    return text if row["seeds"] == most else f"{text} (seeds: {row['seeds']})"


def _notes(summary: pandas.DataFrame, most: int, found: Points) -> list[str]:
    asked = summary["questions"].dropna()
    questions = f", {names.span(asked)} questions" if len(asked) else ""
    notes = [f"{most} seed{'s' * (most > 1)} unless a cell says otherwise{questions}."]
    over = set(summary["over"])
    if "seeds" in over:
        within = f" within each {found.pooled[0]}" if found.pooled else ""
        notes.append(f"±: interval of the mean over seeds{within} (t quantiles), for these questions.")
        if over != {"seeds"}:
            notes.append(f"{MARK}: no spread over seeds: one seed, or seeds that all came to the same value.")
    elif "nothing" in over:
        notes.append("No interval: one seed, or seeds that all came to the same value.")
    else:
        notes.append(
            "Brackets: 95 % interval over the questions (Wilson), of this one model; nothing is known of seeds."
        )
    idle = found.table[(found.table["sparsity"] > 0) & (found.table["block_sparsity"] == 0)]
    if len(idle):
        at = ", ".join(map(names.spaced, sorted(set(idle["sparsity"]))))
        notes.append(f"Nothing was removed from {len(idle):,} of the runs at {at}: that rounds to no unit.")
    if found.metric == ACCURACY and not found.pooled:
        notes.append(BOLD)
    return notes


def _text_form(table: Table) -> str:
    body = [[cell.text for cell in line] for line in table.body]
    return "\n".join([table.title, "", *names.aligned(table.header, body, table.left), "", *table.notes])


def _markdown_form(table: Table) -> str:
    def written(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    body = [
        written([f"**{markdown(cell.text)}**" if cell.best else markdown(cell.text) for cell in line])
        for line in table.body
    ]
    alignments = ["---"] * table.left + ["---:"] * (len(table.header) - table.left)
    return "\n".join(
        [
            markdown(table.title),
            "",
            written([markdown(name) for name in table.header]),
            written(alignments),
            *body,
            "",
            *(f"- {markdown(note)}" for note in table.notes),
        ]
    )


def markdown(text: str) -> str:
    """Text that Markdown shows as it is, also inside a table."""
    return re.sub(r"([\\`*_|<>\[\]~&#])", r"\\\1", " ".join(text.split()))


LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
}
r"""Character -> how LaTeX writes it. A bracket or star at the start of a line would be taken for an option of `\\`."""


def latex(text: str) -> str:
    """Text that LaTeX shows as it is; a hyphen before a number becomes a minus sign."""
    return "".join(LATEX.get(character, character) for character in names.typeset(text))


def _latex_form(table: Table) -> str:
    r"""For `\input`; needs the package booktabs."""

    def written(cells: Sequence[str]) -> str:
        return " & ".join(cells) + r" \\"

    columns = "l" * table.left + "r" * (len(table.header) - table.left)
    lines = [f"% {' '.join(text.split())}" for text in (table.title, *table.notes)]
    lines += [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        written([latex(name) for name in table.header]),
        r"\midrule",
    ]
    for number, line in enumerate(table.body):
        if number in table.rules:
            lines.append(r"\midrule")
        lines.append(written([rf"\textbf{{{latex(cell.text)}}}" if cell.best else latex(cell.text) for cell in line]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _html_form(table: Table) -> str:
    def row(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"

    def cell(found: Cell) -> str:
        return f"<b>{html.escape(found.text)}</b>" if found.best else html.escape(found.text)

    return "\n".join(
        [
            "<table>",
            f"<caption>{html.escape(table.title)}</caption>",
            "<thead>",
            row("th", [html.escape(name) for name in table.header]),
            "</thead>",
            "<tbody>",
            *(row("td", [cell(each) for each in line]) for line in table.body),
            "</tbody>",
            "</table>",
            *(f"<p>{html.escape(note)}</p>" for note in table.notes),
        ]
    )


WRITERS: dict[Format, Callable[[Table], str]] = {
    "text": _text_form,
    "markdown": _markdown_form,
    "latex": _latex_form,
    "html": _html_form,
}
ENDINGS: dict[Format, str] = {"text": "txt", "markdown": "md", "latex": "tex", "html": "html"}
