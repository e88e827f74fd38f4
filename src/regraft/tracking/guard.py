"""A tracker that cannot do harm: what fails in it is said once, and the run goes on."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from regraft.interfaces import RunInfo, RunLog, Tracker
from regraft.tracking.none import Silent

if TYPE_CHECKING:
    import pandas

    from regraft.records import Record, Row, StageRecord

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Guarded(Tracker):
    """Hands everything on to `tracker` until that fails.

    A server that has failed one run is left alone by the runs that this process begins in the next `RETRY` seconds:
    each would wait for it anew. What is wrong with one run alone (`ValueError`, `TypeError`) is no reason for that.
    """

    tracker: Tracker
    """What is guarded."""
    RETRY: ClassVar[float] = 600.0
    _failed: ClassVar[dict[str, float]] = {}
    """The tracker with its settings -> when it failed."""

    def start(self, run: RunInfo) -> RunLog:
        if time.monotonic() < self._failed.get(repr(self.tracker), -self.RETRY) + self.RETRY:
            return Silent()
        try:
            return GuardedLog(self.tracker.start(run), self._tell)
        except Exception as error:
            self._tell(error)
            return Silent()

    def _tell(self, error: Exception) -> None:
        if not isinstance(error, (ValueError, TypeError)):
            self._failed[repr(self.tracker)] = time.monotonic()
        log.warning(
            "%s: %s. The run goes on without it, and its record stays whole%s.",
            self.tracker.title,
            (str(error).strip() or type(error).__name__).splitlines()[0].rstrip("."),
            f": {self.tracker.later}" if self.tracker.later else "",
        )


class GuardedLog(RunLog):
    """Hands everything on to `inner` until that fails, which `tell` says."""

    def __init__(self, inner: RunLog, tell: Callable[[Exception], None]) -> None:
        self._inner = inner
        self._tell = tell
        self._works = True

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        self._try(lambda: self._inner.step(step, metrics))

    def stage(self, stage: StageRecord, rows: Sequence[Row], tables: Mapping[str, pandas.DataFrame]) -> None:
        self._try(lambda: self._inner.stage(stage, rows, tables))

    def finish(self, record: Record | None) -> None:
        self._try(lambda: self._inner.finish(record), last=True)

    def _try(self, action: Callable[[], None], last: bool = False) -> None:
        try:
            if self._works:
                action()
        except Exception as error:
            self._works = False
            self._tell(error)
            if not last:
                # a mirror left open would be closed with the process, as if the run had ended well
                with contextlib.suppress(Exception):
                    self._inner.finish(None)
