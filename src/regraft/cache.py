"""Content-addressed store for everything that is expensive to make.

An entry is a folder `<root>/<kind>/<key>/`. It is made in a folder aside and renamed when whole, so a reader never sees
half an entry; a lock per entry lets one of several processes make it while the others wait. Sizes and SHA-256 of its
files lie in it: an entry that a full disk, a crash or a failing drive has torn is noticed, said, and made anew.

The store is bounded: when it has grown beyond its limit, what was used longest ago goes first.

`<root>/progress/<key>.safetensors` is what continues an interrupted stage; the run removes it when it has finished.

    python -m regraft.cache --stats
    python -m regraft.cache --clear
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from filelock import FileLock

log = logging.getLogger(__name__)

FILES = ".files.json"
"""In an entry, written last: name of each file -> its bytes and its SHA-256. Its time is when the entry was used."""
PROGRESS = "progress"
GIGABYTE = 10**9
IN_USE = 900.0
"""Seconds after its last use for which an entry is not evicted: somebody may be reading it."""
ABANDONED = 7 * 24 * 3600.0
"""Seconds after which the progress of a training, or what a killed process left, is taken for abandoned."""
SHARE_BETWEEN_TRIMS = 0.01
"""Share of the limit that a process writes before it looks again at how large the store is."""


def digest(value: Any, length: int = 16) -> str:
    """Hex digits of the SHA-256 of plain data, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def default_root() -> Path:
    """`$REGRAFT_CACHE`, else `regraft` in the user's cache folder."""
    if root := os.environ.get("REGRAFT_CACHE"):
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "regraft"


@dataclass(frozen=True)
class Entry:
    """Something that lies in the store."""

    kind: str
    path: Path
    bytes: int
    used: float
    """When it was used last, in seconds since the epoch."""

    @property
    def is_in_use(self) -> bool:
        """Whether somebody may need it now; asked again, for it may have been used since it was listed."""
        try:
            used = (self.path if self.kind == PROGRESS else self.path / FILES).stat().st_mtime
        except OSError:
            return False
        return time.time() - used < (ABANDONED if self.kind == PROGRESS else IN_USE)


class Cache:
    """Store of made things under `root`.

    Args:
        root: Its folder; None takes `default_root()`.
        limit: Bytes above which the entries used longest ago are removed; None bounds nothing.
    """

    _verified: ClassVar[set[tuple[Path, int]]] = set()
    """Entries whose content this process has read and found whole, with the time at which they were made."""
    _unseen: ClassVar[dict[Path, int]] = {}
    """Root -> bytes that this process wrote there since it last looked through it."""

    def __init__(self, root: Path | str | None = None, limit: int | None = None) -> None:
        self.root = Path(root).expanduser() if root is not None else default_root()
        self.limit = limit

    def path(self, kind: str, key: str) -> Path:
        return self.root / kind / key

    def progress(self, key: str) -> Path:
        """The file that continues the stage `key`, if it exists."""
        return self.root / PROGRESS / f"{key}.safetensors"

    def find(self, kind: str, key: str) -> Path | None:
        """The folder of a whole entry, or None. A torn one is told of, and counts as none."""
        path = self.path(kind, key)
        if not path.is_dir():
            return None
        if fault := self._fault(path):
            log.warning("%s: %s; it is made anew when it is needed", path, fault)
            return None
        self._touch(path)
        return path

    def entry(self, kind: str, key: str, make: Callable[[Path], None]) -> Path:
        """The folder of an entry; `make(folder)` fills an empty folder if there is no whole one yet.

        Nothing is left behind if `make` raises.

        Raises:
            OSError: The store cannot be written.
        """
        if found := self.find(kind, key):
            return found
        path = self.path(kind, key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(f"{path}.lock")
            lock.acquire()
        except OSError as error:
            raise self._told(error) from error
        try:
            if self.find(kind, key) is None:
                self._make(path, make)
        finally:
            lock.release()
        return path

    def _make(self, path: Path, make: Callable[[Path], None]) -> None:
        """Fill `path`; the caller holds its lock."""
        for stale in path.parent.glob(f".making-{path.name}-*"):
            # of a process that was killed: whoever makes this entry holds the lock, and that is us
            shutil.rmtree(stale, ignore_errors=True)
        try:
            aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".making-{path.name}-"))
        except OSError as error:
            raise self._told(error) from error
        try:
            make(aside)
            files = {file.relative_to(aside).as_posix(): _described(file) for file in _files(aside)}
            (aside / FILES).write_text(json.dumps(files), encoding="utf-8")
            aside.chmod(0o755)
            for file in (*_files(aside), aside / FILES):
                _to_disk(file)
            _remove(path)
            os.replace(aside, path)
        except BaseException as error:
            shutil.rmtree(aside, ignore_errors=True)
            if self._is_of_writing(error):
                raise self._told(error) from error
            raise
        self._verified.add((path, _made_at(path)))
        self._bound(sum(size for size, _ in files.values()))

    def _fault(self, path: Path) -> str | None:
        """What is wrong with the entry at `path`; its content is read once a process."""
        try:
            files = json.loads((path / FILES).read_text(encoding="utf-8"))
            made = _made_at(path)
            whole = (path, made) in self._verified
            for name, (size, sha256) in files.items():
                file = path / name
                if not file.is_file():
                    return f"{name} is missing"
                if file.stat().st_size != size:
                    return f"{name} has {file.stat().st_size:,} bytes, and should have {size:,}"
                if not whole and _described(file)[1] != sha256:
                    return f"the content of {name} is not what was written"
        except (OSError, ValueError, TypeError, AttributeError) as error:
            return f"its list of files cannot be read ({error})"
        self._verified.add((path, made))
        return None

    def _touch(self, path: Path) -> None:
        try:
            os.utime(path / FILES)
        except OSError:
            return  # of a store that may be read only, nothing is evicted

    def _is_of_writing(self, error: BaseException) -> bool:
        """Whether the store cannot be written; libraries tell of a full disk in errors of their own."""
        if isinstance(error, OSError) and error.filename is not None:
            return Path(os.fsdecode(error.filename)).is_relative_to(self.root)
        full = os.strerror(errno.ENOSPC) in str(error)
        return full or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)

    def _told(self, error: BaseException) -> OSError:
        number = getattr(error, "errno", None) or errno.ENOSPC
        advice = "free some space, or choose another folder with runtime.cache=FOLDER or $REGRAFT_CACHE"
        return OSError(number, f"{os.strerror(number)} in the cache: {advice}", str(self.root))

    def entries(self) -> list[Entry]:
        """All whole entries and what continues interrupted stages, the one used longest ago first."""
        found = []
        for kind in sorted(self.root.iterdir()) if self.root.is_dir() else ():
            for path in kind.iterdir() if kind.is_dir() else ():
                if path.name.startswith("."):
                    continue  # it is being made, or taken away
                try:
                    if path.suffix == ".safetensors":
                        found.append(Entry(kind.name, path, path.stat().st_size, path.stat().st_mtime))
                    elif (files := path / FILES).is_file():
                        size = sum(size for size, _ in json.loads(files.read_text(encoding="utf-8")).values())
                        found.append(Entry(kind.name, path, size, files.stat().st_mtime))
                except (OSError, ValueError):
                    continue  # it was removed meanwhile, or is torn: then whoever needs it makes it anew
        return sorted(found, key=lambda entry: entry.used)

    def trim(self) -> int:
        """Remove what was used longest ago until the store is within its limit; returns the bytes removed."""
        entries = self.entries()
        total, removed = sum(entry.bytes for entry in entries), 0
        for left in self._leftovers(older=ABANDONED):
            _remove(left)
        for entry in entries:
            if self.limit is None or total - removed <= self.limit:
                break
            if not entry.is_in_use:
                _remove(entry.path)
                removed += entry.bytes
        if removed:
            log.info("%s: removed %.1f GB that were used longest ago", self.root, removed / GIGABYTE)
        return removed

    def _bound(self, written: int) -> None:
        if self.limit is None:
            return
        # a process looks through the store when it first writes there
        unseen = self._unseen.get(self.root, self.limit) + written
        if unseen >= SHARE_BETWEEN_TRIMS * self.limit:
            unseen = 0
            self.trim()
        self._unseen[self.root] = unseen

    def _leftovers(self, older: float) -> list[Path]:
        """What killed processes and earlier versions left, and nobody has touched for so many seconds."""
        before = time.time() - older
        found = []
        for path in self.root.glob("*/*"):
            with contextlib.suppress(OSError):
                is_entry = path.is_dir() and not path.name.startswith(".")
                is_left = path.name.startswith(".") or (is_entry and not (path / FILES).is_file())
                if is_left and path.stat().st_mtime <= before:
                    found.append(path)
        return found

    def clear(self, kind: str | None = None) -> int:
        """Remove everything, or everything of one kind; returns the bytes removed. Nobody may be using it."""
        removed = 0
        for left in self._leftovers(older=0):
            if kind in (None, left.parent.name):
                _remove(left)
        for entry in self.entries():
            if kind in (None, entry.kind):
                _remove(entry.path)
                removed += entry.bytes
        return removed


def _files(folder: Path) -> Iterator[Path]:
    return (file for file in sorted(folder.rglob("*")) if file.is_file() and file != folder / FILES)


def _described(file: Path) -> tuple[int, str]:
    with file.open("rb") as opened:
        return file.stat().st_size, hashlib.file_digest(opened, "sha256").hexdigest()


def _made_at(path: Path) -> int:
    return path.stat().st_mtime_ns


def _remove(path: Path) -> None:
    """Take an entry away at once: it never looks like half an entry."""
    if path.is_file():
        path.unlink(missing_ok=True)
        return
    if not path.exists():
        return
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=".removed-"))
    try:
        os.replace(path, aside)
    except FileNotFoundError:
        pass  # another process was faster
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _to_disk(file: Path) -> None:
    """Written pages reach the disk before the entry gets its name."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of the cache."""
    parser = argparse.ArgumentParser(prog="python -m regraft.cache", description="Look at the cache, or empty it.")
    parser.add_argument("--cache", type=Path, help="its folder; default: $REGRAFT_CACHE, else the user's cache folder")
    parser.add_argument("--kind", help="only entries of this kind, as --stats names them")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--stats", action="store_true", help="what is in it: entries, size and last use by kind")
    what.add_argument("--clear", action="store_true", help="remove everything, while no run is going on")
    given = parser.parse_args(arguments)
    cache = Cache(given.cache)
    entries = [entry for entry in cache.entries() if given.kind in (None, entry.kind)]
    if given.kind is not None and not entries:
        kinds = ", ".join(sorted({entry.kind for entry in cache.entries()})) or "none"
        sys.stderr.write(f"--kind {given.kind}: must be a kind that is there ({kinds}).\n")
        return 2
    if given.clear:
        sys.stdout.write(f"{cache.root}: removed {_size(cache.clear(given.kind))}\n")
        return 0
    lines = [f"{cache.root}: {_size(sum(entry.bytes for entry in entries))} in {len(entries):,} entries"]
    for kind in sorted({entry.kind for entry in entries}):
        own = [entry for entry in entries if entry.kind == kind]
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(max(entry.used for entry in own)))
        size = _size(sum(entry.bytes for entry in own))
        lines.append(f"  {kind:<16} {len(own):>6,} entries {size:>10}   last used {used}")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _size(size: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


if __name__ == "__main__":
    sys.exit(main())
