"""One Markdown page of a sweep: what was found, the table, every figure with its caption, and what is missing."""

from __future__ import annotations

from pathlib import Path

from analysis import tables
from analysis.collect import AnalysisError, Collection
from analysis.comparison import LOSSES, compare
from analysis.curves import main_axis, points
from analysis.figures import FIGURES
from analysis.figures.style import PLAIN, Drawn, Venue

REPORT = "report.md"


def verdicts(collection: Collection) -> list[list[str]]:
    """The verdicts, and what is not compared, of each pair of losses that were both run; each is its own family."""
    present = set(collection.run_table["loss"])
    pairs = []
    for a, b in LOSSES:
        if {a, b} <= present:
            try:
                comparisons, gaps = compare(collection, "loss", a, b)
            except AnalysisError as error:
                comparisons, gaps = [], [str(error)]
            pairs.append([*(each.verdict for each in comparisons), *gaps])
    return pairs


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
    """Write `report.md` and the figures that it shows into `folder`.

    Returns:
        The page, and what a terminal shows of it: the table and the verdicts of the first pair of losses.

    Raises:
        AnalysisError: No run has an accuracy.
    """
    found = points(collection, x=main_axis(collection))
    table = tables.of(collection, found)
    pairs = verdicts(collection)
    drawn, left_out = draw_all(collection, folder / "figures")
    lines = [f"# {' and '.join(each.name for each in collection.folders)}", ""]
    if pairs:
        lines += ["## Verdicts", "", *(f"- {sentence}" for pair in pairs for sentence in pair), ""]
    lines += ["## Accuracy", "", table.written("markdown"), ""]
    lines += ["## Figures", ""]
    for name, figure in drawn.items():
        lines += [f"![{name.replace('_', ' ')}](figures/{name}.png)", "", figure.caption, ""]
        lines += [*(f"- {gap}" for gap in figure.gaps), ""] if figure.gaps else []
    if left_out:
        lines += ["Not drawn:", "", *(f"- {name}: {reason}" for name, reason in left_out.items()), ""]
    lines += ["## Runs", "", *collection.account(), ""]
    path = folder / REPORT
    path.write_text("\n".join(lines), encoding="utf-8")
    return path, [table.written("text"), "", *next(iter(pairs), [])]
