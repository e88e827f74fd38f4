"""Runs and sweeps that are killed, told to stop, or done by two processes at once."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pandas
import pytest
from conftest import BRIEF, Regraft, numbers, records
from processes_apart import start, wait_for
from safetensors import safe_open

from regraft.records import Manifest, is_running, was_killed

LONG = [override for override in BRIEF if not override.startswith(("recovery.", "evaluation."))]
"""As brief, but for what makes it long enough to be stopped: steps of recovery, questions of evaluation."""


def kill(process: subprocess.Popen[str]) -> None:
    """The process and its workers, at once."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def folders(sweep: Path) -> list[Path]:
    return [path for path in sweep.iterdir() if path.is_dir()] if sweep.is_dir() else []


def kept_steps(cache: Path) -> list[int]:
    """The step that each training was kept at."""
    steps = []
    for path in (cache / "progress").glob("*.safetensors"):
        with safe_open(path, framework="pt") as opened:
            steps.append(json.loads(opened.metadata()["about"])["step"])
    return steps


def training(folder: Path) -> pandas.DataFrame:
    (path,) = folder.glob("*/training.parquet")
    return pandas.read_parquet(path)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_run_that_ends_in_the_middle_of_recovery_goes_on_there(
    regraft: Regraft, tmp_path: Path, warm_cache: Path, how: signal.Signals
) -> None:
    cache = warm_cache
    run = ["loss=kl", "sparsity=0.6", "recovery.steps=60", "runtime.checkpoint_steps=10", *LONG]
    process = start(tmp_path, cache, *run, "sweep=halved")
    wait_for(lambda: max(kept_steps(cache), default=0) >= 20, process)
    os.kill(process.pid, how)
    told = process.communicate(timeout=60)[0]
    (folder,) = folders(tmp_path / "multirun" / "halved")
    assert not (folder / "record.json").exists()
    assert was_killed(folder) == (how == signal.SIGKILL)
    if how != signal.SIGKILL:
        assert process.returncode == 128 + how
        assert "the same command goes on from here" in told and "Traceback" not in told
    (step,) = kept_steps(cache)
    assert 20 <= step < 60
    again = regraft(*run, "sweep=halved", REGRAFT_CACHE=str(cache))
    assert again.returncode == 0, again.stderr
    whole = regraft(*run, "sweep=whole")
    assert whole.returncode == 0, whole.stderr
    (one,), (other,) = records(tmp_path / "multirun" / "halved"), records(tmp_path / "multirun" / "whole")
    assert numbers(one) == numbers(other)
    assert [stage.fingerprints for stage in one.stages] == [stage.fingerprints for stage in other.stages]
    pandas.testing.assert_frame_equal(
        training(tmp_path / "multirun" / "halved"), training(tmp_path / "multirun" / "whole"), check_exact=True
    )
    assert not list((cache / "progress").iterdir()), "progress stays after the run"


def test_after_training_a_killed_run_does_not_train_again(regraft: Regraft, tmp_path: Path, warm_cache: Path) -> None:
    cache = warm_cache
    run = ["loss=ce", "sparsity=0.6", "recovery.steps=30", "sweep=late", *LONG]
    process = start(tmp_path, cache, *run)
    wait_for(lambda: kept_steps(cache) == [30], process)
    kill(process)
    (kept,) = (cache / "progress").glob("*.safetensors")
    broken = tmp_path / "broken"
    broken.mkdir()
    # whoever makes a step now fails
    (broken / "sitecustomize.py").write_text(
        "import torch\n"
        "def fail(*arguments, **keywords):\n    raise AssertionError('trains again')\n"
        "torch.optim.AdamW.step = fail\n"
    )
    again = regraft(*run, REGRAFT_CACHE=str(cache), PYTHONPATH=str(broken))
    assert again.returncode == 0, again.stderr
    (record,) = records(tmp_path / "multirun" / "late")
    (recover,) = [stage for stage in record.stages if stage.stage == "recover"]
    assert recover.details["steps"] == 30 and not kept.exists()
    assert len(training(tmp_path / "multirun" / "late")) == 30


@pytest.mark.parametrize(
    ("sparsities", "seeds", "kills"),
    [("0.8", "0,1", 2), pytest.param("0.4,0.8", "0,1,2,3", 5, marks=pytest.mark.slow)],
    ids=["6 runs", "24 runs"],
)
def test_a_sweep_killed_again_and_again_ends_as_an_undisturbed_one(
    regraft: Regraft, tmp_path: Path, warm_cache: Path, sparsities: str, seeds: str, kills: int
) -> None:
    """With two workers, each kill at a random moment; the same rows, and no run done twice."""
    sweep = ["-m", f"sparsity={sparsities}", "loss=none,ce,kl", f"seed={seeds}"]
    workers = "hydra/launcher=two_processes"
    sweep += ["recovery.steps=20", "runtime.checkpoint_steps=5", *LONG]
    cache = warm_cache
    runs = 3 * len(sparsities.split(",")) * len(seeds.split(","))
    moments = random.Random(20261121)

    def done() -> int:
        return len(list((tmp_path / "multirun").glob("killed/*/record.json")))

    killed = 0
    for kill_number in range(kills):
        process = start(tmp_path, cache, *sweep, workers, "sweep=killed")
        until = done() + (kill_number > 0)
        wait_for(lambda until=until: done() >= until, process)
        time.sleep(moments.uniform(0, 6))
        killed += process.poll() is None
        kill(process)
    assert killed, "the sweep ended before it was killed"
    last = regraft(*sweep, workers, "sweep=killed", REGRAFT_CACHE=str(cache))
    assert last.returncode == 0, last.stderr
    whole = regraft(*sweep, "sweep=whole")
    assert whole.returncode == 0, whole.stderr
    one, other = (records(tmp_path / "multirun" / name) for name in ("killed", "whole"))
    assert len(one) == runs and {record.status for record in one} == {"finished"}
    assert {record.run_id: numbers(record) for record in one} == {record.run_id: numbers(record) for record in other}
    assert not list(cache.glob("*/.making-*")) and not list(tmp_path.glob("multirun/killed/*/.record*"))
    manifest = Manifest.load(tmp_path / "multirun" / "killed")
    assert set(manifest.runs) == {record.run_id for record in one}


def test_two_processes_do_one_sweep_together(tmp_path: Path, shared_cache: Path) -> None:
    sweep = ["-m", "sparsity=0.3,0.6,0.9", "loss=none,ce,kl", "sweep=shared", *BRIEF]
    both = [start(tmp_path, shared_cache, *sweep) for _ in range(2)]
    told = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    found = records(tmp_path / "multirun" / "shared")
    assert len(found) == 9 and {record.status for record in found} == {"finished"}
    for record in found:
        folder = tmp_path / "multirun" / "shared" / record.run_id
        assert not is_running(folder) and not was_killed(folder)
        done = sum(f"{folder.relative_to(tmp_path)}\n" in text or f"{folder}\n" in text for text in told)
        assert done == 1, f"{record.run_id} was done {done} times"


def test_a_sweep_told_to_stop_saves_in_every_worker(regraft: Regraft, tmp_path: Path, warm_cache: Path) -> None:
    cache = warm_cache
    sweep = ["-m", "hydra/launcher=two_processes", "sparsity=0.6", "loss=ce,kl", "seed=0,1", "sweep=stopped"]
    sweep += ["recovery.steps=2000", "runtime.checkpoint_steps=30", *LONG]
    process = start(tmp_path, cache, *sweep)
    running = lambda: sum(map(is_running, folders(tmp_path / "multirun" / "stopped")))  # noqa: E731
    wait_for(lambda: running() == 2 and len(list((cache / "progress").glob("*.safetensors"))) == 2, process)
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + signal.SIGTERM, told
    assert "the same command goes on from here" in told and "Traceback" not in told
    assert any(step % 30 for step in kept_steps(cache)), "no worker saved when it stopped"
    assert not running() and not any(map(was_killed, folders(tmp_path / "multirun" / "stopped")))


def test_workers_of_a_killed_sweep_save_and_end(tmp_path: Path, warm_cache: Path) -> None:
    cache = warm_cache
    sweep = ["-m", "hydra/launcher=two_processes", "sparsity=0.6", "loss=ce,kl", "sweep=orphans"]
    sweep += ["recovery.steps=2000", "runtime.checkpoint_steps=30", *LONG]
    process = start(tmp_path, cache, *sweep)
    running = lambda: sum(map(is_running, folders(tmp_path / "multirun" / "orphans")))  # noqa: E731
    wait_for(lambda: running() == 2 and len(list((cache / "progress").glob("*.safetensors"))) == 2, process)
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    until = time.monotonic() + 30
    while running() and time.monotonic() < until:
        time.sleep(0.1)
    assert not running(), "workers go on without their sweep"
    assert any(step % 30 for step in kept_steps(cache)), "no worker saved when it stopped"
