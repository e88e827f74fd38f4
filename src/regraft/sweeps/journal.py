"""Optuna's own log of a study, as a file that many processes read and append to, and the numbers it is told."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from regraft.config.ranges import ConfigError
from regraft.records import Record

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)

JOURNAL = "journal.log"
STUDY = "search"
"""Name of the one study in a journal."""


class Unmeasured(ValueError):
    """A record does not hold the number that the search is after."""


class NotFinite(Unmeasured):
    """A record holds the number, and it is none: the run went wrong, not the search."""


def require_optuna() -> None:
    """Make Optuna speak only of what is wrong.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"hydra/sweeper=search needs the package {error.name}: pip install 'regraft[search]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def storage(journal: Path) -> optuna.storages.JournalStorage:
    """The file as Optuna's storage.

    Raises:
        ConfigError: It is broken.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    # the kernel frees this lock when its holder is killed; Optuna's own would stay for 30 s
    lock: Any = FileLock(journal.with_suffix(".lock"))
    try:
        return JournalStorage(JournalFileBackend(str(journal), lock_obj=lock))
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{journal}: is no journal of a search ({error}). Move it away and search anew: finished runs in this "
            "sweep are not run again."
        ) from error


def mend(journal: Path) -> None:
    """Take off a last line that was not written whole (a full disk, a power cut): it would spoil the next one."""
    if not journal.exists():
        return
    with FileLock(journal.with_suffix(".lock")), journal.open("rb+") as file:
        text = file.read()
        if text and not text.endswith(b"\n"):
            log.warning("%s: its last line was not written whole and is taken off", journal)
            file.truncate(text.rfind(b"\n") + 1)


def measured(record: Record) -> dict[str, float | None]:
    """What the last evaluation measured: `split/metric`, or `metric` where it has no split, -> value."""
    last = max((row.stage_index for row in record.rows), default=-1)
    return {row.name: row.value for row in record.rows if row.stage_index == last}


def find(numbers: Mapping[str, float | None], metric: str) -> float:
    """The number that `metric` names: by its whole name, or without the split if only one split has it.

    Raises:
        Unmeasured: There is none, there are several, or it is no finite number.
    """
    names = [metric] if metric in numbers else [name for name in numbers if name.endswith(f"/{metric}")]
    if len(names) > 1:
        raise Unmeasured(f"{metric}: is measured on several splits. Choose one of {', '.join(sorted(names))}.")
    if not names:
        raise Unmeasured(f"{metric}: is not in the record, which has {', '.join(sorted(numbers)) or 'no numbers'}.")
    value = numbers[names[0]]
    if value is None:
        raise NotFinite(f"{names[0]}: is no finite number in this run.")
    return value
