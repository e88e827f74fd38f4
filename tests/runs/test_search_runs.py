"""Searches through the command line, on short runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import BRIEF, Regraft, records

from analysis.__main__ import main as analysis
from regraft.sweeps.journal import STUDY, measured, storage

OBJECTIVES = "hydra.sweeper.objectives={selection/dense_agreement:maximize,parameters:minimize}"
SEARCH = (
    "-m",
    "hydra/sweeper=search",
    *BRIEF,
    OBJECTIVES,
    "evaluation.splits=[selection,test]",
    "task.selection_size=64",
    "task.test_relations=1",
    "pruner/allocation=per_layer",
    "sparsity=interval(0.2,0.9)",
    "+pruner.allocation.weights.0=interval(0,1)",
    "loss=none,kl",
    "hydra.sweeper.n_trials=6",
    "hydra.sweeper.batch=2",
)


def trials(sweep: Path) -> list[tuple[str, dict[str, Any], list[float] | None]]:
    """State, point and values of each trial in a sweep's journal."""
    import optuna

    study = optuna.load_study(study_name=STUDY, storage=storage(sweep / "search" / "journal.log"))
    return [(trial.state.name, trial.params, trial.values) for trial in study.trials]


def dominates(one: dict[str, float | None], other: dict[str, float | None]) -> bool:
    pairs = [
        (one["selection/dense_agreement"], other["selection/dense_agreement"]),
        (other["parameters"], one["parameters"]),
    ]
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)  # type: ignore[operator]


@pytest.fixture
def searching(shared_cache: Path, tmp_path: Path) -> Callable[[str], subprocess.Popen[bytes]]:
    """Starts `SEARCH` in a process of its own."""
    environment = os.environ | {"REGRAFT_CACHE": str(shared_cache), "OMP_NUM_THREADS": "1"}

    def call(sweep: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "regraft", *SEARCH, f"sweep={sweep}"]
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=quiet, stderr=quiet)

    return call


Searching = Callable[[str], subprocess.Popen[bytes]]


def kill_when(process: subprocess.Popen[bytes], number: int, sweep: Path) -> None:
    """SIGKILL as soon as the sweep has so many records."""
    while len(list(sweep.glob("*/record.json"))) < number:
        assert process.poll() is None, "ended before it was killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_two_search_at_once_and_one_is_killed(
    regraft: Regraft, searching: Searching, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = tmp_path / "multirun" / "shared"
    killed, other = searching("shared"), searching("shared")
    kill_when(killed, 1, sweep)
    assert other.wait(timeout=200) == 0
    found = trials(sweep)
    assert [state for state, _, _ in found] == ["COMPLETE"] * 6
    assert len({str(point) for _, point, _ in found}) == 6
    runs = records(sweep)
    assert len(runs) == 6
    for record in runs:
        # shares differ by layer, the total is the sparsity that was asked for
        (share,) = {row.block_sparsity for row in record.rows if row.stage_index == record.stages[-1].index}
        assert abs(share - record.config["sparsity"]) <= 0.5 / (4 * 512)  # type: ignore[operator]
    assert any(len(set(record.stages[2].details["removed"]["mlp_neurons"])) > 1 for record in runs)

    times = {path: path.stat().st_mtime_ns for path in sweep.glob("*/record.json")}
    # the order on the command line decides nothing
    again = regraft(*SEARCH[:2], *reversed(SEARCH[2:]), "sweep=shared")
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in times} == times, "a finished run was run again"
    front = {one.run_id for one in runs if not any(dominates(measured(two), measured(one)) for two in runs)}
    told = again.stdout.split("Pareto front")[1]
    assert {record.run_id for record in runs if record.run_id in told} == front
    assert analysis(["pareto", str(sweep), "--y", "dense_agreement"]) == 0
    told = capsys.readouterr().out
    assert {record.run_id for record in runs if record.run_id in told} == front
    changed = regraft(*SEARCH, "sweep=shared", "recovery.steps=5")
    assert changed.returncode == 1 and "recovery.steps was 4, is 5" in changed.stderr
    assert trials(sweep) == found


@pytest.mark.slow
def test_a_search_killed_three_times_ends_as_one_that_was_not(
    regraft: Regraft, searching: Searching, tmp_path: Path
) -> None:
    whole = regraft(*SEARCH, "sweep=whole")
    assert whole.returncode == 0, whole.stderr
    for number in (1, 3, 4):
        kill_when(searching("killed"), number, tmp_path / "multirun" / "killed")
    last = regraft(*SEARCH, "sweep=killed")
    assert last.returncode == 0, last.stderr
    assert trials(tmp_path / "multirun" / "killed") == trials(tmp_path / "multirun" / "whole")


def test_failed_runs_are_failed_trials_and_hopeless_ones_are_stopped(regraft: Regraft, tmp_path: Path) -> None:
    search = [
        *("-m", "hydra/sweeper=search", "sweep=rates", *BRIEF, "hydra.sweeper.n_trials=30"),
        *("task.test_relations=1", "hydra.sweeper.watch={recover/loss:minimize}"),
        *("hydra.sweeper.pruner=median", "hydra.sweeper.every=1", "hydra.sweeper.warmup=1"),
        "recovery.learning_rate=0.001,1e30,0.5,1e-05",
    ]
    result = regraft(*search, "hydra.sweeper.objectives={test/lln:minimize}")
    assert result.returncode == 1
    assert "hydra.sweeper.objectives.test/lln: is not in the record, which has bytes" in result.stderr
    assert "test/nll" in result.stderr
    result = regraft(*search, "hydra.sweeper.objectives={test/nll:minimize}")
    assert result.returncode == 1
    assert (
        "trials failed; the same command tries them again:\n  recovery.learning_rate=1e+30: loss=nan" in result.stderr
    )
    assert "Traceback" not in result.stderr
    states = {point["recovery.learning_rate"]: state for state, point, _ in trials(tmp_path / "multirun" / "rates")}
    assert states["1e+30"] == "FAIL"
    found = records(tmp_path / "multirun" / "rates")
    assert len(found) == 4, "each point once"
    stopped = [record for record in found if (record.error or "").startswith("stopped by the search: recover/loss=")]
    assert len(stopped) == sum(state == "PRUNED" for state in states.values()) >= 1
    assert {record.status for record in stopped} == {"failed"}
    # what watches a run is no part of it
    assert not any("REGRAFT_TRIAL" in str(record.config) for record in found)


MISTAKES = [
    (["sparsity=interval(0.1,0.9)"], "hydra.sweeper.objectives={}: must be at least one metric"),
    ([OBJECTIVES], "there is nothing to search"),
    (
        [OBJECTIVES, "sparsity=0.1,0.2"],
        "objectives.selection/dense_agreement: must be of a split that is evaluated, test.",
    ),
    (["hydra.sweeper.objectives={parameters:minimize}", "sparsity=interval(0,1)"], "sparsity=1.0: must be"),
    (["hydra.sweeper.objectives={parameters:minimize}", "loss=kl,kll"], "Could not find 'loss/kll'"),
    (["hydra.sweeper.objectives={parameters:minimize}", "loss=kl,ce", "hydra.sweeper.n_trials=0"], "n_trials=0"),
    ([OBJECTIVES, "evaluation.splits=[selection]", "loss=kl,ce", "hydra.sweeper.pruner=median"], "2 objectives"),
    (["+hydra.sweeper.trials=3", "loss=kl,ce"], "hydra.sweeper.trials=3: must be one of objectives, n_trials"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_mistakes_are_said_at_once_and_nothing_is_written(
    regraft: Regraft, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = regraft("-m", "hydra/sweeper=search", *arguments)
    assert result.returncode == 1
    assert message in result.stderr and "Traceback" not in result.stderr
    assert not list(tmp_path.rglob("*"))
