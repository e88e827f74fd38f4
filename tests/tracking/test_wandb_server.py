"""The stand-in server against W&B's unmodified client."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
import wandb_server as module
from wandb_server import WandbServer

PROJECT = "tester/study"


def start(run_id: str = "run", finish_timeout: float = 0, **options: Any) -> wandb.Run:
    """An online run that is quick to try again."""
    settings = wandb.Settings(
        console="off",
        x_disable_stats=True,
        finish_timeout=finish_timeout,
        finish_timeout_raises=True,
        x_file_stream_retry_wait_min_seconds=1,
        x_file_stream_retry_wait_max_seconds=1,
    )
    entity, project = PROJECT.split("/")
    return wandb.init(entity=entity, project=project, id=run_id, settings=settings, **options)


def logged(run_id: str = "run", exit_code: int = 0, rows: int = 1, **options: Any) -> None:
    """A whole run."""
    run = start(run_id, **options)
    for row in range(rows):
        run.log({"loss": 1.0 / (row + 1)})
    run.finish(exit_code=exit_code)


def test_a_run_is_read_back_in_full(wandb_server: WandbServer) -> None:
    config = {"loss": {"name": "kl", "temperature": 2.0}, "layers": [1, 2]}
    run = start(name="l2 kl", group="study", job_type="kl", tags=["l2", "kl"], config=config)
    run.define_metric("test/*", step_metric="sparsity", summary="last")
    for step, loss in enumerate((0.5, math.inf, math.nan)):
        run.log({"loss": loss, "sparsity": step / 2, "test/accuracy": 0.1 * step}, step=10 * step)
    media = {
        "predictions": wandb.Table(columns=["question", "gold"], data=[["a?", 1]]),
        "scores": wandb.Histogram([1.0, 2.0]),
        "figure": wandb.Image(np.zeros((2, 2, 3), dtype=np.uint8)),
    }
    run.log(media, step=30)
    run.summary["perplexity"] = math.inf
    run.finish()

    kept = wandb_server.run(f"{PROJECT}/run")
    assert [row["_step"] for row in kept.rows()] == [0, 10, 20, 30]
    assert [path for path in kept.uploads() if path.startswith("media/images/figure")]

    (read,) = wandb.Api().runs(PROJECT)
    assert (read.id, read.name, read.state, read.group, read.job_type) == ("run", "l2 kl", "finished", "study", "kl")
    assert read.tags == ["l2", "kl"]
    assert read.config == config
    assert read.lastHistoryStep == 30
    assert read.metadata is not None and read.metadata["executable"] == sys.executable
    assert [row["loss"] for row in read.scan_history(keys=["loss", "_step"])] == [0.5, "Infinity", "NaN"]
    assert [row["loss"] for row in read.scan_history(min_step=10, max_step=20)] == ["Infinity"]
    assert list(read.history(keys=["test/accuracy"])["test/accuracy"]) == pytest.approx([0.0, 0.1, 0.2])
    assert [row["_step"] for row in read.history(pandas=False, samples=2)] == [0, 30]
    assert read.summary["perplexity"] == "Infinity"
    assert dict(read.summary["test/accuracy"]) == {"last": pytest.approx(0.2)}
    assert read.summary["predictions"]["nrows"] == 1
    assert {"config.yaml", "wandb-summary.json"} < {file.name for file in read.files()}
    assert {artifact.type for artifact in read.logged_artifacts()} == {"run_table"}


def test_a_run_is_in_the_state_in_which_it_ended(wandb_server: WandbServer) -> None:
    logged("good")
    logged("bad", exit_code=1)
    going = start("preempted")
    going.mark_preempting()
    going.finish(exit_code=1)
    killed = start("killed")
    states = {run.name: run.state for run in wandb_server.runs}
    assert states == {"good": "finished", "bad": "failed", "preempted": "preempted", "killed": "running"}
    wandb_server.lose_heartbeats()
    assert wandb.Api().run(f"{PROJECT}/killed").state == "crashed"
    assert wandb.Api().run(f"{PROJECT}/good").state == "finished"
    killed.finish()  # a run that is left open has a thread that fails seconds later


def test_a_run_tells_the_commit_of_its_code(
    wandb_server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org", *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "empty")
    monkeypatch.chdir(tmp_path)
    wandb.teardown()
    logged()
    assert wandb.Api().run(f"{PROJECT}/run").commit == git("rev-parse", "HEAD")


def test_a_resumed_run_goes_on(wandb_server: WandbServer) -> None:
    logged(rows=3, exit_code=1)
    run = start(resume="allow", config={"more": 1})
    assert run.resumed
    run.log({"loss": 0.0})
    assert wandb_server.run("run").state == "running"
    run.finish()
    kept = wandb_server.run("run")
    assert [row["_step"] for row in kept.rows()] == [0, 1, 2, 3]
    assert kept.state == "finished"
    assert kept.settings() == {"more": 1}
    with pytest.raises(wandb.errors.UsageError, match="resume"):
        start(resume="never")


def test_lines_that_are_sent_twice_are_kept_once(wandb_server: WandbServer) -> None:
    logged(rows=3)
    kept = wandb_server.run("run").rows()
    for call in [call for call in wandb_server.calls if call.name == "file_stream"]:
        wandb_server.answer("POST", f"/files/{PROJECT}/run/file_stream", call.body, wandb_server.api_key)
    assert len(kept) == 3
    assert wandb_server.run("run").rows() == kept


def test_artifacts_come_back_as_they_were(wandb_server: WandbServer, tmp_path: Path) -> None:
    def log(run_id: str, content: str, *aliases: str) -> None:
        (tmp_path / "record.json").write_text(content)
        (tmp_path / "same.json").write_text("same")
        artifact = wandb.Artifact("record", type="record", metadata={"run": run_id})
        artifact.add_file(str(tmp_path / "record.json"), name="deep/record +1.json")
        artifact.add_file(str(tmp_path / "same.json"))
        run = start(run_id)
        run.log_artifact(artifact, aliases=["latest", *aliases])
        run.finish()

    log("first", "one", "best")
    log("second", "two")
    log("third", "two", "again")

    api = wandb.Api()
    assert [artifact.version for artifact in api.artifacts("record", f"{PROJECT}/record")] == ["v1", "v0"]
    latest = api.artifact(f"{PROJECT}/record:latest", type="record")
    assert (latest.version, latest.metadata, sorted(latest.aliases)) == ("v1", {"run": "second"}, ["again", "latest"])
    folder = Path(latest.download(str(tmp_path / "latest")))
    assert (folder / "deep" / "record +1.json").read_text() == "two"
    assert (folder / "same.json").read_text() == "same"
    best = Path(api.artifact(f"{PROJECT}/record:best").download(str(tmp_path / "best")))
    assert (best / "deep" / "record +1.json").read_text() == "one"
    (mine,) = api.run(f"{PROJECT}/first").logged_artifacts()
    assert (mine.name, mine.type) == ("record:v0", "record")
    uploads = [name for name in wandb_server.names() if name.startswith("PUT objects/")]
    assert len(uploads) == 3, "what is there already is not uploaded again"
    with pytest.raises(wandb.errors.CommError, match="not found"):
        api.artifact(f"{PROJECT}/record:none")


def test_what_is_changed_later_stays_changed(wandb_server: WandbServer, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    made = wandb.Artifact("a", type="record")
    made.add_file(str(tmp_path / "a.txt"))
    run = start("maker")
    run.log_artifact(made)
    run.finish()
    run = start("user")
    run.use_artifact("a:v0")
    run.finish()
    artifact = wandb.Api().artifact(f"{PROJECT}/a:v0")
    artifact.aliases.append("good")
    artifact.metadata["seen"] = True
    artifact.save()
    read = wandb.Api().run(f"{PROJECT}/maker")
    read.tags.append("later")
    read.config["more"] = 1
    read.update()

    api = wandb.Api()
    assert api.artifact(f"{PROJECT}/a:good").metadata == {"seen": True}
    assert [item.name for item in api.run(f"{PROJECT}/user").used_artifacts()] == ["a:v0"]
    assert (api.run(f"{PROJECT}/maker").tags, api.run(f"{PROJECT}/maker").config) == (["later"], {"more": 1})
    assert wandb_server.run("maker").state == "finished"


def test_runs_are_filtered_ordered_and_paged(wandb_server: WandbServer) -> None:
    for number in range(5):
        loss = {"name": "kl" if number % 2 else "ce", "weight": number / 4}
        config = {"loss": loss, "seed": number}
        logged(
            f"r{number}",
            exit_code=int(number == 4),
            group="a" if number < 3 else "b",
            tags=["x"] * (number > 2),
            config=config,
        )

    def found(filters: dict[str, Any], **options: Any) -> list[str]:
        runs = wandb.Api().runs(PROJECT, filters=filters, per_page=2, **options)
        names = [run.id for run in runs]
        assert len(runs) == len(names)
        return names

    assert found({}) == ["r0", "r1", "r2", "r3", "r4"]
    assert found({}, order="-created_at") == ["r4", "r3", "r2", "r1", "r0"]
    assert found({}, order="-config.loss.value.weight") == ["r4", "r3", "r2", "r1", "r0"]
    assert found({"group": "a"}) == ["r0", "r1", "r2"]
    assert found({"config.loss.name": "kl"}) == ["r1", "r3"]
    assert found({"config.seed.value": {"$gte": 3}}) == ["r3", "r4"]
    assert found({"config.loss.value.name": {"$ne": "kl"}, "state": "finished"}) == ["r0", "r2"]
    assert found({"$or": [{"state": "failed"}, {"$and": [{"group": "a"}, {"config.seed": 0}]}]}) == ["r0", "r4"]
    assert found({"name": {"$in": ["r1", "r9"]}}) == ["r1"]
    assert found({"tags": {"$in": ["x"]}}) == ["r3", "r4"]
    assert found({"summary_metrics.loss": {"$gt": 0.5}, "config.none": None, "config.seed": {"$lt": 1}}) == ["r0"]
    assert found({"summary_metrics.loss": {"$gt": 1}}) == []
    assert wandb_server.names().count("Runs") >= 3


def test_a_workspace_and_a_report_are_saved(wandb_server: WandbServer) -> None:
    reports = pytest.importorskip("wandb_workspaces.reports.v2")
    workspaces = pytest.importorskip("wandb_workspaces.workspaces")
    logged()
    plot = reports.LinePlot(x="sparsity", y=["test/accuracy"])
    entity, project = PROJECT.split("/")
    section = workspaces.Section(name="curves", panels=[plot])
    workspace = workspaces.Workspace(entity=entity, project=project, name="Study", sections=[section]).save()
    workspace.name = "Study 2"
    workspace.save()
    blocks = [reports.P("text"), reports.PanelGrid(runsets=[reports.Runset(entity, project)], panels=[plot])]
    report = reports.Report(entity=entity, project=project, title="Report", blocks=blocks).save(draft=True)

    saved = {view.type: view for view in wandb_server.views}
    assert [view.displayName for view in wandb_server.views] == ["Study 2", "Report"]
    assert saved["project-view"].content()["section"]["panelBankConfig"]["sections"][0]["name"] == "curves"
    assert {"paragraph", "panel-grid"} <= {block["type"] for block in saved["runs/draft"].content()["blocks"]}
    assert workspaces.Workspace.from_url(workspace.url).name == "Study 2"
    assert reports.Report.from_url(report.url).title == "Report"


def test_what_is_unknown_is_noticed(wandb_server: WandbServer) -> None:
    began = time.monotonic()
    with pytest.raises(Exception, match="no field 'secrets'"):
        wandb.Api()._service_api.execute_graphql("query Secrets { viewer { secrets } }")
    with pytest.raises(Exception, match="no field 'dropTables'"):
        wandb.Api()._service_api.execute_graphql("mutation Drop { dropTables { success } }")
    logged()
    with pytest.raises(Exception, match="no run has 'colour'"):
        len(wandb.Api().runs(PROJECT, filters={"colour": "red"}))
    with pytest.raises(Exception, match="takes no depth"):
        wandb.Api()._service_api.execute_graphql('query Deep { project(name: "study", depth: 2) { id } }')
    assert time.monotonic() - began < 10, "W&B does not ask again"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{wandb_server.url}/nowhere", timeout=5)
    assert len(wandb_server.unknown) == 5
    with pytest.raises(AssertionError, match="Secrets.*User has no field 'secrets'"):
        wandb_server.check()
    wandb_server.unknown.clear()


def test_another_key_is_refused(wandb_server: WandbServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "local-" + "f" * 40)
    with pytest.raises(wandb.errors.CommError, match="user is not logged in"):
        start()
    assert wandb_server.runs == []
    assert {call.status for call in wandb_server.calls} == {401}


@pytest.mark.parametrize("status", [429, 500])
def test_what_failed_a_few_times_arrives(wandb_server: WandbServer, status: int) -> None:
    run = start()
    wandb_server.fail_with(status, only="file_stream", times=1, retry_after=0.1)
    run.log({"loss": 1.0})
    run.finish()
    answers = [call.status for call in wandb_server.calls if call.name == "file_stream"]
    assert status in answers and answers[-1] == 200
    assert len(wandb_server.run("run").rows()) == 1
    assert wandb_server.run("run").state == "finished"


def test_uploads_beyond_the_quota_are_refused(wandb_server: WandbServer, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    run = start()
    wandb_server.fail_with(403, only="PUT objects")
    artifact = wandb.Artifact("a", type="record")
    artifact.add_file(str(tmp_path / "a.txt"))
    logged_artifact = run.log_artifact(artifact)
    with pytest.raises(ValueError, match="failed"):
        logged_artifact.wait(timeout=10)
    run.finish()
    assert wandb_server.artifacts == []
    assert wandb_server.run("run").state == "finished"


def test_a_killed_server_comes_back_with_what_it_had(wandb_server: WandbServer) -> None:
    logged("before")
    run = start("lost", finish_timeout=1)
    wandb_server.close()
    with pytest.raises(OSError):
        urllib.request.urlopen(wandb_server.url, timeout=5)
    with pytest.raises(TimeoutError):
        run.finish()
    wandb_server.restart()
    assert {run.name: run.state for run in wandb_server.runs} == {"before": "finished", "lost": "running"}
    logged("after")
    assert wandb_server.run("after").state == "finished"


def test_hanging_and_slow_answers(wandb_server: WandbServer) -> None:
    run = start(finish_timeout=1)
    wandb_server.hang()
    with pytest.raises(TimeoutError):
        run.finish()
    assert wandb_server.calls[-1].status == 0
    waiting = threading.Thread(target=swallow, args=(wandb_server.url,))
    waiting.start()
    while "GET /" not in wandb_server.names():
        time.sleep(0.01)
    wandb_server.heal()
    waiting.join(timeout=5)
    assert not waiting.is_alive(), "who hung is dropped"
    wandb_server.slow(0.3, only="UpsertBucket")
    began = time.monotonic()
    logged("slow")
    assert time.monotonic() - began > 0.3
    assert wandb_server.run("slow").state == "finished"


def test_nothing_of_a_closed_server_is_left(wandb_server: WandbServer) -> None:
    server = WandbServer()
    server.hang()
    waiting = [threading.Thread(target=swallow, args=(server.url,)) for _ in range(8)]
    for thread in waiting:
        thread.start()
    while len(server.calls) < len(waiting):
        time.sleep(0.01)
    server.close()
    for thread in waiting:
        thread.join(timeout=5)
    assert not any(thread.is_alive() for thread in waiting)
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("wandb-server") == 1, "that of the fixture alone"


def swallow(url: str) -> None:
    with pytest.raises(OSError):
        urllib.request.urlopen(url, timeout=20)


def test_the_command_serves_other_processes(tmp_path: Path, wandb_server: WandbServer) -> None:
    code = """
import wandb
run = wandb.init(project="study")
run.log({"loss": 1})
run.finish()
print([run.state for run in wandb.Api().runs("tester/study")])
"""
    command = [sys.executable, str(Path(module.__file__)), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("W&B stand-in at http://127.0.0.1:")
            lines = [process.stdout.readline() for _ in wandb_server.environment()]
            told = dict(line.strip().removeprefix("export ").split("=", 1) for line in lines)
            client = subprocess.run(
                [sys.executable, "-c", code], env=os.environ | told, timeout=60, capture_output=True, text=True
            )
        finally:
            process.send_signal(signal.SIGINT)
        assert client.stdout.strip() == "['finished']", client.stderr
        assert process.stdout.read() == "", "nothing was unknown"
    assert process.returncode == 0
    assert wandb_server.calls == []
