"""Runs say what their recovery read and computed, and end where a budget says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest
from combinations import composed

from analysis.collect import collect
from analysis.grades import Grade, grade
from regraft.config.schema import load
from regraft.records import BATCHES_BY_STEP, TRAINING, TRAINING_COLUMNS, Record
from regraft.run import run


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spending")


def done(folder: Path, cache: Path, *overrides: str) -> tuple[Record, dict[str, Any]]:
    plain = composed("loss=kl", f"runtime.cache={cache}", *overrides)
    record = run(load(plain), folder, plain, {"loss": "kl"}, "spending")
    assert record.status == "finished", record.error
    (trained,) = [stage.details for stage in record.stages if stage.stage == "recover"]
    return record, trained


def test_a_cached_teacher_costs_its_asking_and_its_head(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "live").mkdir(), (tmp_path / "kept").mkdir(), (tmp_path / "kept_again").mkdir()
    _, live = done(tmp_path / "live", cache, "recovery.steps=6")
    record, kept = done(tmp_path / "kept", cache, "recovery.steps=6", "teacher=cached")
    assert live["tokens"] == kept["tokens"] == live["teacher_tokens"]
    assert live["flops"] - live["teacher_flops"] == kept["flops"] - kept["teacher_flops"]
    asked = kept["teacher"]["asked_flops"]
    # its head is applied again: more than what asking took, less than the whole model
    assert 0 < kept["teacher_flops"] - asked < live["teacher_flops"]
    # each question once, whatever the training reads
    assert kept["teacher_tokens"] == kept["teacher"]["asked_tokens"] > 0
    # asked by another run: it costs as much as if it had been this one
    _, again = done(tmp_path / "kept_again", cache, "recovery.steps=6", "teacher=cached", "+recovery.betas=[0.9,0.99]")
    assert again["teacher_flops"] == kept["teacher_flops"]
    table = pandas.read_parquet(tmp_path / "kept" / TRAINING)
    assert set(TRAINING_COLUMNS) <= set(table.columns)
    assert table.tokens.iloc[-1] == kept["tokens"] and table.flops.iloc[-1] == kept["flops"] - asked
    line = collect([tmp_path]).run_table.set_index("run_id").loc[record.run_id]
    assert (line["recovery_tokens"], line["recovery_flops"]) == (kept["tokens"], kept["flops"])
    (trained,) = [stage for stage in record.stages if stage.stage == "recover"]
    assert line["recovery_seconds"] == trained.seconds > 0


@pytest.mark.parametrize("key", ["tokens", "flops"])
@pytest.mark.parametrize("teacher", ["dense", "cached"])
def test_a_budget_ends_the_training_and_the_learning_rate_falls_to_its_end(
    tmp_path: Path, cache: Path, key: str, teacher: str
) -> None:
    (tmp_path / "whole").mkdir(), (tmp_path / "bounded").mkdir()
    _, whole = done(tmp_path / "whole", cache, f"teacher={teacher}", "recovery.steps=6")
    bounded = ("recovery.steps=null", f"+recovery.{key}={whole[key] + 1}")
    record, spent = done(tmp_path / "bounded", cache, f"teacher={teacher}", *bounded)
    assert (spent["steps"], spent[key]) == (6, whole[key])
    lines = [pandas.read_parquet(tmp_path / name / TRAINING) for name in ("whole", "bounded")]
    assert lines[0].equals(lines[1])
    (tmp_path / "less").mkdir()
    less = ("recovery.steps=null", f"+recovery.{key}={whole[key] - 1}")
    assert done(tmp_path / "less", cache, f"teacher={teacher}", *less)[1]["steps"] == 5


def test_losses_within_one_budget_are_controlled_though_one_takes_more_steps(tmp_path: Path, cache: Path) -> None:
    records, steps = [], []
    for loss in ("kl", "ce"):
        (tmp_path / loss).mkdir()
        bounded = ("recovery.steps=null", "recovery.tokens=2000", f"loss={loss}")
        record, spent = done(tmp_path / loss, cache, *bounded)
        records.append(replace(record, choices={"loss": loss}))
        steps.append(spent["steps"])
        assert len(spent[BATCHES_BY_STEP]) == spent["steps"]
    assert steps[0] < steps[1], "cross-entropy reads the right choice alone"
    assert grade(*records, "loss") == Grade("same-units", steps=((steps[0], steps[1]),))
    (tmp_path / "steps").mkdir()
    assert BATCHES_BY_STEP not in done(tmp_path / "steps", cache, "recovery.steps=2")[1]


def test_records_of_before_are_read(tmp_path: Path, cache: Path) -> None:
    from analysis.collect import Run
    from analysis.figures.training import trained

    folder = tmp_path / "old"
    folder.mkdir()
    record, _ = done(folder, cache)
    table = pandas.read_parquet(folder / TRAINING).drop(columns=["tokens", "flops"])
    table.to_parquet(folder / TRAINING, index=False)
    for stage in record.stages:
        for name in ("tokens", "teacher_tokens", "flops", "teacher_flops"):
            stage.details.pop(name, None)
    record.save(folder)
    assert len(trained(Run(record=record, folder=folder))) == 2
    assert collect([tmp_path]).run_table["recovery_flops"].isna().all()
