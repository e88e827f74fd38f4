"""Content-addressed store for everything that is expensive to make.

An entry is a folder `<root>/<kind>/<key>/`. It is made in a folder aside and renamed when whole, so a reader never sees
half an entry; a lock per entry lets one of several processes make it while the others wait.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock


def digest(value: Any, length: int = 16) -> str:
    """Hex digits of the SHA-256 of plain data, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def default_root() -> Path:
    """`$REGRAFT_CACHE`, else `regraft` in the user's cache folder."""
    if root := os.environ.get("REGRAFT_CACHE"):
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "regraft"


class Cache:
    """Store of made things under `root`."""

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = Path(root).expanduser() if root is not None else default_root()

    def path(self, kind: str, key: str) -> Path:
        return self.root / kind / key

    def find(self, kind: str, key: str) -> Path | None:
        """The folder of a whole entry, or None."""
        path = self.path(kind, key)
        return path if path.is_dir() else None

    def entry(self, kind: str, key: str, make: Callable[[Path], None]) -> Path:
        """The folder of an entry; `make(folder)` fills an empty folder if there is none yet.

        Nothing is left behind if `make` raises.
        """
        path = self.path(kind, key)
        if path.is_dir():
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if path.is_dir():
                return path
            aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=".making-"))
            try:
                make(aside)
                aside.chmod(0o755)
                for file in aside.rglob("*"):
                    if file.is_file():
                        _to_disk(file)
                os.replace(aside, path)
            except BaseException:
                shutil.rmtree(aside, ignore_errors=True)
                raise
        return path


def _to_disk(file: Path) -> None:
    """Written pages reach the disk before the entry gets its name."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
