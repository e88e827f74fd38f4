"""A tracker that writes down which devices its run was given."""

from __future__ import annotations

import os
from dataclasses import dataclass

from regraft.interfaces import RunInfo, RunLog, Tracker
from regraft.tracking.none import Silent


@dataclass(frozen=True, kw_only=True)
class Devices(Tracker):
    """`devices.txt` holds what CUDA would see."""

    def start(self, run: RunInfo) -> RunLog:
        (run.folder / "devices.txt").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "all"), encoding="utf-8")
        return Silent()
