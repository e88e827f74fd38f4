"""One run by two processes: the recovery of one, within rounding."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pandas
import pytest
from conftest import BRIEF, Regraft, records
from processes_apart import start

from regraft.records import Record

LONG = [override for override in BRIEF if not override.startswith(("recovery.", "evaluation."))]
RUN = ["loss=kl", "teacher=cached", "sparsity=0.6", "recovery.batch_size=15", "recovery.accumulation=2"]
"""Batches that two processes cannot divide evenly, in parts of which one may have no question."""


def torchrun(folder: Path, cache: Path, *arguments: str) -> subprocess.Popen[str]:
    by = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
    return start(folder, cache, *arguments, by=by)


def values(record: Record) -> dict[tuple, float | None]:
    return {(row.stage_index, row.split, row.metric): row.value for row in record.rows if row.deterministic}


def check(folder: Path, together: str, alone: str) -> Record:
    """The runs have the same stages and, but for rounding, the same numbers."""
    (one,), (other,) = (records(folder / "multirun" / name) for name in (together, alone))
    assert one.status == "finished", one.error
    assert [stage.key for stage in one.stages] == [stage.key for stage in other.stages]
    assert [stage.fingerprints for stage in one.stages[:4]] == [stage.fingerprints for stage in other.stages[:4]]
    expected = values(other)
    for key, value in values(one).items():
        if not key[2].startswith(("accuracy", "dense_agreement", "ece")):  # which may turn on the last digit
            assert value == pytest.approx(expected[key], rel=1e-3, abs=1e-6), key
    lines, others = (
        pandas.read_parquet(folder / "multirun" / name / record.run_id / "training.parquet")
        for name, record in ((together, one), (alone, other))
    )
    pandas.testing.assert_frame_equal(lines, others, rtol=1e-3, atol=1e-7)
    assert list(lines.examples) == list(others.examples)
    return one


@pytest.mark.parametrize("shard", ["false", "true"])
def test_two_processes_train_as_one(regraft: Regraft, tmp_path: Path, warm_cache: Path, shard: str) -> None:
    run = [*RUN, "recovery.steps=9", *LONG]
    process = torchrun(tmp_path, warm_cache, *run, "sweep=together", f"runtime.shard={shard}")
    told = process.communicate(timeout=200)[0]
    assert process.returncode == 0, told
    alone = regraft(*run, "sweep=alone")
    assert alone.returncode == 0, alone.stderr
    record = check(tmp_path, "together", "alone")
    (recover,) = [stage for stage in record.stages if stage.stage == "recover"]
    assert recover.details["processes"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("shard", ["false", "true"])
@pytest.mark.parametrize("loss", ["exits", "attention_maps"])
def test_two_processes_train_as_one_what_the_loss_reaches(
    regraft: Regraft, tmp_path: Path, warm_cache: Path, loss: str, shard: str
) -> None:
    run = [f"loss={loss}", "sparsity=0.6", "recovery.batch_size=15", "recovery.steps=4", *LONG]
    process = torchrun(tmp_path, warm_cache, *run, "sweep=together", f"runtime.shard={shard}")
    told = process.communicate(timeout=200)[0]
    assert process.returncode == 0, told
    alone = regraft(*run, "sweep=alone")
    assert alone.returncode == 0, alone.stderr
    check(tmp_path, "together", "alone")


@pytest.mark.slow
@pytest.mark.parametrize("shard", ["false", "true"])
def test_two_processes_that_are_stopped_go_on_as_one_would(regraft: Regraft, tmp_path: Path, shard: str) -> None:
    run = [*RUN, "recovery.steps=60", "runtime.checkpoint_steps=10", f"runtime.shard={shard}", *LONG]
    cache = tmp_path / "cache"
    process = torchrun(tmp_path, cache, *run, "sweep=together")
    until = time.monotonic() + 120
    while not list((cache / "progress").glob("*.safetensors")):
        assert time.monotonic() < until and process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=60)[0]
    assert process.returncode != 0
    assert not records(tmp_path / "multirun"), told
    process = torchrun(tmp_path, cache, *run, "sweep=together")
    told = process.communicate(timeout=200)[0]
    assert process.returncode == 0, told
    assert regraft(*run, "sweep=alone").returncode == 0
    check(tmp_path, "together", "alone")


@pytest.mark.slow
@pytest.mark.parametrize(
    "taught",
    [
        ["teacher=ema", "teacher.decay=0.7", "loss=ce_kl"],
        ["teacher=previous", "loss=kl", "schedule=iterative", "schedule.steps=2"],
    ],
)
def test_two_processes_share_a_teacher_that_the_run_made(
    regraft: Regraft, tmp_path: Path, warm_cache: Path, taught: list[str]
) -> None:
    run = [*taught, "sparsity=0.6", "recovery.batch_size=15", "recovery.steps=10", *LONG]
    process = torchrun(tmp_path, warm_cache, *run, "sweep=together")
    told = process.communicate(timeout=200)[0]
    assert process.returncode == 0, told
    alone = regraft(*run, "sweep=alone")
    assert alone.returncode == 0, alone.stderr
    check(tmp_path, "together", "alone")


def test_a_sweep_by_processes_started_together_is_refused(regraft: Regraft) -> None:
    result = regraft("-m", "loss=ce,kl", *BRIEF, WORLD_SIZE="2", RANK="0")
    assert result.returncode == 1
    assert "WORLD_SIZE=2" in result.stderr and "hydra/launcher=slurm" in result.stderr
