"""A run that fails takes nothing with it: no other run, no memory."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from conftest import BRIEF, Regraft, records

FAULTY = ["--config-dir", str(Path(__file__).parents[1] / "faulty"), "pruner/criterion=faulty"]
TOLD = {
    "not_a_number": "training diverged",
    "exception": "the seventh layer",
    "memory": "out of memory:",
    "killed": "killed: the process of this run ended twice, most likely for lack of memory",
}


def check(regraft: Regraft, folder: Path, fault: str, runs: int) -> None:
    """One run of the sweep fails by `fault`, the others finish, and the user is told."""
    sweep = ["-m", *FAULTY, f"pruner.criterion.fault={fault}", "loss=ce", f"seed=range({runs})", f"sweep={fault}"]
    result = regraft(*sweep, "hydra/launcher=two_processes", *BRIEF)
    assert result.returncode == 1, result.stderr
    found = records(folder / "multirun" / fault)
    (failed,) = [record for record in found if record.status == "failed"]
    assert len(found) == runs and failed.config["seed"] == 0
    assert TOLD[fault] in (failed.error or "")
    assert f"1 of {runs} runs failed" in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if failed.run_id in line]
    assert "seed=0" in line and TOLD[fault].split(":")[0] in line
    assert "Traceback" not in result.stderr
    if fault == "memory":
        assert "GiB at most, of" in (failed.error or "") and failed.environment["peak_memory_bytes"] > 2**27
    if fault != "killed":
        assert "Traceback" in (failed.error or "")


@pytest.mark.parametrize("fault", ["memory", "killed"])
def test_the_others_finish(regraft: Regraft, tmp_path: Path, fault: str) -> None:
    check(regraft, tmp_path, fault, runs=4)


@pytest.mark.slow
@pytest.mark.parametrize("fault", sorted(TOLD))
def test_one_in_ten_fails_and_nine_finish(regraft: Regraft, tmp_path: Path, fault: str) -> None:
    check(regraft, tmp_path, fault, runs=10)


def test_a_run_whose_worker_died_once_runs_again(regraft: Regraft, tmp_path: Path) -> None:
    sweep = ["-m", *FAULTY, "pruner.criterion.fault=killed_once", "loss=none", "seed=range(3)", "sweep=once"]
    result = regraft(*sweep, "hydra/launcher=two_processes", *BRIEF)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "killed").exists()
    assert [record.status for record in records(tmp_path / "multirun" / "once")] == ["finished"] * 3


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory that Linux accounts")
def test_fifty_failures_leave_no_memory_behind(regraft: Regraft, tmp_path: Path) -> None:
    """All in one process, each of them with a model in hand when it fails."""
    sweep = ["-m", *FAULTY, "pruner.criterion.fault=exception", "+pruner.criterion.every=1", "loss=none"]
    result = regraft(*sweep, "seed=range(50)", "sweep=fifty", *BRIEF)
    assert "50 of 50 runs failed" in result.stderr
    folder = tmp_path / "multirun" / "fifty"
    found = sorted(records(folder), key=lambda record: (folder / record.run_id / "record.json").stat().st_mtime_ns)
    by_time = [record.environment["peak_memory_bytes"] for record in found]
    assert len(by_time) == 50
    assert max(by_time[40:]) - max(by_time[5:15]) < 10 * 2**20, by_time
