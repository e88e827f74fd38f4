"""Who does a run: one process at a time, on however many machines share the folder."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from regraft.records import BEGUN, CLAIM
from regraft.sweeps.failures import RunBusy

PATIENCE = 1.0
"""Seconds: who only asks whether a run is going on holds its lock for a moment."""


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold the run in `folder` while the block runs. The lock ends with the process, however that ends.

    Raises:
        RunBusy: Another process holds it.
    """
    lock = FileLock(folder / CLAIM, timeout=PATIENCE)
    try:
        lock.acquire()
    except Timeout:
        raise RunBusy(f"{folder}: another process is doing this run.") from None
    try:
        (folder / BEGUN).write_text(f"{platform.node()} {os.getpid()}\n", encoding="utf-8")
        yield
    finally:
        # not reached by a process that is killed: so the file tells of it
        (folder / BEGUN).unlink(missing_ok=True)
        lock.release()
