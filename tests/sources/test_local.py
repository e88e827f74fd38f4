from __future__ import annotations

import os
from pathlib import Path

import pytest

from regraft.cache import Cache
from regraft.config.ranges import ConfigError
from regraft.sources.local import LocalFolder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(b"weights")
    return path


def test_absent_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="path=.*nowhere: must be a folder that exists"):
        LocalFolder(path=tmp_path / "nowhere")


def test_folder_without_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match="with a config.json"):
        LocalFolder(path=folder)


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"weights in \*\.safetensors.*save_pretrained"):
        LocalFolder(path=folder)


def test_fetch_takes_the_folder_as_it_is(folder: Path, cache: Cache) -> None:
    assert LocalFolder(path=folder).fetch(cache) == folder.resolve()
    assert not cache.root.exists()


def test_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert LocalFolder(path=Path("~/model")).folder == folder.resolve()


def test_identity_follows_weights_and_config_alone(folder: Path) -> None:
    source = LocalFolder(path=folder)
    before = source.identity()
    (folder / "README.md").write_text("notes")
    assert source.identity() == before
    stat = (folder / "model.safetensors").stat()
    (folder / "model.safetensors").write_bytes(b"WEIGHTS")
    os.utime(folder / "model.safetensors", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    changed = source.identity()
    assert changed != before
    (folder / "tokenizer.json").write_text("{}")
    assert source.identity() != changed
