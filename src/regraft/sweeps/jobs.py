"""The runs that a sweep answers for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from regraft.records import RECORD, Record, is_finished, is_running, was_killed


@dataclass(frozen=True)
class Job:
    """One run of the sweep."""

    overrides: tuple[str, ...]
    run_id: str
    folder: Path
    model_file: str | None

    @property
    def is_finished(self) -> bool:
        return is_finished(self.folder, self.model_file)

    @property
    def is_running(self) -> bool:
        return is_running(self.folder)

    @property
    def was_killed(self) -> bool:
        return was_killed(self.folder)

    @property
    def record(self) -> tuple[int, int] | None:
        """Tells the record that is there from one before or after it."""
        try:
            stat = (self.folder / RECORD).stat()
        except FileNotFoundError:
            return None
        return stat.st_ino, stat.st_mtime_ns

    @property
    def error(self) -> str | None:
        """Why its record is not that of a finished run."""
        try:
            return Record.load(self.folder).error
        except (FileNotFoundError, ValueError) as error:
            return str(error)


@dataclass(frozen=True)
class Finished:
    """What became of one job."""

    overrides: tuple[str, ...]
    run_id: str
    folder: Path
    error: str | None
    """None if the run has finished, now or before."""
