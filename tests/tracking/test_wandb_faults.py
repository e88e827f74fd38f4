"""W&B fails: the run goes on, one warning is given, little time is lost, and nothing is lost after a sync."""

from __future__ import annotations

import logging
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wandb
from recorded import PROJECT, calls, expected_history, on_disk, recorded, wandb_path
from wandb_server import WandbServer

from regraft.records import Record
from regraft.tracking.guard import Guarded
from regraft.tracking.replay import info
from regraft.tracking.wandb.log import Wandb, digest
from regraft.tracking.wandb.sync import main

QUICK = Wandb(mode="online", project=PROJECT, timeout=1.0)
UPLOADS = "Artifact|^PUT"


Fault = Callable[[WandbServer], None]
"""What befalls the server."""
FAULTS: dict[str, Fault] = {
    "refuses": lambda server: server.close(),
    "hangs": lambda server: server.hang(),
    "500": lambda server: server.fail_with(500),
    "429": lambda server: server.fail_with(429),
    "403": lambda server: server.fail_with(403),
    "401": lambda server: server.fail_with(401),
    "quota": lambda server: server.fail_with(403, only=UPLOADS),
    "history hangs": lambda server: server.hang(only="file_stream"),
    "history 500": lambda server: server.fail_with(500, only="file_stream"),
    "uploads hang": lambda server: server.hang(only="^PUT"),
    "a moment": lambda server: server.fail_with(500, only="file_stream", times=1),
}


def nothing(_: WandbServer) -> None: ...


NOTICED = [name for name in FAULTS if name != "a moment"]
BEGINNINGS = {"start": 0, "middle": 6, "end": 1000}
"""Calls of the run that go well before."""


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tracker has failed in this process yet; and W&B gives up soon."""
    monkeypatch.setattr(Guarded, "_failed", {})
    monkeypatch.setenv("WANDB_HTTP_TIMEOUT", "1")


def disturbed(server: WandbServer, folder: Path, tracker: Wandb, fault: Fault, after: int) -> float:
    """Seconds that a run waits for its tracker, whose server fails after so many calls."""
    record = Record.load(folder)
    told = list(calls(record, folder))
    started = time.monotonic()
    if after == 0:
        fault(server)
    log = Guarded(tracker=tracker).start(info(record, folder))
    for number, call in enumerate(told):
        if number == after:
            fault(server)
        call(log)
    if after >= len(told):
        fault(server)
    log.finish(record)
    return time.monotonic() - started


def heal(server: WandbServer) -> None:
    """The server is well again, and the process that ran has ended."""
    server.heal()
    server.restart()
    wandb.teardown()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and record.name.startswith("regraft")
    ]


def assert_told(caplog: pytest.LogCaptureFixture) -> None:
    (told,) = warnings(caplog)
    assert told.startswith("W&B: ") and "`make sync SWEEP=NAME` sends it." in told
    assert "\n" not in told, "a warning is one line"


def assert_synced(server: WandbServer, folder: Path) -> None:
    """After a sync, W&B holds the whole record once."""
    assert main([str(folder.parent)]) == 0
    run = wandb.Api().run(wandb_path(folder))
    expected = expected_history(folder)
    rows = list(run.scan_history())
    assert [row["_step"] for row in rows] == sorted(expected)
    for row in rows:
        assert {key: row[key] for key in expected[row["_step"]]} == expected[row["_step"]]
    assert (run.state, run.summary["record"]) == ("finished", digest(folder))
    (held,) = [each for each in server.artifacts if each.artifactSequence.kind == "record"]
    contents = {name: server.backend.storage[f"objects/{entry['digest']}"] for name, entry in held.entries().items()}
    assert contents == on_disk(folder)
    assert len(server.runs) == 1


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        *((name, "start") for name in ("refuses", "hangs", "500", "429")),
        *((name, "middle") for name in ("refuses", "500", "quota")),
        *((name, "end") for name in ("403", "uploads hang")),
    ],
)
def test_a_server_that_fails_holds_nobody_up(
    wandb_server: WandbServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, begins: str
) -> None:
    folder = recorded(tmp_path)
    assert disturbed(wandb_server, folder, QUICK, FAULTS[name], BEGINNINGS[begins]) < 8
    assert_told(caplog)
    left = [path for path in folder.rglob("*") if path.is_file() and wandb_server.api_key.encode() in path.read_bytes()]
    assert not left, "the key is kept"
    heal(wandb_server)
    run = next(iter(wandb_server.runs), None)
    assert run is None or "record" not in run.summary(), "W&B is believed to have what it has not"
    assert_synced(wandb_server, folder)
    assert not (folder / "wandb").exists()


def test_a_short_trouble_is_not_noticed(
    wandb_server: WandbServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = recorded(tmp_path)
    disturbed(wandb_server, folder, Wandb(mode="online", project=PROJECT), FAULTS["a moment"], 6)
    assert not warnings(caplog)
    wandb.teardown()
    assert_synced(wandb_server, folder)


def test_later_runs_of_the_process_do_not_wait(
    wandb_server: WandbServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wandb_server.fail_with(500)
    folders = [recorded(tmp_path, seed=seed) for seed in range(2)]
    disturbed(wandb_server, folders[0], QUICK, nothing, 0)
    assert disturbed(wandb_server, folders[1], QUICK, nothing, 0) < 0.5
    assert not [call for call in wandb_server.calls if folders[1].name.encode() in call.body]
    assert_told(caplog)


def test_without_a_key_nothing_is_asked(
    wandb_server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = recorded(tmp_path)
    with monkeypatch.context() as without:
        without.delenv("WANDB_API_KEY")
        assert disturbed(wandb_server, folder, QUICK, nothing, 0) < 8
        assert_told(caplog)
        assert "no key is known" in warnings(caplog)[0]
    assert not wandb_server.runs
    wandb.teardown()
    assert_synced(wandb_server, folder)


def test_a_key_that_is_refused_is_named_and_not_shown(
    wandb_server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder, wrong = recorded(tmp_path), "local-" + "f" * 40
    with monkeypatch.context() as other:
        other.setenv("WANDB_API_KEY", wrong)
        assert disturbed(wandb_server, folder, QUICK, nothing, 0) < 8
        assert_told(caplog)
    assert wrong not in caplog.text
    wandb.teardown()
    assert_synced(wandb_server, folder)


TERMINAL = """
import logging, sys
from pathlib import Path
from regraft.records import Record
from regraft.tracking.guard import Guarded
from regraft.tracking.replay import info, replay
from regraft.tracking.wandb.log import Wandb
logging.basicConfig(level=logging.WARNING)
assert sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()
folder = Path(sys.argv[1])
record = Record.load(folder)
replay(record, folder, Guarded(tracker=Wandb(mode="online", timeout=1.0)).start(info(record, folder)))
sys.stdout.write("through\\n")
"""


def test_on_a_terminal_nobody_is_asked_for_a_key(
    wandb_server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W&B would ask, and a run would wait for the answer for ever."""
    folder = recorded(tmp_path)
    monkeypatch.delenv("WANDB_API_KEY")
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SILENT"}
    process = subprocess.Popen(
        [sys.executable, "-c", TERMINAL, str(folder)], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    told, until = b"", time.monotonic() + 40
    try:
        while time.monotonic() < until and select.select([ours], [], [], until - time.monotonic())[0]:
            try:
                read = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not read:
                break
            told += read
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    text = told.decode()
    assert text.endswith("through\r\n"), text
    assert text.count("WARNING") == 1 and "no key is known" in text and "make sync" in text


@pytest.mark.slow
@pytest.mark.parametrize("begins", BEGINNINGS)
@pytest.mark.parametrize("name", NOTICED)
def test_with_the_patience_that_users_have(
    wandb_server: WandbServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    record_property: Callable[[str, Any], None],
    name: str,
    begins: str,
) -> None:
    monkeypatch.delenv("WANDB_HTTP_TIMEOUT")
    folder = recorded(tmp_path)
    tracker = Wandb(mode="online", project=PROJECT)
    seconds = disturbed(wandb_server, folder, tracker, FAULTS[name], BEGINNINGS[begins])
    started = time.monotonic()
    wandb.teardown()  # what the end of the process takes
    seconds += time.monotonic() - started
    record_property("seconds", round(seconds, 1))
    assert seconds < 30
    assert_told(caplog)
    heal(wandb_server)
    assert_synced(wandb_server, folder)
