from __future__ import annotations

from pathlib import Path

import pytest

from regraft.cache import Cache
from regraft.config.ranges import ConfigError
from regraft.sources.base import SourceError
from regraft.sources.hub import HubModel

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache of a machine without network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def download(hub: Path, *files: str) -> Path:
    """What the hub's client leaves after it fetched `somebody/something`."""
    repository = hub / "models--somebody--something"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for file in files:
        (snapshot / file).write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return snapshot


def test_snapshot_in_the_hubs_cache_is_taken(hub: Path, cache: Cache) -> None:
    snapshot = download(hub, "config.json", "model.safetensors")
    assert HubModel(repo="somebody/something").fetch(cache) == snapshot
    assert HubModel(repo="somebody/something", revision=COMMIT).fetch(cache) == snapshot


def test_unreachable_hub(hub: Path, cache: Cache) -> None:
    with pytest.raises(SourceError, match="hub:somebody/something@main: cannot be fetched .*model=smollm2_135m"):
        HubModel(repo="somebody/something").fetch(cache)


def test_repository_without_safetensors(hub: Path, cache: Cache) -> None:
    download(hub, "config.json", "pytorch_model.bin")
    with pytest.raises(SourceError, match=r"must hold config.json and weights in \*\.safetensors"):
        HubModel(repo="somebody/something").fetch(cache)


def test_only_harmless_files_are_asked_for(monkeypatch: pytest.MonkeyPatch, cache: Cache, tmp_path: Path) -> None:
    import fnmatch

    import huggingface_hub

    asked = {}

    def snapshot(repo: str, *, revision: str, allow_patterns: list[str]) -> str:
        asked.update(repo=repo, revision=revision, patterns=allow_patterns)
        for name in ("config.json", "model.safetensors"):
            (tmp_path / name).touch()
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    HubModel(repo="somebody/something", revision="v1").fetch(cache)
    assert (asked["repo"], asked["revision"]) == ("somebody/something", "v1")

    def wanted(name: str) -> bool:
        return any(fnmatch.fnmatch(name, pattern) for pattern in asked["patterns"])

    assert all(map(wanted, ["config.json", "model-00001-of-00003.safetensors", "merges.txt", "tokenizer.model"]))
    assert not any(map(wanted, ["pytorch_model.bin", "model.gguf", "model.ckpt", "optimizer.pt", "model.pkl"]))


@pytest.mark.parametrize("repo", ["gpt2", "a/b/c", "/home/me/model", "https://huggingface.co/a/b", ""])
def test_bad_name(repo: str) -> None:
    with pytest.raises(ConfigError, match="repo=.*must be OWNER/NAME.*model=local"):
        HubModel(repo=repo)


def test_identity_follows_repository_and_revision() -> None:
    one = HubModel(repo="a/b", revision="x").identity()
    assert one == HubModel(repo="a/b", revision="x").identity()
    assert one not in (HubModel(repo="a/c", revision="x").identity(), HubModel(repo="a/b", revision="y").identity())
