"""Records mirrored to the stand-in W&B server by unmodified W&B, and read back by its public API."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest
import wandb
from recorded import (
    ASKED,
    CHOICES,
    COMMIT,
    PROJECT,
    calls,
    expected_history,
    mirror,
    on_disk,
    recorded,
    wandb_path,
)
from wandb_server import WandbServer

from regraft.config.ranges import ConfigError
from regraft.records import PREDICTIONS, Record
from regraft.tracking.none import NoTracker, Silent
from regraft.tracking.replay import info
from regraft.tracking.wandb.log import Wandb, digest

ONLINE = Wandb(mode="online", project=PROJECT)
OWN = ("_step", "_timestamp", "_runtime", "_wandb")
"""What W&B adds to each row of the history."""


def history(folder: Path) -> dict[int, dict[str, Any]]:
    """Step -> the numbers of its row, without histograms; the rows in the order in which W&B serves them."""
    rows = list(wandb.Api().run(wandb_path(folder)).scan_history())
    found = {
        row["_step"]: {
            key: value
            for key, value in row.items()
            if key not in OWN and value is not None and not key.startswith("scores/")
        }
        for row in rows
    }
    assert [row["_step"] for row in rows] == sorted(found), "a step is there twice, or out of order"
    return found


def table(server: WandbServer, folder: Path) -> pandas.DataFrame:
    """The predictions as W&B shows them."""
    path = server.run(wandb_path(folder)).summary()["predictions"]["path"]
    plain = json.loads(server.run(wandb_path(folder)).uploads()[path])
    return pandas.DataFrame(plain["data"], columns=plain["columns"])


def files(artifact: Any, folder: Path) -> dict[str, bytes]:
    root = Path(artifact.download(root=str(folder), skip_cache=True))
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_finished_run_is_read_back_as_it_was_recorded(
    wandb_server: WandbServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = recorded(tmp_path / "multirun", checkpoint=True)
    record = Record.load(folder)
    mirror(folder, ONLINE)
    assert capfd.readouterr() == ("", ""), "W&B speaks into the run's own output"

    run = wandb.Api().run(wandb_path(folder))
    told = (run.name, run.group, run.job_type, run.state, sorted(run.tags), run.commit)
    assert told == (
        "l2 50% kl seed 0",
        "study",
        "kl",
        "finished",
        sorted(["tiny_olmo2", "facts", "l2", "one_shot"]),
        COMMIT,
    )
    choices = {group.replace("/", "_"): choice for group, choice in record.choices.items()}
    expected = record.config | {"choices": choices, "run_id": record.run_id, "sweep": "study"}
    assert {key: value for key, value in run.config.items() if key != "environment"} == expected

    assert history(folder) == expected_history(folder)
    rows = {row["_step"]: row for row in run.scan_history()}
    for layer in range(2):
        assert rows[2][f"scores/layer_{layer:02}"]["values"] == [4, 4]
        assert rows[2][f"scores/layer_{layer:02}"]["bins"] == [0.0, 1.0, 2.5]

    last = {f"{row.split}/{row.metric}".strip("/"): row.value for row in record.rows if row.stage_index == 5}
    dense = {
        f"dense/{row.split}/{row.metric}".replace("//", "/"): row.value for row in record.rows if row.stage_index == 1
    }
    intervals = {
        f"{split}/accuracy_ci_{end}": value
        for split in ("test", "selection")
        for end, value in (("low", 0), ("high", 1))
    }
    ends = {"status": "finished", "seconds": 9.0, "peak_memory_bytes": 123456, "record": digest(folder)}
    summary = run.summary
    for key, value in (last | dense | intervals | ends).items():
        assert summary[key] == value, key
    assert {"dense/recovery/accuracy", "dense/preparation/accuracy"} <= set(dense)
    assert "error" not in summary and "recovery/accuracy" not in summary
    assert summary["sparsity/block"] == 0.5 and summary["sparsity/model"] == 0.25

    axes = {
        metric.get("2"): metric
        for metric in wandb_server.run(wandb_path(folder)).raw_config["_wandb"]["value"]["m"]
        if "2" in metric
    }
    assert set(axes) == {"recover/*", "test/*", "selection/*", "scores/*", "layers/*"}
    named = {
        metric["1"]: metric
        for metric in wandb_server.run(wandb_path(folder)).raw_config["_wandb"]["value"]["m"]
        if "1" in metric
    }
    assert {"parameters", "bytes", "macs_per_token"} <= set(named), "sizes are drawn against W&B's own steps"

    artifacts = {artifact.type: artifact for artifact in run.logged_artifacts()}
    assert set(artifacts) == {"record", "run_table"}, "a checkpoint is sent unasked"
    held = files(artifacts["record"], tmp_path / "held")
    assert held == on_disk(folder)
    assert set(held) == {
        "record.json",
        "predictions.parquet",
        "training.parquet",
        "scores.parquet",
        "questions.parquet",
    }
    assert artifacts["record"].metadata == {"run_id": record.run_id, "sweep": "study", "status": "finished"}
    assert not (folder / "wandb").exists()


def test_a_checkpoint_of_which_no_dense_model_is_known_is_not_called_dense(
    wandb_server: WandbServer, tmp_path: Path
) -> None:
    folder = recorded(tmp_path)
    record = Record.load(folder)
    loaded = [replace(stage, stage="load") if stage.stage == "prepare" else stage for stage in record.stages[:2]]
    replace(record, stages=loaded, rows=[row for row in record.rows if row.stage_index == 1], choices={}).save(folder)
    mirror(folder, ONLINE)
    run = wandb.Api().run(wandb_path(folder))
    assert run.summary["test/accuracy"] and "dense/test/accuracy" not in run.summary
    assert "predictions" not in run.summary


def test_the_table_of_predictions_shows_texts(wandb_server: WandbServer, tmp_path: Path) -> None:
    folder = recorded(tmp_path / "multirun")
    path = folder / PREDICTIONS
    predictions = pandas.read_parquet(path)
    unasked = (predictions["id"] == "test3") & (predictions["stage_index"] == 3)
    predictions[~unasked].to_parquet(path, index=False)
    mirror(folder, ONLINE)
    found = table(wandb_server, folder)
    assert list(found.columns) == ["id", "question", "choices", "gold", "dense", "pruned", "recovered"]
    assert list(found["id"]) == [f"test{number}" for number in range(ASKED)]
    assert list(found["question"]) == [f"Is it {number}?" for number in range(ASKED)]
    assert set(found["choices"]) == {" | ".join(CHOICES)}
    gold = [CHOICES[number % 3] for number in range(ASKED)]
    wrong = [CHOICES[(number + (number < 2)) % 3] for number in range(ASKED)]
    assert list(found["gold"]) == list(found["dense"]) == gold
    assert list(found["recovered"]) == wrong
    assert found["pruned"].isna().tolist() == [False, False, False, True, False]
    assert found["pruned"].dropna().tolist() == [*wrong[:3], wrong[4]]


def test_without_texts_the_table_shows_numbers_of_choices(wandb_server: WandbServer, tmp_path: Path) -> None:
    folder = recorded(tmp_path / "multirun", asked=False)
    mirror(folder, ONLINE)
    found = table(wandb_server, folder)
    assert list(found["gold"]) == [str(number % 3) for number in range(ASKED)]
    assert set(found["question"]) == set(found["choices"]) == {None}
    assert "questions.parquet" not in {name for artifact in wandb_server.artifacts for name in artifact.entries()}


def test_several_prunings_count_steps_on(wandb_server: WandbServer, tmp_path: Path) -> None:
    """And every second step is logged, by a count over all recoveries."""
    folder = recorded(tmp_path / "multirun", sparsities=(0.25, 0.5, 0.75), steps=3)
    mirror(folder, replace(ONLINE, log_every=2))
    found = history(folder)
    assert found == expected_history(folder, log_every=2)
    assert [row["recover/step"] for row in found.values() if "recover/loss" in row] == [2, 4, 6, 8]
    assert [row["sparsity/target"] for row in found.values() if "test/accuracy" in row] == [
        *(0.0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75)
    ]


def test_numbers_that_are_none_do_no_harm(wandb_server: WandbServer, tmp_path: Path) -> None:
    folder = recorded(tmp_path / "multirun", value=math.nan)
    mirror(folder, ONLINE)
    found, expected = history(folder), expected_history(folder)
    step = max(step for step in expected if "recover/loss" in expected[step])
    assert found[step].pop("recover/loss") == "NaN" and math.isnan(expected[step].pop("recover/loss"))
    assert found == expected
    summary = wandb.Api().run(wandb_path(folder)).summary
    assert summary["test/accuracy"] == 0.6
    assert "test/nll" not in expected[max(expected)]


def test_a_checkpoint_is_sent_if_it_is_wanted_and_there(wandb_server: WandbServer, tmp_path: Path) -> None:
    saved = recorded(tmp_path / "multirun", checkpoint=True)
    bare = recorded(tmp_path / "multirun", seed=1)
    failed = recorded(tmp_path / "multirun", seed=2, checkpoint=True, error="no memory")
    for folder in (saved, bare, failed):
        mirror(folder, replace(ONLINE, log_model=True))
    models = [artifact for artifact in wandb_server.artifacts if artifact.artifactSequence.kind == "model"]
    assert [set(model.entries()) for model in models] == [{"config.json", "model.safetensors"}]
    (model,) = (each for each in wandb.Api().run(wandb_path(saved)).logged_artifacts() if each.type == "model")
    assert files(model, tmp_path / "model")["model.safetensors"] == bytes(range(256))


def test_a_failed_run_is_failed(wandb_server: WandbServer, tmp_path: Path) -> None:
    folder = recorded(tmp_path / "multirun", error="loss=nan at step 4: training diverged.")
    mirror(folder, ONLINE)
    run = wandb.Api().run(wandb_path(folder))
    assert run.state == "failed"
    assert run.summary["status"] == "failed"
    assert run.summary["error"] == "loss=nan at step 4: training diverged."
    assert history(folder) == expected_history(folder)
    (artifact,) = (each for each in run.logged_artifacts() if each.type == "record")
    assert files(artifact, tmp_path / "held") == on_disk(folder)


@pytest.mark.parametrize("after", [1, 6, 8], ids=["after prepare", "in recovery", "after recovery"])
def test_a_run_that_was_stopped_goes_on_and_says_nothing_twice(
    wandb_server: WandbServer, tmp_path: Path, after: int
) -> None:
    folder = recorded(tmp_path / "multirun")
    mirror(folder, ONLINE, stop_after=after)
    stopped = wandb.Api().run(wandb_path(folder))
    assert stopped.state == "preempted"
    assert stopped.summary.get("record") is None
    mirror(folder, ONLINE)
    assert len(wandb_server.runs) == 1
    run = wandb.Api().run(wandb_path(folder))
    assert run.state == "finished"
    assert history(folder) == expected_history(folder)
    assert run.summary["record"] == digest(folder)
    assert not (folder / "wandb").exists()


def test_a_run_done_again_says_nothing_twice(wandb_server: WandbServer, tmp_path: Path) -> None:
    folder = recorded(tmp_path / "multirun")
    mirror(folder, ONLINE)
    before = list(wandb.Api().run(wandb_path(folder)).scan_history()), table(wandb_server, folder)
    mirror(folder, ONLINE)
    assert list(wandb.Api().run(wandb_path(folder)).scan_history()) == before[0]
    pandas.testing.assert_frame_equal(table(wandb_server, folder), before[1])
    assert len(wandb_server.runs) == 1
    versions = {
        artifact.versionIndex for artifact in wandb_server.artifacts if artifact.artifactSequence.kind == "record"
    }
    assert versions == {0}


def test_open_runs_do_not_mix(wandb_server: WandbServer, tmp_path: Path) -> None:
    """Of one process and open at the same time; two of them are the same run of two sweeps."""
    folders = [recorded(tmp_path / "multirun"), recorded(tmp_path / "multirun", seed=1)]
    folders.append(recorded(tmp_path / "multirun", sweep="other", value=9.0))
    records = [Record.load(folder) for folder in folders]
    logs = [ONLINE.start(info(record, folder)) for record, folder in zip(records, folders, strict=True)]
    for turn in zip(*map(calls, records, folders), strict=True):
        for call, log in zip(turn, logs, strict=True):
            call(log)
    for record, log in zip(records, logs, strict=True):
        log.finish(record)
    assert {run.name for run in wandb_server.runs} == {wandb_path(folder).split("/")[-1] for folder in folders}
    assert len(wandb_server.runs) == 3
    for record, folder in zip(records, folders, strict=True):
        assert history(folder) == expected_history(folder)
        run = wandb.Api().run(wandb_path(folder))
        assert (run.group, run.config["seed"], run.summary["record"]) == (
            record.sweep,
            record.config["seed"],
            digest(folder),
        )


@pytest.mark.parametrize(
    ("tracker", "mode"),
    [(Wandb(), None), (ONLINE, "offline"), (ONLINE, "disabled"), (NoTracker(), None)],
    ids=["offline", "WANDB_MODE=offline", "WANDB_MODE=disabled", "none"],
)
def test_offline_nothing_is_asked_and_nothing_written(
    wandb_server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracker: Wandb, mode: str | None
) -> None:
    if mode is not None:
        monkeypatch.setenv("WANDB_MODE", mode)
    folder = recorded(tmp_path / "multirun")
    before = sorted(tmp_path.rglob("*"))

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("W&B was started")

    monkeypatch.setattr(wandb, "init", forbidden)
    monkeypatch.setattr(wandb, "login", forbidden)
    assert isinstance(tracker.start(info(Record.load(folder), folder)), Silent)
    mirror(folder, tracker)
    assert sorted(tmp_path.rglob("*")) == before
    assert wandb_server.calls == []


@pytest.mark.parametrize(
    ("setting", "told"),
    [({"log_every": 0}, "log_every=0: must be at least 1"), ({"timeout": 0.0}, "timeout=0.0: must be above 0")],
)
def test_ranges(setting: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Wandb(**setting)
