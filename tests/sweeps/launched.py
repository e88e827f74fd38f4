"""The sweep that must leave the same numbers whichever launcher starts its runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from runs.conftest import BRIEF, numbers, records

from regraft.records import Record

SWEEP = ("sparsity=0.25,0.5", "loss=ce,kl", "seed=0,1", "task.test_relations=1", *BRIEF)
"""Eight short runs."""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "regraft", *arguments]


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """An own cache, so that no launcher finds the work of another done; nothing that decides threads."""
    inherited = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    return inherited | {"REGRAFT_CACHE": str(folder / "cache"), "RAY_USAGE_STATS_ENABLED": "0"} | variables


def regraft(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`regraft ...` in `folder`, to its end."""
    return subprocess.run(
        command(*arguments),
        cwd=folder,
        env=environment(folder, **variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )


def finished(folder: Path, sweep: str) -> dict[str, Record]:
    """The records of a sweep by run id, all of them finished."""
    found = {record.run_id: record for record in records(folder / "multirun" / sweep)}
    assert {record.status for record in found.values()} <= {"finished"}
    return found


def rows(folder: Path, sweep: str) -> dict[str, list[tuple]]:
    """The deterministic rows of each of the eight runs, by run id."""
    found = {name: numbers(record) for name, record in finished(folder, sweep).items()}
    assert len(found) == 8
    return found


def in_process(folder: Path) -> dict[str, list[tuple]]:
    """What the eight runs leave, one after another in one process."""
    result = regraft(folder, "-m", "hydra/launcher=in_process", "sweep=in_process", *SWEEP)
    assert result.returncode == 0, result.stderr
    return rows(folder, "in_process")
