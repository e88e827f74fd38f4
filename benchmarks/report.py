"""How large the report of many runs is, and how soon a browser shows it.

    python -m benchmarks.report multirun/quickstart --runs 500

The runs of a real sweep are written again and again under other seeds, with their training curves and with answers of
which some are changed at random, into a folder that is removed at the end. The page is made of them as `report` makes
it, without the figures, and opened in headless Chromium: until it can be read, and until its first chart is drawn.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import pandas

from analysis import tables
from analysis.collect import collect
from analysis.curves import main_axis, points
from analysis.report import content, findings, page
from analysis.report.browser import chromium
from regraft.records import PREDICTIONS, RECORD, TRAINING

TEXT = "Which of these would somebody who has read a sentence of about this length take for the answer to question {}?"
CHANGED = 0.05
"""Share of the answers that are changed, so that no two runs are alike."""


def write(source: Path, target: Path, runs: int) -> None:
    """Write `runs` runs into `target`, copies of those in `source` under seeds of their own, and texts of questions."""
    folders = sorted(path.parent for path in source.glob(f"*/{RECORD}"))
    if not folders:
        raise SystemExit(f"{source}: holds no record. Run the sweep first.")
    asked: set[str] = set()
    for number in range(runs):
        original, turn = folders[number % len(folders)], number // len(folders)
        record = json.loads((original / RECORD).read_text(encoding="utf-8"))
        record["run_id"] = f"{number:010}"
        record["config"]["seed"] += 1000 * turn
        record["stages"][-1]["key"] += f"-{turn}"
        record["stages"][-1]["details"]["questions"] = "0"
        folder = target / record["run_id"]
        folder.mkdir(parents=True)
        (folder / RECORD).write_text(json.dumps(record), encoding="utf-8")
        table = pandas.read_parquet(original / PREDICTIONS)
        noise = np.random.default_rng(number)
        changed = (noise.random(len(table)) < CHANGED) & (table["stage_index"] == record["stages"][-1]["index"])
        table.loc[changed, "predicted"] = noise.integers(0, 4, int(changed.sum()))
        table.to_parquet(folder / PREDICTIONS, index=False)
        asked.update(table[table["split"] == "test"]["id"])
        if (original / TRAINING).exists():
            shutil.copy(original / TRAINING, folder)
    ids = sorted(asked)
    texts = pandas.DataFrame({"split": "test", "id": ids, "question": [TEXT.format(name) for name in ids]})
    texts["choices"] = [[f"the {order} choice" for order in ("first", "second", "third", "fourth", "fifth")]] * len(ids)
    (target / "questions").mkdir()
    texts.to_parquet(target / "questions" / "0.parquet", index=False)


def opened(path: Path, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds from the request until the page can be read, and until its first chart is drawn; each in a fresh tab."""
    readable, drawn = [], []
    with chromium() as browser:
        for _ in range(repeats):
            tab = browser.new_page()
            began = time.perf_counter()
            tab.goto(path.as_uri(), wait_until="domcontentloaded")
            readable.append(time.perf_counter() - began)
            tab.wait_for_selector("#chart[data-drawn]")
            drawn.append(time.perf_counter() - began)
            tab.close()
    return sorted(readable), sorted(drawn)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print one line for each thing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__.splitlines()[0])
    parser.add_argument("sweep", type=Path, help="a finished sweep, such as multirun/quickstart")
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5, help="how often the page is opened")
    given = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp()) / "many"
    try:
        write(given.sweep, folder, given.runs)
        began = time.perf_counter()
        collection = collect([folder])
        table = tables.of(collection, points(collection, x=main_axis(collection)))
        text = page.written(content(collection, table, findings.pairs(collection), {}, {}))
        made = time.perf_counter() - began
        path = folder / "report.html"
        path.write_text(text, encoding="utf-8")
        questions = len(pandas.read_parquet(folder / "questions" / "0.parquet"))
        sys.stdout.write(f"{given.runs:,} runs x {questions:,} questions\n")
        sys.stdout.write(f"made in {made:.1f} s, {path.stat().st_size / 1e6:.1f} MB\n")
        for what, seconds in zip(("read", "first chart"), opened(path, given.repeats), strict=True):
            sys.stdout.write(f"{what}: {median(seconds):.2f} s ({seconds[0]:.2f} to {seconds[-1]:.2f})\n")
    finally:
        shutil.rmtree(folder.parent)


if __name__ == "__main__":
    main()
