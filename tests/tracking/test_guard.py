"""A tracker that fails is said to once and left alone; the run goes on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
from recorded import recorded

from regraft.interfaces import RunInfo, RunLog, Tracker
from regraft.records import Record
from regraft.sweeps.watch import Hopeless
from regraft.tracking import guard
from regraft.tracking.guard import Guarded
from regraft.tracking.none import Silent
from regraft.tracking.replay import info, replay


@dataclass(frozen=True, kw_only=True)
class Moody(Tracker):
    """Fails in one call, and keeps what it was told."""

    title: ClassVar[str] = "Moody"
    later: ClassVar[str] = "`make sync` sends it"

    fails_in: str = ""
    error: Exception = field(default_factory=lambda: OSError("the line is dead.\n"), repr=False)
    told: list[str] = field(default_factory=list, repr=False)

    def start(self, run: RunInfo) -> RunLog:
        self.take("start")
        return MoodyLog(self)

    def take(self, call: str) -> None:
        self.told.append(call)
        if call == self.fails_in:
            raise self.error


class MoodyLog(RunLog):
    def __init__(self, tracker: Moody) -> None:
        self._tracker = tracker

    def step(self, *_: Any) -> None:
        self._tracker.take("step")

    def stage(self, *_: Any) -> None:
        self._tracker.take("stage")

    def finish(self, record: Record | None) -> None:
        self._tracker.take("finish" if record is not None else "stop")


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The seconds that this process has lived; no tracker has failed yet."""
    now = [1000.0]
    monkeypatch.setattr(Guarded, "_failed", {})
    monkeypatch.setattr(guard.time, "monotonic", lambda: now[0])
    yield now


def whole(tracker: Tracker, folder: Path) -> None:
    """A run that `tracker` watches."""
    record = Record.load(folder)
    replay(record, folder, tracker.start(info(record, folder)))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_tracker_that_works_is_told_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = Moody()
    whole(Guarded(tracker=tracker), recorded(tmp_path, steps=3))
    steps = ["step"] * 3
    assert tracker.told == ["start", *["stage"] * 4, *steps, *["stage"] * 2, "finish"]
    assert not warnings(caplog)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("start", ["start"]),
        ("stage", ["start", "stage", "stop"]),
        ("step", ["start", *["stage"] * 4, "step", "stop"]),
        ("finish", ["start", *["stage"] * 4, "step", "step", *["stage"] * 2, "finish"]),
    ],
)
def test_what_fails_is_said_once_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, call: str, told: list[str]
) -> None:
    """A mirror that broke off is closed as of a run that was stopped: it must not look as if it had finished."""
    tracker = Moody(fails_in=call)
    whole(Guarded(tracker=tracker), recorded(tmp_path, steps=2))
    assert tracker.told == told
    assert warnings(caplog) == [
        "Moody: the line is dead. The run goes on without it, and its record stays whole: `make sync` sends it."
    ]


def test_a_mirror_that_cannot_even_be_closed_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Moody):
        def take(self, call: str) -> None:
            if call != "start":
                raise OSError(call)

    whole(Guarded(tracker=Broken()), recorded(tmp_path))
    assert len(warnings(caplog)) == 1 and "stage" in warnings(caplog)[0]


def test_an_error_without_words_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole(Guarded(tracker=Moody(fails_in="start", error=TimeoutError())), recorded(tmp_path))
    (told,) = warnings(caplog)
    assert told.startswith("Moody: TimeoutError. The run goes on")


@pytest.mark.parametrize("call", ["start", "stage", "step", "finish"])
def test_later_runs_leave_it_alone_for_a_while(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, clock: list[float], call: str
) -> None:
    """Also through another object that says the same: each run of a sweep composes its own."""
    whole(Guarded(tracker=Moody(fails_in=call)), recorded(tmp_path))
    later = Moody(fails_in=call)
    clock[0] += Guarded.RETRY - 1
    whole(Guarded(tracker=later), recorded(tmp_path, seed=1))
    assert later.told == [] and len(warnings(caplog)) == 1
    another = Moody()
    whole(Guarded(tracker=another), recorded(tmp_path, seed=2))
    assert another.told[0] == "start" and another.told[-1] == "finish"
    clock[0] += 2
    whole(Guarded(tracker=later), recorded(tmp_path, seed=3))
    assert later.told[0] == "start" and len(warnings(caplog)) == 2


def test_what_is_wrong_with_one_run_alone_keeps_no_other_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole(
        Guarded(tracker=Moody(fails_in="start", error=ValueError("a tag is too long\nin four\nlines"))),
        recorded(tmp_path),
    )
    assert len(warnings(caplog)) == 1 and "lines" not in warnings(caplog)[0]
    later = Moody(fails_in="start", error=ValueError())
    whole(Guarded(tracker=later), recorded(tmp_path, seed=1))
    assert later.told == ["start"]


def test_a_machine_that_has_just_started_has_seen_no_failure(tmp_path: Path, clock: list[float]) -> None:
    clock[0] = 1.0
    tracker = Moody()
    whole(Guarded(tracker=tracker), recorded(tmp_path))
    assert tracker.told[0] == "start"


@dataclass(frozen=True, kw_only=True)
class Search(Tracker):
    """As the tracker of a search: it stops the run from outside the guard."""

    tracker: Tracker

    def start(self, run: RunInfo) -> RunLog:
        inner = self.tracker.start(run)

        class Stops(Silent):
            def stage(self, *arguments: Any) -> None:
                inner.stage(*arguments)
                raise Hopeless("stopped by the search")

        return Stops()


def test_a_search_still_stops_its_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = Moody(fails_in="stage")
    with pytest.raises(Hopeless):
        whole(Search(tracker=Guarded(tracker=tracker)), recorded(tmp_path))
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_is_no_failure_of_the_tracker_passes(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error):
        whole(Guarded(tracker=Moody(fails_in="stage", error=error())), recorded(tmp_path))  # type: ignore[arg-type]
