"""`regraft` in a process of its own, to be watched and stopped."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path


def start(folder: Path, cache: Path, *arguments: str, by: Sequence[str] = ()) -> subprocess.Popen[str]:
    """`regraft ...` in a process group of its own.

    Args:
        folder: Where it runs.
        cache: Its cache.
        arguments: What it is given.
        by: The module that starts it, with its options.
    """
    return subprocess.Popen(
        [sys.executable, "-m", *by, "regraft", *arguments],
        cwd=folder,
        env=os.environ | {"REGRAFT_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str], seconds: float = 120) -> None:
    """Wait while `process` goes on."""
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)
