"""The runs that no other run beats in two metrics at once. The same records give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, MaxNLocator

from analysis import names
from analysis.collect import AnalysisError, Collection
from analysis.curves import FACETS, LINES, conditions, measured, shown
from analysis.figures.style import PLAIN, Drawn, Look, Venue, grid, legend, looks, save, style, wrapped
from analysis.metrics import ACCURACY, CLOCKED, Metric, metric
from regraft.records import Row

SPLITS = ("selection", "test")
"""Questions that choose, the first that all runs were asked; then questions that are shown beside."""
FADED = 0.6
"""How far runs that are beaten fade."""


def unbeaten(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Which rows no other row of their group beats: is at least as low in all columns, and lower in one.

    Args:
        values: (rows, columns) numbers, lower is better.
        groups: (rows,) the group of each row.

    Returns:
        (rows,) bool. Equal rows are all in or all out.
    """
    no_worse = (values[:, None, :] <= values[None, :, :]).all(axis=2)
    better = (values[:, None, :] < values[None, :, :]).any(axis=2)
    alike = groups[:, None] == groups[None, :]
    return np.logical_not((no_worse & better & alike).any(axis=0))


def points(
    collection: Collection, x: Metric, y: Metric, split: str | None = None, within: Sequence[str] = ()
) -> tuple[pandas.DataFrame, str, list[str]]:
    """What the last evaluation of each run measured.

    Args:
        collection: The runs.
        x: The one metric.
        y: The other.
        split: Questions that choose; None takes selection where all runs were asked, else test.
        within: Columns of which only runs with the same values beat one another (`model`, `task`).

    Returns:
        A table with `run_id`, what runs differ in, `x`, `y` (on the questions that choose), `<split>` (y on the
        others), `front` (whether no run beats it) and `dense_x`, `dense_y`; the name of the split that chooses; and a
        line for each run that is left out.

    Raises:
        AnalysisError: No run has both metrics.
    """
    chooses = split or next((each for each in SPLITS if _all_have(collection, (x, y), each)), SPLITS[-1])
    beside = [each for each in SPLITS if each != chooses]
    lines, gaps = [], []
    for run, condition in zip(collection.runs, collection.conditions().to_dict("records"), strict=True):
        last, dense = run.last_evaluation, run.dense_evaluation
        at = {"x": measured(run, last, x, chooses), "y": measured(run, last, y, chooses)}
        if absent := [each.name for each, found in zip((x, y), at.values(), strict=True) if found is None]:
            gaps.append(f"{run.folder}: has no {' and no '.join(absent)} on {chooses} questions, left out")
            continue
        lines.append(
            {column: condition[column] for column in ("run_id", *FACETS, *LINES, "sparsity", "seed")}
            | at
            | ({each: measured(run, last, y, each) for each in beside} if y.asked else {})
            | {"dense_x": measured(run, dense, x, chooses), "dense_y": measured(run, dense, y, chooses)}
        )
    if not lines:
        raise AnalysisError(
            "\n".join([*gaps, f"No run has both {x.name} and {y.name}. Look for their names in collect."])
        )
    table = pandas.DataFrame(lines).astype(dict.fromkeys(["x", "y", "dense_x", "dense_y"], float))
    table = table.drop(columns=[each for each in beside if each in table and table[each].isna().all()])
    signs = [-1 if each.higher else 1 for each in (x, y)]
    groups = table.groupby(list(within), dropna=False).ngroup() if within else pandas.Series(0, table.index)
    table["front"] = unbeaten(table[["x", "y"]].to_numpy() * signs, groups.to_numpy())
    alike = [each for each in (*FACETS, *LINES, "seed") if each != "loss" and not shown(table, each)]
    return table.drop(columns=alike).sort_values(["x", "y", "run_id"], ignore_index=True), chooses, gaps


def size(collection: Collection, folder: Path, venue: Venue = PLAIN) -> Drawn:
    """Accuracy against parameters.

    Raises:
        AnalysisError: No run has both, or all have one size.
    """
    if points(collection, metric("parameters"), ACCURACY)[0]["x"].nunique() < 2:
        raise AnalysisError("all runs came to one size, so there is nothing to weigh accuracy against.")
    return front(collection, folder, metric("parameters"), ACCURACY, venue=venue)[0]


def front(
    collection: Collection, folder: Path, x: Metric, y: Metric, split: str | None = None, venue: Venue = PLAIN
) -> tuple[Drawn, list[str]]:
    """Draw all runs and the front, and tell the runs of the front.

    Args:
        collection: The runs.
        folder: Where `pareto_<y>_vs_<x>` .pdf, .png, .svg, .csv (all runs) and .txt (caption) go.
        x: Metric of the x-axis.
        y: Metric of the y-axis.
        split: Questions that choose; None takes selection where all runs were asked, else test.
        venue: The page.

    Raises:
        AnalysisError: No run has both metrics.
    """
    table, chooses, gaps = points(collection, x, y, split)
    beside = [each for each in SPLITS if each in table]
    caption = _caption(table, x, y, chooses, beside)
    appearance = looks(["loss"], conditions(table, ["loss"]))
    with style(venue):
        layout = grid(venue, 1, height=2.6)
        (axes,) = layout.axes
        handles = _draw(axes, table, x, y, appearance, beside)
        axes.set_xlabel(_axis(x, chooses))
        axes.set_ylabel(wrapped(_axis(y, chooses), venue))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        for metric, axis, values in ((x, axes.xaxis, table["x"]), (y, axes.yaxis, table["y"])):
            if not metric.share and values.max() >= 1e4:
                axis.set_major_formatter(EngFormatter(sep=""))
        legend(layout.figure, handles)
        data = table.drop(columns=["dense_x", "dense_y"]).rename(columns={"x": x.name, "y": f"{y.name}_{chooses}"})
        data = data.rename(columns={each: f"{y.name}_{each}" for each in beside}).dropna(axis="columns", how="all")
        drawn = save(layout.figure, folder, f"pareto_{y.name}_vs_{x.name}", {"": data}, caption, gaps)
    return drawn, _told(table, x, y, chooses, beside)


def _all_have(collection: Collection, metrics: Sequence[Metric], split: str) -> bool:
    """Whether all runs were asked these questions by all metrics that ask any, and by at least one of them."""
    sources = [metric.inverse_of or metric.name for metric in metrics]
    asking = [name for name in sources if any(row.metric == name and row.split for row in _last(collection))]
    return bool(asking) and all(run.row(run.last_evaluation, name, split) for name in asking for run in collection.runs)


def _last(collection: Collection) -> list[Row]:
    """The rows of the last evaluations."""
    ends = [(run, run.last_evaluation) for run in collection.runs]
    return [row for run, last in ends if last is not None for row in run.record.rows if row.stage_index == last.index]


def _draw(
    axes: Axes,
    table: pandas.DataFrame,
    x: Metric,
    y: Metric,
    appearance: Mapping[tuple[object, ...], Look],
    beside: Sequence[str],
) -> dict[str, Artist]:
    """The entries of the legend."""
    scale = {"x": x.scale, "y": y.scale}
    best = table[table["front"]].drop_duplicates(["x", "y"])
    handles: dict[str, Artist] = {}
    # of runs at one x only the better counts, so the front is a staircase: to its corner, then on
    where: Literal["pre", "post"] = "post" if not x.higher else "pre"
    (handles["front"],) = axes.step(
        scale["x"] * best["x"], scale["y"] * best["y"], where=where, color="black", linewidth=0.9, zorder=2
    )
    for (loss,), (colour, marker, _) in appearance.items():
        for is_front in (False, True):
            chosen = table[(table["loss"] == loss) & (table["front"] == is_front)]
            handle = axes.scatter(
                scale["x"] * chosen["x"],
                scale["y"] * chosen["y"],
                s=26 if is_front else 12,
                c=colour,
                marker=marker,
                alpha=1 if is_front else FADED,
                linewidths=0.8,
                zorder=4 if is_front else 3,
            )
            if is_front or names.value("loss", loss) not in handles:
                handles[names.value("loss", loss)] = handle
    for split in beside:
        handles[f"front on {split}"] = axes.scatter(
            scale["x"] * best["x"],
            scale["y"] * best[split],
            s=22,
            facecolors="none",
            edgecolors="black",
            linewidths=0.7,
            zorder=5,
        )
        axes.vlines(scale["x"] * best["x"], scale["y"] * best["y"], scale["y"] * best[split], colors="#999999", lw=0.5)
    dense = table[["dense_x", "dense_y"]].dropna().drop_duplicates()
    if not dense.empty:
        handles["dense"] = axes.scatter(
            scale["x"] * dense["dense_x"],
            scale["y"] * dense["dense_y"],
            s=60,
            facecolors="none",
            edgecolors="black",
            linewidths=0.8,
            marker="*",
            zorder=2,
        )
    return handles


def _axis(metric: Metric, split: str) -> str:
    return metric.axis.replace(metric.label, f"{metric.label} on {split} questions") if metric.asked else metric.axis


def _caption(table: pandas.DataFrame, x: Metric, y: Metric, chooses: str, beside: Sequence[str]) -> str:
    want = {True: "higher", False: "lower"}
    said = [
        f"{y.label} ({want[y.higher]} is better) against {x.label[0].lower()}{x.label[1:]} ({want[x.higher]} is "
        f"better) of {len(table):,} run{'s' * (len(table) != 1)}.",
        f"The line joins the {int(table['front'].sum()):,} that no other run beats on {chooses} questions.",
    ]
    if beside:
        said.append(
            f"Rings: the same runs on {' and '.join(beside)} questions. The best of many runs look better on the "
            f"questions that chose them than they are; what the others say of them is fair."
        )
    elif chooses == "test":
        said.append(
            "They were chosen by the very questions shown, so the best look better than they are; a search over "
            "selection questions (experiment=search) does not have this fault."
        )
    if x.name in CLOCKED or y.name in CLOCKED:
        said.append("Times were measured with a clock and differ from one run to the next.")
    return " ".join(said)


def _told(table: pandas.DataFrame, x: Metric, y: Metric, chooses: str, beside: Sequence[str]) -> list[str]:
    """The runs of the front as aligned columns."""
    best = table[table["front"]]
    settings = [column for column in (*FACETS, *LINES, "sparsity", "seed") if column in best]
    header = [x.name, f"{y.name} ({chooses})", *(f"({each})" for each in beside), "run", *settings]
    body = [
        [
            x.told(row["x"]),
            y.told(row["y"]),
            *(y.told(row[each]) for each in beside),
            row["run_id"],
            *(
                f"{row[each]:.4g}"
                if isinstance(row[each], float)
                else names.value("variant", row[each])
                if each == "variant"
                else str(row[each])
                for each in settings
            ),
        ]
        for row in best.to_dict("records")
    ]
    return names.aligned(header, body, len(header))
