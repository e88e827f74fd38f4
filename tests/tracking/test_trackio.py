"""Runs in trackio's own database, read back with its own API."""

from __future__ import annotations

import importlib.util
import logging
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas
import pytest

from regraft.config.ranges import ConfigError
from regraft.interfaces import RunInfo, RunLog
from regraft.records import PREDICTIONS, Record, Row, StageRecord
from regraft.tracking.guard import Guarded
from regraft.tracking.trackio import FOLDER, VARIABLE, Trackio

needs_trackio = pytest.mark.skipif(
    importlib.util.find_spec("trackio") is None, reason="needs trackio: pip install 'regraft[trackio]'"
)
CONFIG = {"sparsity": 0.5, "seed": 0, "loss": {"_target_": "a.B", "temperature": 2.0}}
CHOICES = {"pruner/criterion": "l2", "loss": "kl"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the sweeps: one for all tests, as trackio chooses its own when it is imported."""
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv(VARIABLE, raising=False)
        environment.setenv("HF_HUB_OFFLINE", "1")
        yield tmp_path_factory.mktemp("multirun")


def info(root: Path, sweep: str, run_id: str = "0123abcdef") -> RunInfo:
    folder = root / sweep / run_id
    folder.mkdir(parents=True, exist_ok=True)
    return RunInfo(run_id=run_id, sweep=sweep, config=CONFIG, choices=CHOICES, environment={}, folder=folder)


def stage(index: int, name: str, target: float) -> StageRecord:
    return StageRecord(index=index, stage=name, key=f"{index}", target_sparsity=target, fingerprints={}, seconds=1.0)


def rows(of: StageRecord, accuracy: float) -> list[Row]:
    return [
        Row(
            stage_index=of.index,
            stage=of.stage,
            target_sparsity=of.target_sparsity,
            block_sparsity=of.target_sparsity,
            model_sparsity=of.target_sparsity / 2,
            bits=32,
            split="test",
            metric="accuracy",
            value=accuracy,
        )
    ]


def predictions(predicted: Sequence[int]) -> dict[str, pandas.DataFrame]:
    asked = pandas.DataFrame({"split": "test", "id": ["a", "b"], "gold": [0, 1], "predicted": predicted})
    return {PREDICTIONS: asked}


def record(run: RunInfo, status: Any = "finished") -> Record:
    return Record(
        run_id=run.run_id,
        sweep=run.sweep,
        status=status,
        error=None,
        config=dict(run.config),
        choices=dict(run.choices),
        environment={},
        stages=[],
        rows=[],
    )


def train(log: RunLog, until: int = 4) -> None:
    """The beginning of a run, up to a training step."""
    dense, pruned = stage(1, "evaluate", 0.0), stage(2, "prune", 0.5)
    log.stage(dense, rows(dense, 0.9), predictions([0, 1]))
    log.stage(pruned, [], {})
    for step in range(1, until + 1):
        log.step(step, {"loss": 1 / step})


def end(log: RunLog, run: RunInfo, status: str = "finished") -> None:
    recovered = stage(4, "evaluate", 0.5)
    log.stage(stage(3, "recover", 0.5), [], {})
    log.stage(recovered, rows(recovered, 0.7), predictions([0, 0]))
    log.finish(record(run, status))


def lines(project: str) -> list[tuple[str, int, dict[str, Any]]]:
    """Name of the run, step and numbers of each line, as trackio reads them."""
    from trackio import SQLiteStorage

    return [
        (run["name"], line["step"], {key: value for key, value in line.items() if key not in ("step", "timestamp")})
        for run in SQLiteStorage.get_run_records(project)
        for line in SQLiteStorage.get_logs(project, run["name"], run_id=run["id"])
    ]


def config(project: str) -> dict[str, Any]:
    import trackio

    (run,) = trackio.Api().runs(project)
    assert run.config is not None
    return run.config


@pytest.fixture(scope="module")
def finished(root: Path) -> str:
    run = info(root, "quickstart")
    log = Trackio(project="finished", log_every=2).start(run)
    train(log)
    end(log, run)
    return "finished"


@needs_trackio
def test_a_run_keeps_its_name_group_and_config(finished: str) -> None:
    assert {name for name, _, _ in lines(finished)} == {"l2 50% kl seed 0 (0123abcdef)"}
    kept = config(finished)
    assert kept["_Group"] == "quickstart"
    assert kept["status"] == "finished"
    assert kept["choices"] == {"pruner_criterion": "l2", "loss": "kl"}
    assert kept["loss"]["temperature"] == 2.0


@needs_trackio
def test_stages_and_every_second_step_are_logged_each_at_a_step_of_its_own(finished: str) -> None:
    logged = lines(finished)
    curve = [
        (numbers["recover/step"], numbers["recover/loss"]) for _, _, numbers in logged if "recover/loss" in numbers
    ]
    assert curve == [(2, 1 / 2), (4, 1 / 4)]
    stages = [
        (numbers["sparsity/target"], numbers["sparsity/model"], numbers["test/accuracy"])
        for _, _, numbers in logged
        if "test/accuracy" in numbers
    ]
    assert stages == [(0.0, 0.0, 0.9), (0.5, 0.25, 0.7)]
    steps = [step for _, step, _ in logged]
    assert len(set(steps)) == len(steps)


@needs_trackio
def test_the_answers_are_a_table(finished: str) -> None:
    (table,) = [numbers["predictions"] for _, _, numbers in lines(finished) if "predictions" in numbers]
    assert [(line["id"], line["gold"], line["dense"], line["recovered"]) for line in table["_value"]] == [
        ("a", "0", "0", "0"),
        ("b", "1", "1", "0"),
    ]


@needs_trackio
def test_a_run_that_goes_on_or_is_said_again_says_nothing_twice(root: Path) -> None:
    run = info(root, "resumed")
    stopped = Trackio(project="resumed").start(run)
    train(stopped, until=2)
    stopped.finish(None)
    assert config("resumed")["status"] == "stopped"
    for _ in range(2):
        resumed = Trackio(project="resumed").start(run)
        train(resumed, until=4)
        end(resumed, run)
    logged = lines("resumed")
    assert [numbers["recover/step"] for _, _, numbers in logged if "recover/loss" in numbers] == [1, 2, 3, 4]
    assert len({name for name, _, _ in logged}) == 1
    assert len([True for _, _, numbers in logged if "finished" in numbers]) == 1
    assert config("resumed")["status"] == "finished"


@needs_trackio
def test_the_same_run_in_two_sweeps_is_two_runs(root: Path) -> None:
    for sweep in ("first", "second"):
        run = info(root, sweep)
        log = Trackio(project="sweeps").start(run)
        train(log)
        end(log, run)
    assert len([True for _, _, numbers in lines("sweeps") if "finished" in numbers]) == 2


@needs_trackio
def test_a_failed_run_is_not_shown_as_finished(root: Path) -> None:
    run = info(root, "failing")
    log = Trackio(project="failing").start(run)
    train(log)
    log.finish(record(run, "failed"))
    assert config("failing")["status"] == "failed"
    assert [numbers["finished"] for _, _, numbers in lines("failing") if "finished" in numbers] == [0]


@needs_trackio
def test_everything_lies_beside_the_sweeps(finished: str, root: Path) -> None:
    assert (root / FOLDER / f"{finished}.db").is_file()
    assert list((root / "quickstart" / "0123abcdef").iterdir()) == []


@needs_trackio
def test_a_broken_database_fails_no_run_and_is_said_once(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / FOLDER).mkdir(exist_ok=True)
    (root / FOLDER / "broken.db").write_bytes(b"no database" * 1000)
    run = info(root, "broken")
    with caplog.at_level(logging.WARNING, logger="regraft"):
        log = Guarded(tracker=Trackio(project="broken")).start(run)
        train(log)
        end(log, run)
    (warning,) = [entry.getMessage() for entry in caplog.records if entry.name.startswith("regraft")]
    assert "trackio" in warning
    with pytest.raises(sqlite3.DatabaseError):
        sqlite3.connect(root / FOLDER / "broken.db").execute("SELECT * FROM metrics")


@needs_trackio
def test_a_name_that_trackio_keeps_for_itself_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="reserved"):
        Trackio(project="registry-mine").start(info(root, "named"))


def test_without_trackio_the_config_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'regraft\[trackio\]'"):
        Trackio()


def test_ranges() -> None:
    with pytest.raises(ConfigError, match="log_every=0"):
        Trackio(log_every=0)
