"""Runs mirrored to trackio: a dashboard on this machine, kept in one SQLite file, with no account and no server."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from regraft.config.ranges import ConfigError, require
from regraft.interfaces import RunInfo, RunLog, Tracker
from regraft.tracking.answers import Answers
from regraft.tracking.wandb import keys

if TYPE_CHECKING:
    from pathlib import Path

    import pandas
    from trackio import SQLiteStorage

    from regraft.records import Record, Row, StageRecord

FOLDER = ".trackio"
"""Beside the sweeps: the database, unless the environment names a folder."""
VARIABLE = "TRACKIO_DIR"
"""Environment variable that names trackio's folder; it is read when trackio is imported."""
EVERY = 1.0
"""Seconds between two writes of training steps."""


class TrackioLog(RunLog):
    """An open run of trackio.

    What is logged has a step and a name of its own, the same whenever the run is done again: optimizer steps and stages
    so far. So a run that goes on, or is mirrored a second time, says nothing twice.
    """

    def __init__(self, storage: type[SQLiteStorage], project: str, run: RunInfo, log_every: int) -> None:
        self._storage, self._project, self._log_every = storage, project, log_every
        self._folder = run.folder
        self._answers = Answers()
        self._id = keys.wandb_id(run.run_id, run.sweep)
        self._name = f"{run.name} ({run.run_id})"
        # the dashboard shows these three of each run
        about = {"_Group": run.sweep, "_Created": datetime.now(UTC).isoformat(), "_Username": None}
        self._config = keys.config(run.config, run.choices, run.run_id, run.sweep) | about
        self._lines: list[tuple[int, str, str, dict[str, Any]]] = []
        self._last = self._lines
        self._written = time.monotonic()
        self._steps = 0
        self._stages = 0

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        self._steps = step
        if step % self._log_every == 0:
            self._add({keys.STEP: step} | {keys.training(name): value for name, value in metrics.items()})
        if time.monotonic() >= self._written + EVERY:
            self._write("running")

    def stage(self, stage: StageRecord, rows: Sequence[Row], tables: Mapping[str, pandas.DataFrame]) -> None:
        if rows:
            self._add(keys.of_stage(stage, rows) | {keys.STEP: self._steps})
        self._answers.stage(stage, tables)
        self._stages += 1
        self._write("running")

    def finish(self, record: Record | None) -> None:
        if record is None:
            self._write("stopped")
            return
        ending: dict[str, Any] = {"finished": int(record.status == "finished")}
        if (table := self._answers.table(record, self._folder)) is not None:
            ending[keys.PREDICTIONS] = {"_type": "trackio.table", "_value": table.to_dict("records")}
        self._add(ending, record.status)
        self._write(record.status)

    def _add(self, numbers: Mapping[str, Any], name: str = "") -> None:
        at = self._steps + self._stages
        self._lines.append((at, f"{self._id}-{name or at}", datetime.now(UTC).isoformat(), dict(numbers)))

    def _write(self, status: str) -> None:
        """Bring the lines to disk; those that are there stay as they are."""
        self._written = time.monotonic()
        # trackio takes no status without a line: the last one is said again
        self._last, self._lines = self._lines or self._last, []
        if not self._last:
            return
        steps, names, times, numbers = (list(column) for column in zip(*self._last, strict=True))
        self._storage.bulk_log(
            project=self._project,
            run=self._name,
            run_id=self._id,
            metrics_list=numbers,
            steps=steps,
            timestamps=times,
            log_ids=names,
            config=self._config | {"status": status},
        )


@dataclass(frozen=True, kw_only=True)
class Trackio(Tracker):
    """trackio, which keeps runs in a file on this machine. `trackio show` opens its dashboard.

    Raises:
        ConfigError: It is not installed.
    """

    title: ClassVar[str] = "trackio"

    project: str = "regraft"
    """trackio's project: its runs are shown together."""
    log_every: int = 1
    """Optimizer steps between two points of a training curve."""

    def __post_init__(self) -> None:
        require(self.log_every >= 1, "log_every", self.log_every, "at least 1")
        if importlib.util.find_spec("trackio") is None:
            raise ConfigError(
                "_target_=regraft.tracking.trackio.Trackio: needs the package trackio: pip install 'regraft[trackio]'"
            )

    def start(self, run: RunInfo) -> RunLog:
        # trackio.init would ask the network for the user's name, watch the machine and print; a table is all it takes
        storage = _storage(run.folder.parent.parent / FOLDER)
        storage.validate_project_name(self.project)
        return TrackioLog(storage, self.project, run, self.log_every)


def _storage(folder: Path) -> type[SQLiteStorage]:
    """The storage of trackio in `folder`, or in the one that the environment names."""
    os.environ.setdefault(VARIABLE, str(folder.resolve()))
    from trackio import SQLiteStorage

    return SQLiteStorage
