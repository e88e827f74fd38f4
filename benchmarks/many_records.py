"""How long the analysis takes, and how much memory, for very many records.

    python -m benchmarks.many_records multirun/quickstart --runs 10000

The records of a real sweep are written again and again under other seeds, each with the answers to 200 questions after
its last evaluation, into a folder that is removed at the end. Then each command is run as a user would, in a process of
its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pandas

from regraft.records import PREDICTIONS, RECORD

COMMANDS = (
    ("collect",),
    ("figures", "--only", "accuracy_vs_block_sparsity", "criteria", "spread_of_seeds"),
    ("compare", "--factor", "loss", "--a", "kl", "--b", "ce"),
)


def write(source: Path, target: Path, runs: int, questions: int) -> None:
    """Write `runs` records into `target`, copies of those in `source` under seeds of their own."""
    folders = sorted(path.parent for path in source.glob(f"*/{RECORD}"))
    if not folders:
        raise SystemExit(f"{source}: holds no record. Run the sweep first.")
    for number in range(runs):
        original, turn = folders[number % len(folders)], number // len(folders)
        record = json.loads((original / RECORD).read_text(encoding="utf-8"))
        record["run_id"] = f"{number:010}"
        record["config"]["seed"] += 1000 * turn
        record["stages"][-1]["key"] += f"-{turn}"
        folder = target / record["run_id"]
        folder.mkdir(parents=True)
        (folder / RECORD).write_text(json.dumps(record), encoding="utf-8")
        table = pandas.read_parquet(original / PREDICTIONS)
        last = (table["stage_index"] == record["stages"][-1]["index"]) & (table["split"] == "test")
        table[last].head(questions).to_parquet(folder / PREDICTIONS, index=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print one line for each command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many_records", description=__doc__.splitlines()[0])
    parser.add_argument("sweep", type=Path, help="a finished sweep, such as multirun/quickstart")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--questions", type=int, default=200)
    given = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp()) / "many"
    try:
        write(given.sweep, folder, given.runs, given.questions)
        for command in COMMANDS:
            began = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "analysis", command[0], str(folder), *command[1:]],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            seconds = time.perf_counter() - began
            # the largest child so far: the commands stand in the order of what they need
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
            sys.stdout.write(f"{' '.join(command)}: {seconds:.1f} s, at most {peak:.2f} GiB\n")
            sys.stdout.flush()
    finally:
        shutil.rmtree(folder.parent)


if __name__ == "__main__":
    main()
