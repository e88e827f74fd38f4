"""`python -m analysis COMMAND SWEEP...`: the command line of the analysis."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis import collect, comparison, figures, pareto, status, tables


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 2 is returned for what the user can mend, with a message on stderr."""
    given = parser().parse_args(arguments)
    try:
        lines = given.command(given)
    except (collect.AnalysisError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def parser() -> argparse.ArgumentParser:
    """The commands with their help."""
    root = argparse.ArgumentParser(prog="python -m analysis", description="From the records of sweeps to results.")
    commands = root.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, command: object, about: str, epilog: str | None = None) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=about,
            description=about,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.add_argument("sweeps", nargs="+", type=Path, metavar="SWEEP", help="folder of a sweep: multirun/NAME")
        added.set_defaults(command=command)
        return added

    add("status", _status, "Say what became of each run: finished, failed, running, missing; and by which code.")
    columns = f"columns of the table:\n{collect.described_columns()}"
    add("collect", _collect, "Write one tidy table of all numbers: results.parquet and results.csv.", columns)
    table = add("table", _table, "Print accuracy by criterion, loss and sparsity.")
    table.add_argument("--markdown", action="store_true", help="write a Markdown table")
    drawn = add("figures", _figures, "Draw accuracy against sparsity into SWEEP/figures.")
    drawn.add_argument(
        "--x",
        choices=["target", "block", "model"],
        default="block",
        help="sparsity on the x-axis: requested, of the pruned blocks (default), or of the whole model",
    )
    best = add(
        "pareto",
        _pareto,
        "Print the runs that no other run beats in two metrics at once, and draw them into SWEEP/figures.",
        "Runs are chosen by selection questions where they were asked, else by test questions.\n"
        "example: python -m analysis pareto multirun/search --x macs_per_token --y nll",
    )
    best.add_argument("--x", default="parameters", help="metric of the x-axis (default: parameters)")
    best.add_argument("--y", default="accuracy", help="metric of the y-axis (default: accuracy)")
    best.add_argument("--split", choices=pareto.SPLITS, help="questions that choose; the others are shown beside them")
    for axis in ("x", "y"):
        best.add_argument(f"--{axis}-better", choices=["lower", "higher"], help="for a metric that is not known here")
    compared = add(
        "compare",
        _compare,
        "Say what one factor changes, paired by question and seed, and how far the comparison is controlled.",
        "Intervals are 95 %, by paired bootstrap over the questions with the seeds as they are.\n"
        "example: python -m analysis compare multirun/quickstart --factor loss --a kl --b ce",
    )
    compared.add_argument("--factor", required=True, help="a column (loss, criterion, schedule) or dotted config key")
    compared.add_argument("--a", required=True, help="its value in the runs that are counted positive")
    compared.add_argument("--b", required=True, help="its value in the runs that are subtracted")
    return root


def _status(given: argparse.Namespace) -> list[str]:
    return status.told(given.sweeps)


def _collect(given: argparse.Namespace) -> list[str]:
    collection = collect.collect(given.sweeps)
    written = collect.write(collection)
    return [*collection.account(), *(f"table: {path}" for path in written)]


def _table(given: argparse.Namespace) -> list[str]:
    collection = collect.collect(given.sweeps)
    return [tables.accuracy(collection, markdown=given.markdown), "", *collection.account()]


def _figures(given: argparse.Namespace) -> list[str]:
    collection = collect.collect(given.sweeps)
    drawn = figures.accuracy_vs_sparsity(collection, collection.folders[0] / "figures", given.x)
    return [drawn.caption, *drawn.gaps, *collection.account(), *(f"figure: {path}" for path in drawn.files)]


def _pareto(given: argparse.Namespace) -> list[str]:
    collection = collect.collect(given.sweeps)
    x, y = pareto.metric(given.x, given.x_better), pareto.metric(given.y, given.y_better)
    drawn, table = pareto.front(collection, collection.folders[0] / "figures", x, y, given.split)
    files = [f"figure: {path}" for path in drawn.files]
    return [*table, "", drawn.caption, *drawn.gaps, *collection.account(), *files]


def _compare(given: argparse.Namespace) -> list[str]:
    collection = collect.collect(given.sweeps)
    comparisons, alone = comparison.compare(collection, given.factor, given.a, given.b)
    lines = [each.verdict for each in comparisons]
    per_seed = [
        f"  {each.where}: " + ", ".join(f"{100 * value:+.1f}" for value in each.by_seed) for each in comparisons
    ]
    return [*lines, "", "each seed (points):", *per_seed, "", *alone, *collection.account()]


if __name__ == "__main__":
    sys.exit(main())
