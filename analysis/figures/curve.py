"""A metric against sparsity, size, speed, recovery questions or a setting: the curve that the framework is about."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from analysis import names
from analysis.collect import AnalysisError, Collection
from analysis.curves import Axis, Points, conditions, select, summarise
from analysis.figures.style import PLAIN, Drawn, Look, Venue, grid, legend, log_axis, looks, save, style, wrapped
from analysis.metrics import CLOCKED, Metric

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

DRAWN = (
    "Each seed drew its own recovery questions; draws that take most of the pool overlap, and those that take it all "
    "are the same."
)
"""Of sweeps with `task.subset: ${seed}`."""
SHIFT = 0.02
"""Share of the x-range over which the lines at one point are spread."""


def draw(
    collection: Collection,
    found: Points,
    folder: Path,
    venue: Venue = PLAIN,
    name: str = "",
    called: Mapping[str, str] | None = None,
) -> Drawn:
    """One panel for each facet, one line for each condition.

    Lines join means over seeds, bars are 95 % intervals over seeds, faint points single runs. There is no bar
    where the seed changes nothing. If no run has a second seed, bars show the interval over questions instead.

    Args:
        collection: The runs.
        found: Their points, with the roles of the columns.
        folder: Where `<name>` .pdf, .png, .svg, .csv (means), `_runs.csv` and .txt (caption) go.
        venue: The page.
        name: Of the files; empty takes `<metric>_vs_<axis>`.
        called: Labels of lines -> what they are called instead.

    Raises:
        AnalysisError: There are more lines than can be told apart.
    """
    table, axis, metric = found.table, found.axis, found.metric
    summary = summarise(found)
    appearance = looks(found.lines, conditions(summary, found.lines))
    by_seed = bool((summary["over"] == "seeds").any())
    panels = conditions(table, found.facets)
    chances, gaps = guessed(collection, found, panels)

    def label(line: tuple[object, ...]) -> str:
        text = names.label(found.lines, line)
        return (called or {}).get(text, text)

    with style(venue):
        layout = grid(venue, len(panels))
        handles: dict[str, Artist] = {}
        step = _step(table["x"], axis, len(appearance))
        for axes, facet in zip(layout.axes, panels, strict=True):
            chosen, single = select(summary, found.facets, facet), select(table, found.facets, facet)
            _references(axes, found, chosen, single, chances.get(facet), appearance, handles)
            for line in conditions(chosen, found.lines):
                mean = select(chosen, found.lines, line).sort_values("x")
                each = select(single, found.lines, line)
                place = list(appearance).index(line) - (len(appearance) - 1) / 2
                handles[label(line)] = _line(axes, mean, each, appearance[line], found, by_seed, place, step)
            layout.title(axes, names.title(found.facets, facet))
            _x_axis(axes, axis, table["x"])
            axes.set_ylim(*_limits(summary, table, chances.values(), by_seed, metric))
        layout.figure.supxlabel(axis.label)
        for axes in layout.leftmost:
            axes.set_ylabel(wrapped(metric.axis, venue))
        order = [label(line) for line in appearance]
        entries = {key: handles[key] for key in [*order, *(key for key in handles if key not in order)]}
        legend(layout.figure, entries, names.heading(found.lines[0]))
        caption = _caption(found, summary, chances, by_seed, collection.drawn_by_seed)
        tables = {"": summary, "_runs": table.drop(columns=["run", "work"])}
        file = name or f"{metric.name}_vs_{names.file_name(axis.name)}"
        return save(layout.figure, folder, file, tables, caption, [*found.gaps, *gaps])


def guessed(
    collection: Collection, found: Points, panels: list[tuple[object, ...]]
) -> tuple[dict[tuple[object, ...], float], list[str]]:
    """Panel -> the metric of guessing; and a line for each panel of which that is not known."""
    chances, gaps = {}, []
    if not found.metric.name.startswith("accuracy"):
        return {}, []
    for facet in panels:
        runs = select(found.table, found.facets, facet).drop_duplicates("task")["run"]
        try:
            per_task = [float((1 / collection.runs[run].predictions()["choices"]).mean()) for run in runs]
        except AnalysisError as error:
            gaps.append(f"no chance line: {error}")
            continue
        chances[facet] = float(np.mean(per_task))
    return chances, gaps


def _references(
    axes: Axes,
    found: Points,
    chosen: pandas.DataFrame,
    single: pandas.DataFrame,
    chance: float | None,
    appearance: dict[tuple[object, ...], Look],
    handles: dict[str, Artist],
) -> None:
    """Horizontal lines: the dense model, chance, and what the same recovery does where nothing is removed."""
    scale = found.metric.scale
    dense = sorted(single["dense"].dropna().unique())
    if found.pooled and len(dense) > 1:
        dense = [float(single.drop_duplicates([*found.pooled])["dense"].mean())]
    for value in dense:
        handles["dense"] = axes.axhline(scale * value, color="black", linewidth=0.8, dashes=(6, 3), zorder=1.5)
    if chance is not None:
        handles["chance"] = axes.axhline(scale * chance, color="black", linewidth=0.8, dashes=(1, 2), zorder=1.5)
    if found.axis.swept != "sparsity" or found.lines[0] != "loss":
        return
    kept = chosen[(chosen["sparsity"] == 0) & (chosen["loss"] != "none")]
    for line, mean in zip(kept[found.lines].itertuples(index=False, name=None), kept["mean"], strict=True):
        colour, _, dashes = appearance[line]
        axes.axhline(scale * mean, color=colour, linewidth=0.6, alpha=0.6, zorder=1.4, linestyle=dashes)
        handles["nothing removed"] = Line2D([], [], color="#888888", linewidth=0.6)


def _line(
    axes: Axes,
    mean: pandas.DataFrame,
    each: pandas.DataFrame,
    look: Look,
    found: Points,
    by_seed: bool,
    place: float,
    step: float,
) -> Artist:
    colour, marker, dashes = look
    scale, axis = found.metric.scale, found.axis
    x, y = _moved(mean["x"], axis, place * step), scale * mean["mean"]
    bars = mean["over"] == ("seeds" if by_seed else "questions")
    low, high = (scale * _inside(mean[end], found.metric)[bars] for end in ("low", "high"))
    # the interval of a share of 1 may end a rounding error below it
    around = [(y[bars] - low).clip(0), (high - y[bars]).clip(0)]
    axes.errorbar(x[bars], y[bars], yerr=around, fmt="none", ecolor=colour, elinewidth=0.9, capsize=1.8, zorder=3)
    runs_x = _moved(each["x"], axis, (place - 0.5) * step)
    axes.scatter(runs_x, scale * each["value"], s=6, color=colour, alpha=0.45, linewidth=0, zorder=5)
    (line,) = axes.plot(
        x,
        y,
        color=colour,
        marker=marker,
        markersize=3.4,
        linestyle=dashes,
        linewidth=1.1,
        zorder=4,
    )
    return line


def _step(x: pandas.Series[float], axis: Axis, lines: int) -> float:
    """How far lines are moved apart: in the unit of the axis, or in decades."""
    values = np.log10(x) if axis.logarithmic else axis.scale * x
    return SHIFT * float(np.ptp(values)) / max(1, lines - 1)


def _moved(x: pandas.Series[float], axis: Axis, by: float) -> pandas.Series[float]:
    return axis.scale * x * 10**by if axis.logarithmic else axis.scale * x + by


def _inside(values: pandas.Series[float], metric: Metric) -> pandas.Series[float]:
    return values.clip(0, 1) if metric.share else values


def _x_axis(axes: Axes, axis: Axis, x: pandas.Series[float]) -> None:
    if axis.logarithmic:
        log_axis(axes, set(x))
        return
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    if axis.scale == 1 and x.max() >= 1e4:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if axis.name == "retention" and not axes.xaxis_inverted():
        axes.invert_xaxis()


def _limits(
    summary: pandas.DataFrame, table: pandas.DataFrame, chances: Iterable[float], by_seed: bool, metric: Metric
) -> tuple[float, float]:
    """One y-range for all panels that holds every point, interval and line."""
    shown = summary[summary["over"] == ("seeds" if by_seed else "questions")]
    ends = [*_inside(shown["low"], metric), *_inside(shown["high"], metric)]
    values = [*table["value"], *table["dense"].dropna(), *chances, *(end for end in ends if math.isfinite(end))]
    low, high = metric.scale * min(values), metric.scale * max(values)
    margin = max(1.0 if metric.share else 1e-9, 0.05 * (high - low))
    if not metric.share:
        return low - margin, high + margin
    return max(-2.0, low - margin), min(102.0, high + margin)


def _caption(
    found: Points,
    summary: pandas.DataFrame,
    chances: dict[tuple[object, ...], float],
    by_seed: bool,
    drawn_by_seed: bool,
) -> str:
    table, metric = found.table, found.metric
    seeds = names.span(summary["seeds"])
    asked = f" on {names.span(summary['questions'].dropna())} test questions" if metric.asked else ""
    x = found.axis.label.removesuffix(" (%)")
    said = [f"{metric.label}{asked} against the {x[0].lower()}{x[1:]}{at_one_sparsity(found)}."]
    if found.pooled:
        said.append(f"Means over {' and '.join(f'{column}s' for column in found.pooled)}, all with the same weight.")
    if by_seed:
        over = f"seeds within each {found.pooled[0]}" if found.pooled else "seeds"
        said.append(
            f"Lines: means over {seeds} seeds. Bars: 95 % intervals of the mean over {over} (t quantiles), for these "
            "questions. Faint points: single runs."
        )
        if (summary["over"] != "seeds").any():
            said.append("No bar where all seeds came to the same value, or where there is one seed.")
    elif (summary["over"] == "questions").any():
        said.append(
            f"Lines: means over {seeds} seed{'s' * (seeds != '1')}. Bars: 95 % intervals over the questions (Wilson); "
            "nothing is known of the spread over seeds."
        )
    else:
        said.append(f"Lines: means over {seeds} seed{'s' * (seeds != '1')}; nothing is known of their spread.")
    if found.axis.name == "recovery_questions" and drawn_by_seed:
        said.append(DRAWN)
    if dense := sorted(table["dense"].dropna().unique()):
        told = ", ".join(dict.fromkeys(metric.told(value) for value in dense))
        said.append(f"Dense, the model before pruning: {told}.")
    if chances:
        told = ", ".join(dict.fromkeys(f"{100 * value:.1f} %" for value in sorted(chances.values())))
        said.append(f"Chance, the mean over questions of 1 / number of choices: {told}.")
    if found.axis.swept == "sparsity" and (summary["sparsity"] == 0).any() and found.lines[0] == "loss":
        said.append("Thin lines: the same recovery where nothing is removed, which is what more training alone does.")
    if metric.name in CLOCKED or found.axis.name in CLOCKED:
        said.append("Times were measured with a clock and differ from one run to the next.")
    if len(conditions(summary, found.lines)) > 1:
        said.append("Lines are moved sideways a little, so that their bars can be told apart.")
    return " ".join(said)


def at_one_sparsity(found: Points) -> str:
    """`, 90 % of MLP neurons removed` where that is no axis and the same for all runs."""
    sparsities = found.table["sparsity"].unique()
    if found.axis.swept == "sparsity" or len(sparsities) > 1:
        return ""
    units = names.units(set(found.table["structure"]), set(found.table["budget"]))
    return f", {names.spaced(sparsities[0])} of {units} removed"
