"""A sweep on Slurm; `make test-slurm` starts one."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from launched import SWEEP, command, environment, finished, in_process, regraft, rows
from runs.conftest import BRIEF, records

pytestmark = pytest.mark.slurm
pytest.importorskip("submitit")

BRIEF = tuple(override for override in BRIEF if not override.startswith("recovery.steps"))
Start = Callable[..., subprocess.Popen[str]]
SHORT, LONG = 4, 200
"""Recovery steps of a run that ends at once, and of one that leaves time to interfere."""


def slurm(*arguments: str) -> str:
    return subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=30).stdout


@pytest.fixture(autouse=True)
def cluster() -> None:
    try:
        slurm("sinfo")
    except (OSError, subprocess.SubprocessError):
        pytest.skip("no Slurm here: make test-slurm")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(folder, ...)` starts a sweep that goes on in the background; the test's end ends it and its jobs."""
    started = []

    def call(folder: Path, *arguments: str) -> subprocess.Popen[str]:
        log = tmp_path / f"told_{len(started)}.txt"
        with log.open("w") as told:
            started.append(
                subprocess.Popen(
                    command("-m", "hydra/launcher=slurm", *arguments),
                    cwd=folder,
                    env=environment(folder),
                    stdout=told,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        return started[-1]

    yield call
    for process in started:
        process.kill()
        process.wait()
    slurm("scancel", "--quiet", "--user=root")


def end(process: subprocess.Popen[str], tmp_path: Path) -> tuple[int, str]:
    """The exit code of the sweep that `start` started, and what it said."""
    code = process.wait(timeout=200)
    return code, (tmp_path / "told_0.txt").read_text()


def wait(what: Callable[[], object], seconds: float = 200) -> None:
    """Until `what` is true."""
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.2)


def running(name: str) -> list[str]:
    """Ids of the running jobs of a sweep, as ARRAY_INDEX."""
    return slurm("squeue", "--noheader", "--array", "--states=running", f"--name={name}", "--format=%F_%K").split()


def in_recovery(folder: Path, sweep: str) -> str:
    """The id of the long run, once the short one has ended, which began with the same stages."""
    wait(lambda: len(records(folder / "multirun" / sweep)) == 1)
    wait(lambda: len(running(f"regraft-{sweep}")) == 1)
    (job,) = running(f"regraft-{sweep}")
    return job


def test_slurm_leaves_what_one_process_leaves_and_runs_no_more_at_once_than_told(tmp_path: Path, start: Start) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    expected = in_process(tmp_path / "here")
    process = start(tmp_path / "there", "hydra.launcher.array_parallelism=2", "sweep=there", *SWEEP)
    at_once = set()
    while process.poll() is None:
        at_once.add(len(running("regraft-there")))
        time.sleep(0.2)
    code, told = end(process, tmp_path)
    assert code == 0, told
    assert rows(tmp_path / "there", "there") == expected
    assert max(at_once) == 2
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}
    again = regraft(tmp_path / "there", "-m", "hydra/launcher=slurm", "sweep=there", *SWEEP)
    assert again.returncode == 0, again.stderr
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}


def test_a_failing_run_leaves_the_others_finished(tmp_path: Path, start: Start) -> None:
    doomed = ["loss=none,ce,kl", "recovery.learning_rate=1e30", f"recovery.steps={SHORT}"]
    process = start(tmp_path, *doomed, "sweep=bad", *BRIEF)
    code, told = end(process, tmp_path)
    assert code == 1
    assert "diverged" in told
    status = {record.choices["loss"]: record.status for record in records(tmp_path / "multirun" / "bad")}
    assert status == {"none": "finished", "ce": "failed", "kl": "failed"}


def test_a_run_killed_outright_runs_once_more(tmp_path: Path, start: Start) -> None:
    """Also where Slurm keeps no accounts, so that only the job itself can tell that it is gone."""
    process = start(tmp_path, "loss=ce", f"recovery.steps={SHORT},{LONG}", "sweep=killed", *BRIEF)
    job = in_recovery(tmp_path, "killed")
    slurm("scancel", "--signal=KILL", f"{job}.0")
    code, told = end(process, tmp_path)
    assert code == 0, told
    assert "its process ended; it runs once more, alone" in told
    assert len(finished(tmp_path, "killed")) == 2


@pytest.mark.parametrize("how", ["preempted", "requeued"])
def test_a_run_put_back_into_the_queue_finishes(tmp_path: Path, start: Start, how: str) -> None:
    """By the signal that Slurm sends before it takes a node away, and by hand, as after the failure of a node."""
    process = start(tmp_path, "loss=ce", f"recovery.steps={SHORT},{LONG}", f"sweep={how}", *BRIEF)
    job = in_recovery(tmp_path, how)
    slurm("scancel", "--signal=USR2", f"{job}.0") if how == "preempted" else slurm("scontrol", "requeue", job)
    wait(lambda: not running(f"regraft-{how}"))
    # Slurm would let it wait for two minutes, and says so a moment after it has put it back
    for _ in range(20):
        slurm("scontrol", "update", f"jobid={job}", "starttime=now")
        time.sleep(0.5)
        if running(f"regraft-{how}") or process.poll() is not None:
            break
    code, told = end(process, tmp_path)
    assert code == 0, told
    assert len(finished(tmp_path, how)) == 2
    (log,) = (tmp_path / "multirun" / how / ".slurm").glob("*/*_1_0_log.out")
    assert log.read_text().count("Starting with JobEnvironment") == 2
