"""A model folder on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.config.ranges import require
from regraft.sources.base import Source

if TYPE_CHECKING:
    from regraft.cache import Cache

READ = frozenset({".json", ".safetensors", ".model", ".txt", ".jinja", ".py"})
"""Endings of the files that weights, config and tokenizer are read from."""


@dataclass(frozen=True, kw_only=True)
class LocalFolder(Source):
    """A plain transformers folder: config.json, safetensors weights and the tokenizer's files."""

    path: Path
    """The folder; `~` is the home folder."""

    def __post_init__(self) -> None:
        folder = self.folder
        require(folder.is_dir(), "path", self.path, "a folder that exists")
        require(
            (folder / "config.json").is_file(),
            "path",
            self.path,
            "a model folder with a config.json",
            "save_pretrained of transformers writes one.",
        )
        require(
            any(folder.glob("*.safetensors")),
            "path",
            self.path,
            "a model folder with weights in *.safetensors",
            "Other formats may run code when they are read: load the model where you trust it and save_pretrained it.",
        )

    @property
    def folder(self) -> Path:
        return self.path.expanduser().resolve()

    def fetch(self, cache: Cache) -> Path:
        return self.folder

    def identity(self) -> dict[str, Any]:
        """Where the folder is, and name, size and time of change of each file that is read."""
        files = sorted(file for file in self.folder.iterdir() if file.is_file() and file.suffix in READ)
        times = {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in files}
        return {"folder": str(self.folder), "files": times}
