"""What a sweep makes of what its launcher says, with launchers made up."""

from __future__ import annotations

import importlib
import pickle
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from regraft import interruption
from regraft.records import BEGUN, Record
from regraft.sweeps.failures import RunBusy, RunKilled, SweepFailed
from regraft.sweeps.jobs import Job
from regraft.sweeps.killed import answer


def leave(folder: Path, error: str | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / BEGUN).unlink(missing_ok=True)
    status: Any = "finished" if error is None else "failed"
    empty: dict[str, Any] = {"config": {}, "choices": {}, "environment": {}, "stages": [], "rows": []}
    Record(run_id=folder.name, sweep="s", status=status, error=error, **empty).save(folder)


def begin(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / BEGUN).touch()


def result(error: Exception | None = None) -> JobReturn:
    made = JobReturn(status=JobStatus.FAILED if error else JobStatus.COMPLETED)
    made.return_value = error
    return made


Launch = Callable[[list[str]], list[JobReturn]]


class Sweep:
    """A sweeper with a launcher that does for the n-th launch what the n-th of `launches` says."""

    def __init__(self, folder: Path, *launches: Launch) -> None:
        self.folder, self.launches = folder, list(launches)
        self.launched: list[list[str]] = []
        # Hydra's search for plugins runs their modules again: what was imported before is another class then
        self.sweeper = importlib.import_module("hydra_plugins.regraft_sweeper.runs").RunsSweeper(max_batch_size=None)
        self.sweeper.launcher = self  # type: ignore[assignment]
        composed = OmegaConf.create(
            {"evaluate": None, "hydra": {"runtime": {"choices": {}}, "overrides": {"task": []}}}
        )
        self.sweeper._composer = SimpleNamespace(whole=lambda overrides: composed)  # type: ignore[assignment]

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        names = [overrides[0] for overrides in job_overrides]
        self.launched.append(names)
        return self.launches.pop(0)(names)

    def run(self, *names: str) -> dict[str, str]:
        return self.sweeper._run([Job((name,), name, self.folder / name, None) for name in names])


def finish(folder: Path) -> Launch:
    def launch(names: list[str]) -> list[JobReturn]:
        for name in names:
            leave(folder / name, None)
        return [result() for _ in names]

    return launch


def test_a_launcher_that_loses_its_jobs_gets_the_rest_again_and_the_killed_alone(tmp_path: Path) -> None:
    def lose(names: list[str]) -> list[JobReturn]:
        leave(tmp_path / "a", None)
        begin(tmp_path / "b")
        leave(tmp_path / "c", "diverged")
        raise RuntimeError("a worker died")

    sweep = Sweep(tmp_path, lose, finish(tmp_path), finish(tmp_path))
    assert sweep.run("a", "b", "c", "d") == {"c": "diverged"}
    assert sweep.launched == [["a", "b", "c", "d"], ["b"], ["d"]]


def test_a_run_whose_process_ends_twice_fails_and_says_why(tmp_path: Path) -> None:
    def die(names: list[str]) -> list[JobReturn]:
        begin(tmp_path / "a")
        raise RuntimeError("exit code SIGKILL(-9)")

    sweep = Sweep(tmp_path, die, die, finish(tmp_path))
    errors = sweep.run("a", "b")
    assert "ended twice" in errors["a"] and "SIGKILL(-9)" in errors["a"]
    assert Record.load(tmp_path / "a").error == errors["a"]
    assert sweep.launched == [["a", "b"], ["a"], ["b"]]


def test_a_job_that_slurm_says_was_killed_runs_once_more(tmp_path: Path) -> None:
    def told(names: list[str]) -> list[JobReturn]:
        leave(tmp_path / "b", None)
        answer(tmp_path / "7_0_result.pkl", "Slurm job 7 was killed (exit code 137)")
        outcome, value = pickle.loads((tmp_path / "7_0_result.pkl").read_bytes())
        assert outcome == "success" and isinstance(value._return_value, RunKilled)
        return [value, result()]

    sweep = Sweep(tmp_path, told, finish(tmp_path))
    assert sweep.run("a", "b") == {}
    assert sweep.launched == [["a", "b"], ["a"]]


def test_what_another_process_does_is_waited_for_and_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = {"a", "b"}
    monkeypatch.setattr(Job, "is_running", property(lambda job: job.run_id in running))
    monkeypatch.setattr("time.sleep", lambda seconds: elsewhere())

    def elsewhere() -> None:
        running.clear()
        leave(tmp_path / "a", None)
        leave(tmp_path / "b", "bad data")

    sweep = Sweep(tmp_path, finish(tmp_path))
    assert sweep.run("a", "b", "c") == {"b": "bad data"}
    assert sweep.launched == [["c"]]


def test_a_run_that_is_busy_when_it_is_reached_comes_later(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, lambda names: [result(RunBusy("busy"))], finish(tmp_path))
    assert sweep.run("a") == {}


def test_an_error_before_the_run_could_begin_is_in_a_record_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    sweep = Sweep(tmp_path, lambda names: [result(OSError("no such device"))])
    assert sweep.run("a") == {"a": "no such device"}
    assert Record.load(tmp_path / "a").status == "failed"


def test_a_launcher_that_starts_nothing_ends_the_sweep(tmp_path: Path) -> None:
    def refuse(names: list[str]) -> list[JobReturn]:
        raise FileNotFoundError("sbatch")

    with pytest.raises(SweepFailed, match=r"the launcher started nothing \(FileNotFoundError: sbatch\)"):
        Sweep(tmp_path, refuse).run("a", "b")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_nobody_can_be_handed_leaves_the_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """As with Slurm, whose jobs are no children: else nothing would end the waiting."""
    monkeypatch.setattr(interruption._State, "told", None)
    own = signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler
    before = signal.signal(number, own)  # whoever runs the tests may have it ignored

    def wait(names: list[str]) -> list[JobReturn]:
        signal.raise_signal(number)
        pytest.fail("goes on waiting")

    try:
        with pytest.raises(interruption.Stopped):
            Sweep(tmp_path, wait).run("a")
        assert signal.getsignal(number) is own
    finally:
        signal.signal(number, before)
