"""Real offline runs of W&B, read back with its own command."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from regraft.config.ranges import ConfigError
from regraft.interfaces import RunInfo
from regraft.tracking.none import NoTracker
from regraft.tracking.wandb.log import Wandb

CONFIG = {"sparsity": 0.5, "loss": {"_target_": "a.B", "temperature": 2.0}, "list": [1, 2]}


def info(folder: Path, run_id: str = "0123abcd") -> RunInfo:
    folder.mkdir(parents=True, exist_ok=True)
    return RunInfo(
        run_id=run_id,
        sweep="quickstart",
        name="l2 kl 0.5",
        job_type="kl",
        tags=("tiny_olmo2", "l2"),
        config=CONFIG,
        folder=folder,
    )


def inspect(folder: Path, *options: str) -> str:
    """What `wandb leet inspect` says of the only offline run in `folder`."""
    (run,) = (folder / "wandb").glob("offline-run-*")
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", *options, "--json", str(run)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The records of one kind that the run wrote, in order."""
    lines = [json.loads(line) for line in inspect(folder).splitlines()]
    return [line[kind] for line in lines if line["type"] == kind]


def history(folder: Path) -> list[dict[str, Any]]:
    return [record["item"] for record in records(folder, "history")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    with Wandb(log_every=2).start(info(folder)) as tracked:
        tracked.log({"sparsity": 0.0, "test/accuracy": 0.9})
        for step in range(1, 7):
            tracked.log({"recover/loss": 1.0 / step}, step=step)
        tracked.log({"sparsity": 0.5, "test/accuracy": 0.7})
        tracked.summary({"test/accuracy": 0.7, "units": 12})
    return folder


def test_a_run_keeps_its_name_group_tags_and_config(finished: Path) -> None:
    (run,) = records(finished, "run")
    said = ("run_id", "display_name", "run_group", "job_type", "project", "tags")
    expected = ["0123abcd", "l2 kl 0.5", "quickstart", "kl", "regraft", ["tiny_olmo2", "l2"]]
    assert [run[key] for key in said] == expected
    plain = json.loads(inspect(finished, "--summary"))
    assert plain["config"] == CONFIG
    assert plain["exit_code"] == 0


def test_curves_are_drawn_against_steps_and_stages_against_sparsity(finished: Path) -> None:
    axes = {
        metric["glob_name"]: metric["step_metric"] for metric in records(finished, "metric") if "glob_name" in metric
    }
    assert axes == {"recover/*": "recover/step", "test/*": "sparsity", "selection/*": "sparsity"}


def test_curves_have_their_own_steps_and_every_second_is_logged(finished: Path) -> None:
    rows = history(finished)
    curve = [(row["recover/step"], row["recover/loss"]) for row in rows if "recover/loss" in row]
    assert curve == [(2, pytest.approx(1 / 2)), (4, pytest.approx(1 / 4)), (6, pytest.approx(1 / 6))]
    stages = [(row["sparsity"], row["test/accuracy"]) for row in rows if "test/accuracy" in row]
    assert stages == [(0.0, pytest.approx(0.9)), (0.5, pytest.approx(0.7))]


def test_the_summary_is_what_the_run_said_last(finished: Path) -> None:
    summary = json.loads(inspect(finished, "--summary"))["summary"]
    assert summary["units"] == 12
    assert summary["test/accuracy"] == pytest.approx(0.7)


def test_everything_lies_in_the_folder_of_the_run(finished: Path) -> None:
    assert [path.name for path in finished.iterdir()] == ["wandb"]


def test_a_failing_run_is_marked_failed_and_its_error_passes(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Wandb().start(info(tmp_path)):
        raise ZeroDivisionError
    assert json.loads(inspect(tmp_path, "--summary"))["exit_code"] == 1


def test_two_runs_in_one_process_do_not_mix(tmp_path: Path) -> None:
    for run_id in ("first", "second"):
        with Wandb().start(info(tmp_path / run_id, run_id)) as tracked:
            tracked.log({"recover/loss": 1.0}, step=1)
    for run_id in ("first", "second"):
        assert len(history(tmp_path / run_id)) == 1


def test_without_a_server_an_online_run_goes_on_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import wandb

    wandb.teardown()  # the address is read when W&B's service starts
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "local-" + "0" * 40)
    with (
        caplog.at_level(logging.WARNING, logger="regraft"),
        Wandb(mode="online", init_timeout=2).start(info(tmp_path)) as tracked,
    ):
        tracked.log({"recover/loss": 1.0}, step=1)
    warnings = [record for record in caplog.records if record.name.startswith("regraft")]
    assert len(warnings) == 1
    assert "offline" in warnings[0].getMessage()
    assert "local-000" not in warnings[0].getMessage()
    assert "127.0.0.1:9" in warnings[0].getMessage()
    assert len(history(tmp_path)) == 1
    assert json.loads(inspect(tmp_path, "--summary"))["exit_code"] == 0
    monkeypatch.undo()
    wandb.teardown()


@pytest.mark.parametrize(("key", "value"), [("log_every", 0), ("init_timeout", 0.0)])
def test_ranges(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{key}={value}"):
        Wandb(**{key: value})


def test_no_tracker_leaves_nothing(tmp_path: Path) -> None:
    with NoTracker().start(info(tmp_path)) as tracked:
        tracked.log({"a": 1.0}, step=1)
        tracked.summary({"a": 1.0})
    assert list(tmp_path.iterdir()) == []
