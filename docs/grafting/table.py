"""Losses or regimes x sparsities as one table, in markdown: `python docs/grafting/table.py multirun/grafting_methods`.

A cell has the mean accuracy (%) over seeds and its difference (points) with the 95 % interval, paired by question and
seed: from cross-entropy on labels, or, where no run has that, from the same loss on the recovery questions. Bold:
p < 0.05 after Holm over all differences of the table.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from analysis import names
from analysis.collect import AnalysisError, Run, collect
from analysis.comparison import differences, replicates
from analysis.crossed import Estimate, estimate
from analysis.curves import FACETS, LINES, differ, measured
from analysis.metrics import ACCURACY
from analysis.statistics import LEVEL, holm

REFERENCES = {"loss": "ce", "batch_source": "questions"}
"""Column -> its value in the lines from which others are subtracted, by the first of these that some run has."""
METHOD = ("loss", "teacher", "batch_source", "variant")
"""Columns that make a method of recovery."""
PANEL = tuple(column for column in (*FACETS, *LINES) if column not in METHOD)
"""Columns whose values have lines of their own, each with its own reference."""

Line = tuple[tuple[str, ...], tuple[str, ...]]
"""Panel and method."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sweeps", type=Path, nargs="+")
    collection = collect(parser.parse_args(arguments).sweeps)
    table = collection.conditions()
    cells: dict[tuple[Line, float], dict[int, Run]] = defaultdict(dict)
    for run, condition in zip(collection.runs, table.to_dict("records"), strict=True):
        line = tuple(tuple(str(condition[column]) for column in columns) for columns in (PANEL, METHOD))
        cells[(line[0], line[1]), run.sparsity][run.seed] = run
    present = set(table["loss"])
    column = "loss" if REFERENCES["loss"] in present else "batch_source"
    found = {place: _difference(runs, _reference(cells, *place, column)) for place, runs in cells.items()}
    tested = {place: interval.p for place, (_, interval) in found.items() if interval}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    sparsities = sorted({sparsity for _, sparsity in cells})
    panels = [column for column in PANEL if column == "criterion" or differ(table, column)]
    methods = [column for column in METHOD if column == "loss" or differ(table, column)]
    columns = [names.COLUMNS.get(each, each) for each in (*panels, *methods)]
    heads = [*columns, *map(names.spaced, sparsities)]
    lines = [
        "| " + " | ".join(heads) + " |",
        "| " + " | ".join(["---"] * (len(heads) - len(sparsities)) + ["---:"] * len(sparsities)) + " |",
    ]
    for line in sorted({line for line, _ in cells}, key=_rank):
        about = dict(zip((*PANEL, *METHOD), (*line[0], *line[1]), strict=True))
        texts = [names.value(column, about[column]) for column in (*panels, *methods)]
        for sparsity in sparsities:
            place = line, sparsity
            claimed = adjusted.get(place, 1.0) < 1 - LEVEL
            texts.append(_cell(cells[place], *found[place], claimed) if place in found else "")
        lines.append("| " + " | ".join(texts) + " |")
    sys.stdout.write("\n".join(lines) + "\n")


def _reference(
    cells: Mapping[tuple[Line, float], dict[int, Run]], line: Line, sparsity: float, column: str
) -> dict[int, Run]:
    """The runs that are subtracted from a line: of its panel those that `REFERENCES` names, of one method.

    Where batches are compared, they have the line's loss and teacher.
    """
    panel, method = line
    reference, place = REFERENCES[column], METHOD.index(column)
    if method[place] == reference:
        return {}
    there = [
        runs
        for ((its, of), at), runs in cells.items()
        if (its, at, of[place]) == (panel, sparsity, reference) and (column == "loss" or of[:place] == method[:place])
    ]
    if len(there) > 1:
        raise AnalysisError(
            f"{reference} was run in {len(there)} ways at sparsity {sparsity:g}, so it is not known what to subtract. "
            "Give sweeps in which it was run in one."
        )
    return there[0] if there else {}


def _difference(runs: Mapping[int, Run], reference: Mapping[int, Run]) -> tuple[float | None, Estimate | None]:
    """Mean difference from the reference over the seeds that both have, and its interval where there is one."""
    pairs = [(runs[seed], reference[seed]) for seed in sorted(runs.keys() & reference.keys())]
    if not pairs:
        return None, None
    told = differences(replicates(pairs))
    return float(told.mean()), estimate(told) if len(pairs) > 1 else None


def _cell(runs: Mapping[int, Run], difference: float | None, interval: Estimate | None, claimed: bool) -> str:
    values = [measured(run, run.last_evaluation, ACCURACY) for run in runs.values()]
    known = [value for value in values if value is not None]
    text = ACCURACY.number(math.fsum(known) / len(known)) if known else ""
    if difference is None:
        return text
    told = names.signed(100 * difference)
    if claimed:
        told = f"**{told}**"
    if interval is not None:
        told += f" [{names.signed(100 * interval.low)}, {names.signed(100 * interval.high)}]"
    return f"{text} ({told})"


def _rank(line: Line) -> tuple[tuple[float, str], ...]:
    panel, method = line
    return tuple(
        names.rank(column, choice) for column, choice in zip((*PANEL, *METHOD), (*panel, *method), strict=True)
    )


if __name__ == "__main__":
    main()
