"""`python -m regraft.tracking.wandb.sync`: what W&B lacks is sent, once."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import filelock
import pytest
import wandb
from recorded import ENTITY, PROJECT, expected_history, mirror, on_disk, recorded, wandb_path
from wandb_server import WandbServer

from regraft.records import CLAIM, Record
from regraft.tracking.wandb.log import Wandb, digest
from regraft.tracking.wandb.sync import main

ONLINE = Wandb(mode="online", project=PROJECT)
CHANGES = re.compile(r"Upsert|Create|Commit|Update|Delete|Mark|^PUT|file_stream")
"""The requests that change something."""


def changes(server: WandbServer) -> list[str]:
    return [name for name in server.names() if CHANGES.search(name)]


def assert_whole(server: WandbServer, folder: Path, state: str = "finished", project: str = PROJECT) -> None:
    """W&B holds what the record of the run in `folder` holds, once."""
    run = wandb.Api().run(wandb_path(folder, project))
    assert run.state == state
    rows = list(run.scan_history())
    expected = expected_history(folder)
    assert [row["_step"] for row in rows] == sorted(expected)
    for row in rows:
        assert {key: row[key] for key in expected[row["_step"]]} == expected[row["_step"]]
    assert run.summary["record"] == digest(folder)
    held = [each for each in server.artifacts if each.artifactSequence.name == f"record-{run.id}"][-1]
    contents = {name: server.backend.storage[f"objects/{entry['digest']}"] for name, entry in held.entries().items()}
    assert contents == on_disk(folder)
    assert not (folder / "wandb").exists()


def test_a_sweep_recorded_offline_is_sent_once(
    wandb_server: WandbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [recorded(tmp_path, seed=seed) for seed in range(3)]
    folders.append(recorded(tmp_path, loss="none"))
    failed = recorded(tmp_path, seed=7, error="training diverged")
    assert main([str(tmp_path / "study")]) == 0
    told = capsys.readouterr().out.splitlines()
    assert sorted(told[:-1]) == sorted(
        [*(f"sent oneshotkl0{seed}  l2 50% kl seed {seed}" for seed in (0, 1, 2, 7))]
        + ["sent oneshotnone00  l2 50% none seed 0"]
    )
    assert told[-1] == f"{tmp_path}/study: 5 records: 0 were in W&B, 5 sent."
    for folder in folders:
        assert_whole(wandb_server, folder)
    assert_whole(wandb_server, failed, state="failed")
    assert len(wandb_server.runs) == 5

    before = changes(wandb_server)
    assert main([str(tmp_path / "study")]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/study: 5 records: 5 were in W&B, 0 sent.\n"
    assert changes(wandb_server) == before, "what is there already is sent again"


def test_a_run_that_was_logged_online_is_not_sent_again(
    wandb_server: WandbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = recorded(tmp_path)
    mirror(folder, ONLINE)
    (folder / "wandb").mkdir()  # as if the server had been lost when it had just said that all is there
    before = changes(wandb_server)
    assert main([str(tmp_path / "study")]) == 0
    assert not (folder / "wandb").exists()
    assert "1 records: 1 were in W&B, 0 sent" in capsys.readouterr().out
    assert changes(wandb_server) == before


def test_what_an_earlier_version_left_for_wandb_sync_stays(wandb_server: WandbServer, tmp_path: Path) -> None:
    folder = recorded(tmp_path)
    (folder / "wandb" / "offline-run-old").mkdir(parents=True)
    for _ in range(2):
        assert main([str(tmp_path / "study")]) == 0
        assert (folder / "wandb" / "offline-run-old").is_dir()


@pytest.mark.parametrize("after", [3, 6, 9])
def test_a_run_that_w_and_b_has_in_part_is_completed(wandb_server: WandbServer, tmp_path: Path, after: int) -> None:
    """Its process was killed, and W&B still believes that it runs or takes it for dead."""
    folder = recorded(tmp_path)
    mirror(folder, ONLINE, stop_after=after)
    run = wandb_server.run(wandb_path(folder))
    run.exit_code, run.preempting = None, False
    if after == 6:
        wandb_server.lose_heartbeats()
    assert main([str(tmp_path / "study")]) == 0
    assert_whole(wandb_server, folder)
    assert len(wandb_server.runs) == 1


def test_a_run_that_was_stopped_and_then_failed_is_not_sent_again(
    wandb_server: WandbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = recorded(tmp_path, error="training diverged")
    mirror(folder, ONLINE, stop_after=5)
    mirror(folder, ONLINE)
    assert wandb.Api().run(wandb_path(folder)).state in ("failed", "preempted")
    assert main([str(tmp_path / "study")]) == 0
    assert "1 records: 1 were in W&B, 0 sent" in capsys.readouterr().out


def test_a_record_that_changed_is_sent_again(wandb_server: WandbServer, tmp_path: Path) -> None:
    """A run failed, was done again and finished."""
    failed = recorded(tmp_path, error="no space left on device")
    assert main([str(tmp_path / "study")]) == 0
    assert_whole(wandb_server, failed, state="failed")
    failed.rename(tmp_path / "aside")
    folder = recorded(tmp_path)
    assert main([str(tmp_path / "study")]) == 0
    assert_whole(wandb_server, folder)
    summary = wandb.Api().run(wandb_path(folder)).summary
    assert summary["status"] == "finished" and not summary.get("error")
    (run,) = wandb_server.runs
    assert [each.versionIndex for each in wandb_server.artifacts if each.artifactSequence.kind == "record"] == [0, 1]


def test_a_run_of_which_only_the_end_was_lost_is_sent_again(wandb_server: WandbServer, tmp_path: Path) -> None:
    """Its numbers and files are there, but W&B never heard that it ended."""
    folder = recorded(tmp_path)
    mirror(folder, ONLINE)
    wandb_server.run(wandb_path(folder)).exit_code = None
    wandb_server.lose_heartbeats()
    assert main([str(tmp_path / "study")]) == 0
    assert_whole(wandb_server, folder)


def test_a_sweep_without_tracker_goes_where_it_is_told(wandb_server: WandbServer, tmp_path: Path) -> None:
    folder = recorded(tmp_path)
    record = Record.load(folder)
    config = record.config | {"tracker": {"_target_": "regraft.tracking.none.NoTracker"}}
    replace(record, config=config).save(folder)
    assert main([str(tmp_path / "study")]) == 0
    assert_whole(wandb_server, folder, project="regraft")
    assert main([str(tmp_path / "study"), "--project", "elsewhere", "--entity", "tester"]) == 0
    assert_whole(wandb_server, folder, project="elsewhere")
    assert main([str(tmp_path / "study"), "--project", "elsewhere", "--entity", "a-team"]) == 0
    assert {(run.project.entityName, run.project.name) for run in wandb_server.runs} == {
        (ENTITY, "regraft"),
        (ENTITY, "elsewhere"),
        ("a-team", "elsewhere"),
    }


def test_runs_go_into_the_projects_that_their_configs_name(wandb_server: WandbServer, tmp_path: Path) -> None:
    one = recorded(tmp_path, project="one", log_every=2)
    other = recorded(tmp_path, seed=1, project="other", entity="a-team", mode="offline")
    assert main([str(tmp_path / "study")]) == 0
    assert [(run.project.entityName, run.project.name) for run in wandb_server.runs] in (
        [(ENTITY, "one"), ("a-team", "other")],
        [("a-team", "other"), (ENTITY, "one")],
    )
    rows = list(wandb.Api().run(wandb_path(one, "one")).scan_history())
    assert [row["_step"] for row in rows] == sorted(expected_history(one, log_every=2))
    assert wandb_server.run(f"a-team/other/{wandb_path(other).split('/')[-1]}").state == "finished"


def test_running_runs_are_left_alone(
    wandb_server: WandbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done, running = recorded(tmp_path), recorded(tmp_path, seed=1, error="out of memory; it is being done again")
    with filelock.FileLock(running / CLAIM):
        assert main([str(tmp_path / "study")]) == 0
    assert "1 records: 0 were in W&B, 1 sent" in capsys.readouterr().out
    assert [run.name for run in wandb_server.runs] == [wandb_path(done).split("/")[-1]]


def test_what_cannot_be_read_is_named_and_the_rest_is_sent(
    wandb_server: WandbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, torn, table = (recorded(tmp_path, seed=seed) for seed in range(3))
    (torn / "record.json").write_text('{"schema_version": 1, "run_id": ')
    (table / "training.parquet").write_bytes(b"PAR1")
    assert main([str(tmp_path / "study")]) == 1
    told = capsys.readouterr().out
    assert "3 records: 0 were in W&B, 1 sent, 2 not:" in told
    assert f"  {torn}: " in told and f"  {table}: " in told and "Traceback" not in told
    assert_whole(wandb_server, whole)
    assert wandb_server.run(wandb_path(table)).state == "preempted", "what was not sent looks finished"


def test_without_anything_to_send_it_says_so(
    wandb_server: WandbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "absent")]) == 2
    assert f"{tmp_path}/absent: is no folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "empty")]) == 2
    assert "holds no record that could be sent" in capsys.readouterr().err
    torn = recorded(tmp_path)
    (torn / "record.json").write_text("{")
    assert main([str(tmp_path / "study")]) == 2
    assert str(torn) in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert not wandb_server.runs


def test_without_a_key_it_says_what_to_do(
    wandb_server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    recorded(tmp_path)
    assert main([str(tmp_path / "study")]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and "wandb login" in told and "Traceback" not in told
    assert not wandb_server.runs


def test_a_run_that_w_and_b_refuses_is_named(
    wandb_server: WandbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it refuses the id of a run that was deleted there."""
    kept, deleted = recorded(tmp_path), recorded(tmp_path, seed=1)
    mirror(kept, ONLINE)
    wandb_server.fail_with(410, only="UpsertBucket")
    assert main([str(tmp_path / "study")]) == 1
    told = capsys.readouterr().out
    assert "2 records: 1 were in W&B, 0 sent, 1 not:" in told
    assert f"  {deleted}: " in told and str(kept) not in told
    wandb_server.heal()
    wandb.teardown()  # the command ends, and is given again
    assert main([str(tmp_path / "study")]) == 0
    assert_whole(wandb_server, deleted)


def test_uploads_that_are_refused_are_named_and_sent_later(
    wandb_server: WandbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = recorded(tmp_path)
    wandb_server.fail_with(403, only="Artifact|^PUT")
    assert main([str(tmp_path / "study")]) == 1
    assert f"  {folder}: " in capsys.readouterr().out
    wandb_server.heal()
    assert main([str(tmp_path / "study")]) == 0
    assert_whole(wandb_server, folder)
