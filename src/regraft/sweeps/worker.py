"""What a process is to the sweep whose runs it does."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import sys

import psutil

SWEEP = "REGRAFT_SWEEP_PROCESS"
"""Environment: the process that runs the sweep. Workers inherit it."""
PARENT_DEATH_SIGNAL = 1
"""Linux: PR_SET_PDEATHSIG."""


def begin_sweep() -> None:
    """This process runs a sweep."""
    os.environ[SWEEP] = str(os.getpid())


def is_worker() -> bool:
    """Whether the sweep of this run is run by another process."""
    return SWEEP in os.environ and os.environ[SWEEP] != str(os.getpid())


def is_orphan() -> bool:
    """Whether this is a worker whose sweep is gone. Workers on other machines are no children of it."""
    return _was_child() and os.getppid() != int(os.environ[SWEEP])


@functools.cache
def stop_with_the_sweep() -> None:
    """Have a worker told to stop when the process that runs the sweep ends, however that ends (on Linux)."""
    if _was_child() and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGTERM)
        if is_orphan():
            os.kill(os.getpid(), signal.SIGTERM)


@functools.cache
def _was_child() -> bool:
    return is_worker() and os.getppid() == int(os.environ[SWEEP])


def children() -> list[int]:
    """The worker processes that joblib started for this one."""
    found = []
    for child in psutil.Process().children():
        try:
            if any("loky" in argument for argument in child.cmdline()):
                found.append(child.pid)
        except psutil.Error:
            continue  # it has ended
    return found


def dismiss() -> None:
    """End the workers that joblib keeps for the next runs."""
    if "joblib" in sys.modules:
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True, kill_workers=True)
