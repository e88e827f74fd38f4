"""Criterion x structure in markdown: `python docs/pruning/table.py multirun/pruning_methods`.

A cell has the accuracy (%) without recovery and after it, means over seeds with half the width of their 95 % interval
(t) where seeds differ.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from analysis import names
from analysis.collect import Run, collect
from analysis.curves import measured
from analysis.metrics import ACCURACY
from analysis.statistics import t_interval

Place = tuple[str, str, float]
"""A line's name, the structure and the sparsity."""
NOTHING = "none"
"""The loss of a run without recovery."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sweeps", type=Path, nargs="+")
    collection = collect(parser.parse_args(arguments).sweeps)
    found: dict[Place, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run, variant in zip(collection.runs, collection.run_table["variant"], strict=True):
        value = measured(run, run.last_evaluation, ACCURACY)
        if value is not None:
            place = _row(run, variant), run.choice("structure"), run.sparsity
            found[place][run.choice("loss")].append(100 * value)
    columns = sorted({(structure, sparsity) for _, structure, sparsity in found})
    by_structure = [[column for column in columns if column[0] == structure] for structure in dict(columns)]
    # side by side where each has one sparsity
    wide = len(by_structure) == len(columns)
    tables = [_table(found, each) for each in ([columns] if wide else by_structure)]
    sys.stdout.write("\n\n".join(tables) + "\n")


def _table(found: Mapping[Place, Mapping[str, list[float]]], columns: Sequence[tuple[str, float]]) -> str:
    # the baseline first
    there = {criterion for criterion, structure, sparsity in found if (structure, sparsity) in columns}
    criteria = sorted(there, key=lambda name: (name != "random", name.lower()))
    heads = [f"{names.value('structure', structure)}, {names.spaced(sparsity)}" for structure, sparsity in columns]
    lines = ["| " + " | ".join(["criterion", *heads]) + " |", "| --- |" + " ---: |" * len(heads)]
    for criterion in criteria:
        cells = [_cell(found.get((criterion, *column), {})) for column in columns]
        lines.append("| " + " | ".join([criterion, *cells]) + " |")
    return "\n".join(lines)


def _row(run: Run, variant: str) -> str:
    """The criterion, and what makes the run another one than that with this criterion alone."""
    budget = run.choice("budget")
    told = [names.value("criterion", run.choice("criterion")), f"budget {budget}" * (budget != "units")]
    return ", ".join(filter(None, [*told, names.value("variant", variant)]))


def _cell(by_loss: Mapping[str, list[float]]) -> str:
    losses = sorted(by_loss, key=lambda loss: (loss != NOTHING, loss))
    return " / ".join(_mean(by_loss[loss]) for loss in losses)


def _mean(values: Sequence[float]) -> str:
    mean = math.fsum(values) / len(values)
    if len(values) < 2 or max(values) == min(values):
        return f"{mean:.1f}"
    low, high = t_interval(values)
    return f"{mean:.1f} ± {(high - low) / 2:.1f}"


if __name__ == "__main__":
    main()
