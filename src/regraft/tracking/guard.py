"""A tracker that cannot do harm: what fails in it is said once, and the run goes on."""

from __future__ import annotations

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
    each would wait for it anew.
    """

    tracker: Tracker
    """What is guarded."""
    RETRY: ClassVar[float] = 600.0
    _failed: ClassVar[dict[Tracker, float]] = {}

    def start(self, run: RunInfo) -> RunLog:
        if time.monotonic() < self._failed.get(self.tracker, -self.RETRY) + self.RETRY:
            return Silent()
        try:
            return GuardedLog(self.tracker.start(run), self._tell)
        except Exception as error:
            self._tell(error)
            return Silent()

    def _tell(self, error: Exception) -> None:
        self._failed[self.tracker] = time.monotonic()
        log.warning(
            "%s: %s. The run goes on without it, and its record stays whole%s.",
            self.tracker.title,
            str(error).strip().rstrip(".") or type(error).__name__,
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
        self._try(lambda: self._inner.finish(record))

    def _try(self, action: Callable[[], None]) -> None:
        try:
            if self._works:
                action()
        except Exception as error:
            self._works = False
            self._tell(error)
