"""No tracker: the record on disk is enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regraft.interfaces import RunInfo, RunLog, Tracker

if TYPE_CHECKING:
    import pandas

    from regraft.records import Record, Row, StageRecord


class Silent(RunLog):
    """Logs nothing."""

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Nothing."""

    def stage(self, stage: StageRecord, rows: Sequence[Row], tables: Mapping[str, pandas.DataFrame]) -> None:
        """Nothing."""

    def finish(self, record: Record | None) -> None:
        """Nothing."""


@dataclass(frozen=True, kw_only=True)
class NoTracker(Tracker):
    """Mirrors nothing."""

    def start(self, run: RunInfo) -> RunLog:
        return Silent()
