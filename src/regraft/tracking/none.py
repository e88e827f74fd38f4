"""No tracker: the record on disk is enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from regraft.interfaces import RunInfo, RunLog, Tracker


class Silent(RunLog):
    """Logs nothing."""

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Nothing."""

    def summary(self, metrics: Mapping[str, Any]) -> None:
        """Nothing."""

    def finish(self, *, failed: bool) -> None:
        """Nothing."""


@dataclass(frozen=True, kw_only=True)
class NoTracker(Tracker):
    """Mirrors nothing."""

    def start(self, run: RunInfo) -> RunLog:
        return Silent()
