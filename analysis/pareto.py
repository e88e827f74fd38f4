"""The runs that no other run beats in two metrics at once. The same records give the same bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
import pandas
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from analysis import names
from analysis.collect import AnalysisError, Collection
from analysis.curves import FACETS, LINES
from analysis.figures import COLOURS, COLUMN_WIDTH, PANEL_HEIGHT, SPARE, STYLE, Drawn, save
from regraft.records import Row

SPLITS = ("selection", "test")
"""Questions that choose, the first that all runs were asked; then questions that are shown beside."""
FADED = 0.6
"""How far runs that are beaten fade."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric of the record as an axis."""

    name: str
    label: str
    higher: bool
    """Whether more is better."""
    share: bool = False
    """Whether it is told in percent."""
    asked: bool = True
    """Whether it is measured by asking questions."""


KNOWN = {
    each.name: each
    for each in (
        Metric(name="accuracy", label="Accuracy", higher=True, share=True),
        Metric(name="accuracy_sum", label="Accuracy by summed likelihood", higher=True, share=True),
        Metric(name="accuracy_character", label="Accuracy by likelihood per character", higher=True, share=True),
        Metric(name="dense_agreement", label="Agreement with the dense model", higher=True, share=True),
        Metric(name="tokens_per_second", label="Tokens per second", higher=True),
        Metric(name="nll", label="Negative log-likelihood of the answer (nats)", higher=False),
        Metric(name="brier", label="Brier score", higher=False),
        Metric(name="ece", label="Expected calibration error", higher=False),
        Metric(name="dense_kl", label="KL from the dense model (nats)", higher=False),
        Metric(name="parameters", label="Parameters", higher=False, asked=False),
        Metric(name="non_embedding_parameters", label="Parameters outside the embedding", higher=False, asked=False),
        Metric(name="bytes", label="Bytes of the weights", higher=False, asked=False),
        Metric(name="macs_per_token", label="Multiplications per token", higher=False, asked=False),
    )
}


def metric(name: str, better: Literal["lower", "higher"] | None = None) -> Metric:
    """The metric called `name`.

    Raises:
        AnalysisError: It is not known here, and `better` does not say which values are better.
    """
    known = KNOWN.get(name)
    if better is not None:
        return replace(known or Metric(name=name, label=name, higher=True), higher=better == "higher")
    if known is None:
        raise AnalysisError(
            f"{name}: which values are better is known of {', '.join(KNOWN)}. Say it with --x-better or --y-better."
        )
    return known


def unbeaten(values: np.ndarray) -> np.ndarray:
    """Which rows no other row beats: is at least as low in all columns, and lower in one.

    Args:
        values: (rows, columns) numbers, lower is better.

    Returns:
        (rows,) bool. Equal rows are all in or all out.
    """
    no_worse = (values[:, None, :] <= values[None, :, :]).all(axis=2)
    better = (values[:, None, :] < values[None, :, :]).any(axis=2)
    return np.logical_not((no_worse & better).any(axis=0))


def points(
    collection: Collection, x: Metric, y: Metric, split: str | None = None
) -> tuple[pandas.DataFrame, str, list[str]]:
    """What the last evaluation of each run measured.

    Returns:
        A table with `run_id`, what runs differ in, `x`, `y` (on the questions that choose), `<split>` (y on the
        others), `front` (whether no run beats it) and `dense_x`, `dense_y`; the name of the split that chooses; and a
        line for each run that is left out.

    Raises:
        AnalysisError: No run has both metrics.
    """
    chooses = split or next((each for each in SPLITS if _all_have(collection, (x, y), each)), SPLITS[-1])
    beside = [each for each in SPLITS if each != chooses]
    about = collection.conditions
    lines, gaps = [], []
    for run, condition in zip(collection.runs, about.to_dict("records"), strict=True):
        last, dense = run.last_evaluation, run.dense_evaluation

        def value(metric: Metric, stage: object, split: str, run: object = run) -> float | None:
            row = run.row(stage, metric.name, split) or run.row(stage, metric.name, "")  # type: ignore[attr-defined]
            return None if row is None else row.value

        at = {"x": value(x, last, chooses), "y": value(y, last, chooses)}
        if absent := [each.name for each, found in zip((x, y), at.values(), strict=True) if found is None]:
            gaps.append(f"{run.folder}: has no {' and no '.join(absent)} on {chooses} questions, left out")
            continue
        lines.append(
            {column: condition[column] for column in ("run_id", *FACETS, *LINES, "sparsity", "seed")}
            | at
            | {each: value(y, last, each) for each in beside if run.row(last, y.name, each)}
            | {"dense_x": value(x, dense, chooses), "dense_y": value(y, dense, chooses)}
        )
    if not lines:
        raise AnalysisError(
            "\n".join([*gaps, f"No run has both {x.name} and {y.name}. Look for their names in collect."])
        )
    table = pandas.DataFrame(lines).astype(dict.fromkeys(["x", "y", "dense_x", "dense_y"], float))
    signs = [-1 if each.higher else 1 for each in (x, y)]
    table["front"] = unbeaten(table[["x", "y"]].to_numpy() * signs)
    alike = [each for each in (*FACETS, *LINES, "seed") if table[each].nunique(dropna=False) == 1 and each != "loss"]
    return table.drop(columns=alike).sort_values(["x", "y", "run_id"], ignore_index=True), chooses, gaps


def front(
    collection: Collection, folder: Path, x: Metric, y: Metric, split: str | None = None
) -> tuple[Drawn, list[str]]:
    """Draw all runs and the front, and tell the runs of the front.

    Args:
        collection: The runs.
        folder: Where `pareto_<y>_vs_<x>` .pdf, .png, .svg, .csv (all runs) and .txt (caption) go.
        x: Metric of the x-axis.
        y: Metric of the y-axis.
        split: Questions that choose; None takes selection where all runs were asked, else test.

    Raises:
        AnalysisError: No run has both metrics.
    """
    table, chooses, gaps = points(collection, x, y, split)
    beside = [each for each in SPLITS if each in table]
    caption = _caption(table, x, y, chooses, beside)
    losses = list(
        dict.fromkeys([*(loss for loss in names.LOSSES if loss in set(table["loss"])), *sorted(table["loss"])])
    )
    unknown = [loss for loss in losses if loss not in COLOURS]
    colours = {
        loss: COLOURS.get(loss, SPARE[unknown.index(loss) % len(SPARE)] if unknown else ("", "")) for loss in losses
    }
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN_WIDTH, 1.25 * PANEL_HEIGHT), layout="constrained")
        axes = figure.subplots()
        handles = _draw(axes, table, x, y, colours, beside)
        axes.set_xlabel(_axis(x, chooses))
        axes.set_ylabel(_axis(y, chooses))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        for metric, axis, values in ((x, axes.xaxis, table["x"]), (y, axes.yaxis, table["y"])):
            if not metric.share and values.max() >= 1e4:
                axis.set_major_formatter(EngFormatter(sep=" "))
        figure.legend(
            list(handles.values()), list(handles), loc="outside upper center", ncols=3, frameon=False, columnspacing=1.2
        )
        data = table.drop(columns=["dense_x", "dense_y"]).rename(columns={"x": x.name, "y": f"{y.name}_{chooses}"})
        data = data.rename(columns={each: f"{y.name}_{each}" for each in beside}).dropna(axis="columns", how="all")
        files = save(figure, folder, f"pareto_{y.name}_vs_{x.name}", {"": data}, caption)
    return Drawn(files=files, caption=caption, gaps=tuple(gaps)), _told(table, x, y, chooses, beside)


def _all_have(collection: Collection, metrics: Sequence[Metric], split: str) -> bool:
    """Whether all runs were asked these questions by all metrics that ask any, and by at least one of them."""
    asking = [metric for metric in metrics if any(row.metric == metric.name and row.split for row in _last(collection))]
    return bool(asking) and all(
        run.row(run.last_evaluation, metric.name, split) for metric in asking for run in collection.runs
    )


def _last(collection: Collection) -> list[Row]:
    """The rows of the last evaluations."""
    return [
        row
        for run in collection.runs
        for row in run.record.rows
        if run.last_evaluation is not None and row.stage_index == run.last_evaluation.index
    ]


def _draw(
    axes: Axes,
    table: pandas.DataFrame,
    x: Metric,
    y: Metric,
    colours: dict[str, tuple[str, str]],
    beside: Sequence[str],
) -> dict[str, Artist]:
    """The entries of the legend."""
    scale = {"x": 100 if x.share else 1, "y": 100 if y.share else 1}
    best = table[table["front"]].drop_duplicates(["x", "y"])
    handles: dict[str, Artist] = {}
    # of runs at one x only the better counts, so the front is a staircase: to its corner, then on
    where: Literal["pre", "post"] = "post" if not x.higher else "pre"
    (handles["front"],) = axes.step(
        scale["x"] * best["x"], scale["y"] * best["y"], where=where, color="black", linewidth=0.9, zorder=2
    )
    for loss, (colour, marker) in colours.items():
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
            scale["x"] * dense["dense_x"], scale["y"] * dense["dense_y"], s=60, c="black", marker="*", zorder=5
        )
    return handles


def _axis(metric: Metric, split: str) -> str:
    asked = f" on {split} questions" if metric.asked else ""
    return f"{metric.label}{asked}{' (%)' * metric.share}"


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
    if "tokens_per_second" in (x.name, y.name):
        said.append("Tokens per second were measured with a clock and differ from one time to the next.")
    return " ".join(said)


def _told(table: pandas.DataFrame, x: Metric, y: Metric, chooses: str, beside: Sequence[str]) -> list[str]:
    """The runs of the front as aligned columns."""
    best = table[table["front"]]
    settings = [column for column in (*FACETS, *LINES, "sparsity", "seed") if column in best]
    header = [x.name, f"{y.name} ({chooses})", *(f"({each})" for each in beside), "run", *settings]
    body = [
        [
            _number(x, row["x"]),
            _number(y, row["y"]),
            *(_number(y, row[each]) for each in beside),
            row["run_id"],
            *(f"{row[each]:.4g}" if isinstance(row[each], float) else _short(str(row[each])) for each in settings),
        ]
        for row in best.to_dict("records")
    ]
    widths = [max(len(line[column]) for line in [header, *body]) for column in range(len(header))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [header, *body]
    ]


def _short(text: str) -> str:
    """Settings with the end of each key, and four digits of each number."""
    text = re.sub(r"\b(?:\w+\.)+(\w+\.\w+=)", r"\1", text)
    return re.sub(r"\d*\.\d{4,}(e-?\d+)?", lambda number: f"{float(number[0]):.4g}", text)


def _number(metric: Metric, value: float) -> str:
    if metric.share:
        return f"{100 * value:.1f} %"
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
