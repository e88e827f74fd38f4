"""Accuracy against sparsity, drawn for print. The same records give the same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import matplotlib
import numpy as np
import pandas
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis import names
from analysis.collect import AnalysisError, Collection
from analysis.curves import FACETS, LINES, points, summarise, varying
from analysis.tables import order

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.typing import RcKeyType

Axis = Literal["target", "block", "model"]

COLUMN_WIDTH, TEXT_WIDTH, PANEL_HEIGHT = 3.4, 6.8, 2.4
"""Inches: one column and both columns of a two-column page, and a panel with its labels."""
SHIFT = 0.03
"""Share of the x-range over which the lines at one sparsity are spread."""
STYLE: dict[RcKeyType, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
    "legend.title_fontsize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.grid": True,
    "grid.linewidth": 0.4,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
    "pdf.fonttype": 42,
    "svg.hashsalt": "regraft",
}
COLOURS = {
    "none": ("#555555", "x"),
    "ce": ("#D55E00", "o"),
    "kl": ("#0072B2", "s"),
    "ce_kl": ("#009E73", "^"),
    "pseudo_label": ("#CC79A7", "D"),
}
"""Loss -> colour (Okabe and Ito's palette, told apart by the colour-blind) and marker; the same in every figure."""
SPARE = (("#E69F00", "v"), ("#56B4E9", "P"), ("#000000", "*"), ("#F0E442", "h"))
"""For losses that are not known here."""
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)))
"""For lines of one loss that differ in something else."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The files of one figure, its caption, and what is missing from it."""

    files: tuple[Path, ...]
    caption: str
    gaps: tuple[str, ...]


def accuracy_vs_sparsity(collection: Collection, folder: Path, axis: Axis = "block") -> Drawn:
    """One panel for each criterion, one line for each loss.

    Lines join means over seeds, bars are 95 % intervals over seeds, faint points single runs. There is no bar
    where the seed changes nothing. If no run has a second seed, bars show the interval over questions instead.

    Args:
        collection: The runs.
        folder: Where `accuracy_vs_<axis>_sparsity` .pdf, .png, .svg, .csv (means), `_runs.csv` and .txt (caption) go.
        axis: Sparsity on the x-axis: as requested, of the pruned blocks, or of the whole model.

    Raises:
        AnalysisError: No run has an accuracy, or there are more lines than can be told apart.
    """
    table, missing = points(collection)
    gaps = list(missing)
    facets, lines = varying(table, FACETS), varying(table, LINES)
    summary = summarise(table, [*facets, *lines])
    styles = _styles(order(summary, lines))
    by_seed = bool((summary["over"] == "seeds").any())
    panels = sorted(set(table[facets].itertuples(index=False, name=None)), key=lambda facet: tuple(map(str, facet)))
    chances = {}
    for facet in panels:
        runs = table.loc[(table[facets] == list(facet)).all(axis=1), "run"]
        try:
            chances[facet] = float((1 / collection.runs[runs.iloc[0]].predictions()["choices"]).mean())
        except AnalysisError as error:
            gaps.append(f"no chance line: {error}")

    with matplotlib.rc_context(STYLE):
        columns = len(panels) if len(panels) <= 3 else 2
        rows = -(-len(panels) // columns)
        width = COLUMN_WIDTH if columns == 1 else TEXT_WIDTH
        figure = Figure(figsize=(width, PANEL_HEIGHT * rows), layout="constrained")
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        handles: dict[str, Artist] = {}
        step = SHIFT * float(np.ptp(100 * table[f"{axis}_sparsity"])) / max(1, len(styles) - 1)
        for axes, facet in zip(grid, panels, strict=False):
            chosen = summary[(summary[facets] == list(facet)).all(axis=1)]
            single = table[(table[facets] == list(facet)).all(axis=1)]
            for value in sorted(single["dense"].dropna().unique()):
                handles["dense"] = axes.axhline(100 * value, color="black", linewidth=0.8, dashes=(6, 3), zorder=1.5)
            if facet in chances:
                handles["chance"] = axes.axhline(
                    100 * chances[facet], color="black", linewidth=0.8, dashes=(1, 2), zorder=1.5
                )
            for line in order(chosen, lines):
                mean = chosen[(chosen[lines] == list(line)).all(axis=1)].sort_values("sparsity")
                each = single[(single[lines] == list(line)).all(axis=1)]
                shift = step * (list(styles).index(line) - (len(styles) - 1) / 2)
                handles[names.label(lines, line)] = _draw(axes, mean, each, styles[line], axis, by_seed, shift, step)
            axes.set_title(_title(facets, facet))
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
            axes.set_ylim(*_limits(summary, table, chances.values(), by_seed))
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
            # the panel above is now the lowest of its column
            grid[len(panels) - columns].tick_params(labelbottom=True)
        figure.supxlabel(axis_label(axis, set(table["structure"])), fontsize=8)
        for axes in grid[::columns]:
            axes.set_ylabel("Accuracy on test questions (%)")
        keys = [key for key in handles if key not in ("dense", "chance")]
        keys.sort(key=[names.label(lines, line) for line in styles].index)
        keys += [key for key in ("dense", "chance") if key in handles]
        height = _legend(figure, [(handles[key], key) for key in keys])
        figure.set_figheight(PANEL_HEIGHT * rows + height)
        caption = _caption(table, summary, chances, axis, by_seed)
        tables = {"": summary, "_runs": table.drop(columns=["run", "work"])}
        files = save(figure, folder, f"accuracy_vs_{axis}_sparsity", tables, caption)
    return Drawn(files=files, caption=caption, gaps=tuple(gaps))


def axis_label(axis: Axis, structures: set[str]) -> str:
    """Name and unit of a sparsity."""
    if axis == "model":
        return "Share of all parameters removed (%)"
    return f"{'Requested share' if axis == 'target' else 'Share'} of {names.units(structures)} removed (%)"


def _draw(
    axes: Axes,
    mean: pandas.DataFrame,
    each: pandas.DataFrame,
    style: tuple[str, str, object],
    axis: Axis,
    by_seed: bool,
    shift: float,
    step: float,
) -> Artist:
    colour, marker, dashes = style
    x, y = 100 * mean[f"{axis}_sparsity"] + shift, 100 * mean["mean"]
    has_interval = mean["over"] == ("seeds" if by_seed else "questions")
    low, high = (100 * mean[end].clip(0, 1)[has_interval] for end in ("low", "high"))
    # the interval of a share of 1 may end a rounding error below it
    around = [(y[has_interval] - low).clip(0), (high - y[has_interval]).clip(0)]
    axes.errorbar(
        x[has_interval], y[has_interval], yerr=around, fmt="none", ecolor=colour, elinewidth=0.9, capsize=1.8, zorder=3
    )
    runs_x = 100 * each[f"{axis}_sparsity"] + shift - step / 2
    axes.scatter(runs_x, 100 * each["value"], s=6, color=colour, alpha=0.45, linewidth=0, zorder=5)
    (line,) = axes.plot(x, y, color=colour, marker=marker, markersize=3.4, linestyle=dashes, linewidth=1.1, zorder=4)
    return line


def _styles(lines: list[tuple[object, ...]]) -> dict[tuple[object, ...], tuple[str, str, object]]:
    """Colour and marker say the loss, dashes what else differs."""
    losses = list(dict.fromkeys(str(line[0]) for line in lines))
    unknown = [loss for loss in losses if loss not in COLOURS]
    others = sorted({line[1:] for line in lines}, key=lambda other: tuple(map(names.rank, other)))
    if len(unknown) > len(SPARE) or len(others) > len(DASHES):
        raise AnalysisError(
            f"{len(lines)} lines in one figure ({len(losses)} losses, {len(others)} other conditions) cannot be told "
            "apart. Draw fewer sweeps at once."
        )
    colours = COLOURS | dict(zip(unknown, SPARE, strict=False))
    return {line: (*colours[str(line[0])], DASHES[others.index(line[1:])]) for line in lines}


def _limits(summary: pandas.DataFrame, table: pandas.DataFrame, chances: object, by_seed: bool) -> tuple[float, float]:
    """One y-range for all panels that holds every point, interval and line."""
    assert hasattr(chances, "__iter__")
    shown = summary[summary["over"] == ("seeds" if by_seed else "questions")]
    values = [*table["value"], *table["dense"].dropna(), *chances, *shown["low"].clip(0, 1), *shown["high"].clip(0, 1)]
    low, high = 100 * min(values), 100 * max(values)
    margin = max(1.0, 0.05 * (high - low))
    return max(-2.0, low - margin), min(102.0, high + margin)


def _title(facets: list[str], facet: tuple[object, ...]) -> str:
    told = [f"criterion {names.value('criterion', facet[0])}"]
    told += [
        f"{column} {names.value(column, value)}"
        for column, value in zip(facets[1:], facet[1:], strict=True)
        if str(value)
    ]
    return ", ".join(told)


def _legend(figure: Figure, entries: list[tuple[Artist, str]]) -> float:
    """A legend above the panels, in as few rows as fit the width; its height in inches."""
    handles, labels = zip(*entries, strict=True)
    for columns in range(len(entries), 0, -1):
        legend = figure.legend(
            handles,
            labels,
            loc="outside upper center",
            ncols=columns,
            title="Recovery loss",
            frameon=False,
            columnspacing=1.2,
            handlelength=2.4,
        )
        extent = legend.get_window_extent()
        if columns == 1 or extent.width <= figure.bbox.width:
            break
        legend.remove()
    return float(extent.height / figure.dpi)


def _caption(
    table: pandas.DataFrame,
    summary: pandas.DataFrame,
    chances: dict[tuple[object, ...], float],
    axis: Axis,
    by_seed: bool,
) -> str:
    seeds = _range(summary["seeds"])
    questions = _range(summary["questions"])
    x = axis_label(axis, set(table["structure"])).removesuffix(" (%)")
    said = [f"Accuracy on {questions} test questions against the {x[0].lower()}{x[1:]}."]
    if by_seed:
        said.append(
            f"Lines: means over {seeds} seeds. Bars: 95 % intervals of the mean over seeds (t quantiles), for these "
            "questions. Faint points: single runs."
        )
        if (summary["over"] == "questions").any():
            said.append("No bar where all seeds came to the same accuracy, or where there is one seed.")
    else:
        said.append(
            f"Lines: means over {seeds} seed{'s' * (seeds != '1')}. Bars: 95 % intervals over the questions (Wilson); "
            "nothing is known of the spread over seeds."
        )
    if dense := sorted(table["dense"].dropna().unique()):
        said.append(f"Dense, the model before pruning: {', '.join(f'{100 * value:.1f} %' for value in dense)}.")
    if chances:
        values = sorted({round(100 * value, 1) for value in chances.values()})
        told = ", ".join(f"{value:.1f} %" for value in values)
        said.append(f"Chance, the mean over questions of 1 / number of choices: {told}.")
    if (summary["sparsity"] == 0).any():
        said.append("At sparsity 0 nothing is removed: what the same recovery alone does.")
    said.append("Lines are moved sideways a little, so that their bars can be told apart.")
    return " ".join(said)


def _range(numbers: pandas.Series[int]) -> str:
    low, high = numbers.min(), numbers.max()
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def save(
    figure: Figure, folder: Path, name: str, tables: Mapping[str, pandas.DataFrame], caption: str
) -> tuple[Path, ...]:
    """Write a figure as pdf, png and svg, its data as csv (one file for each ending of the name) and its caption."""
    folder.mkdir(parents=True, exist_ok=True)

    def paths() -> Iterator[Path]:
        # dates would make the bytes differ from one build to the next
        for ending, metadata in (
            ("pdf", {"CreationDate": None}),
            ("png", {}),
            ("svg", {"Date": None}),
        ):
            path = folder / f"{name}.{ending}"
            figure.savefig(path, metadata=metadata, dpi=200)
            yield path
        for ending, table in tables.items():
            path = folder / f"{name}{ending}.csv"
            table.to_csv(path, index=False)
            yield path
        path = folder / f"{name}.txt"
        path.write_text(caption + "\n", encoding="utf-8")
        yield path

    return tuple(paths())
