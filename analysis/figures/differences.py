"""What one factor changes, with its interval: the paired difference against sparsity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis import names
from analysis.collect import AnalysisError, Collection
from analysis.comparison import Comparison, as_table, compare
from analysis.figures.style import PLAIN, Drawn, Venue, grid, legend, log_axis, save, style, wrapped

if TYPE_CHECKING:
    from matplotlib.artist import Artist

COLOUR, PALE = "#0072B2", "#999999"
MARKS = {
    "claimed": ("o", COLOUR, COLOUR),
    "not told apart": ("o", COLOUR, "white"),
    "not tested": ("_", COLOUR, COLOUR),
    "not controlled": ("x", PALE, PALE),
}
"""What a mark says -> marker, colour, face."""


def kl_minus_ce(collection: Collection, folder: Path, venue: Venue = PLAIN) -> Drawn:
    """The paper's comparison: L2PSD against L2PFT."""
    comparisons, gaps = compare(collection, "loss", "kl", "ce")
    return draw(comparisons, folder, venue, gaps)


def draw(comparisons: Sequence[Comparison], folder: Path, venue: Venue = PLAIN, gaps: Sequence[str] = ()) -> Drawn:
    """One panel for each condition; filled where a difference is claimed, a cross where it is not controlled.

    Args:
        comparisons: Of one factor and two values of it.
        folder: Where `<factor>_<a>_minus_<b>` .pdf, .png, .svg, .csv and .txt (caption) go.
        venue: The page.
        gaps: What is not compared, and why.

    Raises:
        AnalysisError: There is nothing to compare, or sparsity is what is compared.
    """
    if not comparisons:
        raise AnalysisError("no pair of runs differs in this factor.")
    factor, a, b = comparisons[0].factor, comparisons[0].a, comparisons[0].b
    if factor == "sparsity":
        raise AnalysisError("sparsity is the x-axis of this figure, so it cannot be what is compared.")
    sides = [names.side(factor, side) for side in (a, b)]
    by_size = len({each.sparsity for each in comparisons}) == 1 and all(each.size.isdigit() for each in comparisons)
    panels = list(dict.fromkeys(_panel(each, by_size) for each in comparisons))
    with style(venue):
        layout = grid(venue, len(panels))
        handles: dict[str, Artist] = {}
        for axes, panel in zip(layout.axes, panels, strict=True):
            axes.axhline(0, color="black", linewidth=0.6, zorder=1)
            for each in comparisons:
                if _panel(each, by_size) != panel:
                    continue
                controlled = each.grade.name != "not controlled"
                colour = COLOUR if controlled else PALE
                x, y = float(each.size) if by_size else 100 * each.sparsity, 100 * each.difference
                if each.estimate:
                    ends = [[y - 100 * each.estimate.low], [100 * each.estimate.high - y]]
                    axes.errorbar([x], [y], yerr=ends, fmt="none", ecolor=colour, elinewidth=1.1, capsize=2, zorder=4)
                axes.plot(
                    [x],
                    [y],
                    marker=MARKS[_mark(each)][0],
                    color=colour,
                    markerfacecolor=colour if each.claimed else "white",
                    markersize=4,
                    zorder=3,
                )
            layout.title(axes, (names.title(["criterion"], [panel[0]]) + panel[1]).removeprefix(", "))
            if by_size:
                log_axis(axes, {float(each.size) for each in comparisons})
            else:
                axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        shown = {_mark(each) for each in comparisons}
        for told, (marker, colour, face) in MARKS.items():
            if told not in shown:
                continue
            handles[told] = Line2D(
                [], [], marker=marker, color=colour, markerfacecolor=face, markersize=4, linestyle="none"
            )
        removed = f"Requested share of {comparisons[0].units} removed (%)"
        layout.figure.supxlabel("Recovery questions" if by_size else removed)
        for axes in layout.leftmost:
            axes.set_ylabel(wrapped(f"Accuracy, {sides[0]} minus {sides[1]} (points)", venue))
        legend(layout.figure, handles)
        name = names.file_name(f"{factor}_{a}_minus_{b}")
        return save(
            layout.figure, folder, name, {"": as_table(comparisons)}, _caption(comparisons, sides, by_size), gaps
        )


def _panel(each: Comparison, by_size: bool) -> tuple[str, str]:
    return each.criterion, each.about + (f", recovery questions {each.size}" if each.size and not by_size else "")


def _mark(each: Comparison) -> str:
    if each.grade.name == "not controlled":
        return "not controlled"
    if not each.tested:
        return "not tested"
    return "claimed" if each.claimed else "not told apart"


def _caption(comparisons: Sequence[Comparison], sides: Sequence[str], by_size: bool) -> str:
    over = sorted({each.estimate.over for each in comparisons if each.estimate})
    number, what = next((each.family for each in comparisons if each.tested), (0, ""))
    questions, seeds = (names.span(getattr(each, number) for each in comparisons) for number in ("questions", "seeds"))
    said = [
        f"Accuracy of {sides[0]} minus that of {sides[1]}, paired on {questions} questions and {seeds} "
        f"seed{'s' * (seeds != '1')}.",
        *([f"{names.spaced(comparisons[0].sparsity)} of {comparisons[0].units} removed."] if by_size else []),
        f"Bars: 95 % intervals over {' or '.join(over)}." if over else "No spread, so no intervals.",
    ]
    if number:
        said.append(f"Filled: p < 0.05 after Holm over {number} {what}." if number > 1 else "Filled: p < 0.05.")
    else:
        said.append("Nothing is claimed: with one seed, or no spread, there is no test.")
    grades = sorted({each.grade.name for each in comparisons})
    said.append(f"Grade: {' or '.join(grades)}.")
    if any(each.estimate is None for each in comparisons):
        said.append("No bar where all questions were answered alike.")
    return " ".join(said)
