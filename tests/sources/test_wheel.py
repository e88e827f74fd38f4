from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from regraft.cache import FILES as LIST
from regraft.cache import Cache
from regraft.config.components import Allowed, build
from regraft.config.ranges import ConfigError
from regraft.sources.base import SourceError
from regraft.sources.wheel import WheelMembers

FILES = {"fake_data/train.txt": b"train rows\n", "fake_data/deep/test.txt": b"test rows\n" * 100}
NAME = "fake_data-1.0-py3-none-any.whl"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all the package index there is."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def write_wheel(folder: Path) -> str:
    """A wheel whose import and whose dependency would both fail; returns its SHA-256."""
    information = "fake_data-1.0.dist-info"
    with zipfile.ZipFile(folder / NAME, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("fake_data/__init__.py", "raise SystemExit('imported')")
        for name, content in FILES.items():
            archive.writestr(name, content)
        metadata = "Metadata-Version: 2.1\nName: fake-data\nVersion: 1.0\nRequires-Dist: nowhere-to-be-found==9\n"
        archive.writestr(f"{information}/METADATA", metadata)
        wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{information}/WHEEL", wheel)
        archive.writestr(f"{information}/RECORD", "")
    return hashlib.sha256((folder / NAME).read_bytes()).hexdigest()


def left_behind(cache: Cache) -> list[Path]:
    """What is in the cache besides locks and the folder of the kind."""
    return [path for path in cache.root.rglob("*") if path.suffix != ".lock" and path != cache.root / "wheels"]


def source(sha256: str, *members: str) -> WheelMembers:
    return WheelMembers(requirement="fake-data==1.0", members=members or tuple(FILES), sha256=sha256)


def test_only_the_named_members_are_kept(index: Path, cache: Cache) -> None:
    folder = source(write_wheel(index)).fetch(cache)
    files = [path for path in folder.rglob("*") if path.is_file() and path != folder / LIST]
    assert {path.relative_to(folder).as_posix(): path.read_bytes() for path in files} == FILES
    assert "fake_data" not in sys.modules


def test_second_fetch_needs_no_index(index: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = source(write_wheel(index))
    folder = wheel.fetch(cache)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("pip was called"))
    assert wheel.fetch(cache) == folder


def test_other_members_of_the_same_wheel_are_another_entry(index: Path, cache: Cache) -> None:
    sha256 = write_wheel(index)
    one = source(sha256, "fake_data/train.txt").fetch(cache)
    assert not (one / "fake_data/deep").exists()
    assert (source(sha256).fetch(cache) / "fake_data/deep/test.txt").is_file()


def test_missing_package(index: Path, cache: Cache) -> None:
    with pytest.raises(SourceError, match=r"wheel:fake-data==1\.0: cannot be downloaded .*No matching.*PIP_FIND_LINKS"):
        source("0" * 64).fetch(cache)
    assert left_behind(cache) == []


def test_refused_connection(index: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://somebody:secret@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(SourceError, match="cannot be downloaded .*refused.*Check network") as error:
        source("0" * 64).fetch(cache)
    assert "secret" not in str(error.value)
    assert left_behind(cache) == []


def test_pip_is_missing(index: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = f"{sys.executable}: No module named pip\n"
    done = subprocess.CompletedProcess([], 1, stdout="", stderr=stderr)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    with pytest.raises(SourceError, match="needs pip .*-m ensurepip"):
        source("0" * 64).fetch(cache)


def test_wrong_sha256(index: Path, cache: Cache) -> None:
    found = write_wheel(index)
    with pytest.raises(SourceError, match=f"SHA-256 of {NAME} must be {'0' * 64}, is {found}"):
        source("0" * 64).fetch(cache)
    assert left_behind(cache) == []


def test_absent_member(index: Path, cache: Cache) -> None:
    wheel = source(write_wheel(index), "fake_data/train.txt", "fake_data/tset.txt")
    with pytest.raises(SourceError, match="!fake_data/tset.txt: there is no such file .*fake_data/deep/test.txt"):
        wheel.fetch(cache)
    assert left_behind(cache) == []


def test_damaged_download(index: Path, cache: Cache) -> None:
    sha256 = write_wheel(index)
    content = bytearray((index / NAME).read_bytes())
    content[len(content) // 3] ^= 0xFF
    (index / NAME).write_bytes(content)
    with pytest.raises(SourceError, match=r"wheel:fake-data==1\.0"):
        source(sha256).fetch(cache)
    assert left_behind(cache) == []


def test_corrupt_member_with_the_right_sha256(index: Path, cache: Cache) -> None:
    write_wheel(index)
    content = bytearray((index / NAME).read_bytes())
    with zipfile.ZipFile(index / NAME) as archive:
        start = archive.getinfo("fake_data/deep/test.txt").header_offset
    data = start + 30 + len("fake_data/deep/test.txt")
    content[data : data + 8] = b"\xff" * 8
    (index / NAME).write_bytes(content)
    wheel = source(hashlib.sha256(content).hexdigest())
    with pytest.raises(SourceError, match="!fake_data/deep/test.txt: the wheel is corrupt"):
        wheel.fetch(cache)
    assert left_behind(cache) == []


def test_no_zip_with_the_right_sha256(index: Path, cache: Cache) -> None:
    (index / NAME).write_bytes(b"not a zip")
    with pytest.raises(SourceError, match="fake-data==1.0"):
        source(hashlib.sha256(b"not a zip").hexdigest()).fetch(cache)
    assert left_behind(cache) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("requirement", "fake-data"),
        ("requirement", "fake-data>=1.0"),
        ("requirement", "--index-url==1.0"),
        ("requirement", "fake-data==1.0 --pre"),
        ("members", []),
        ("members", ["../outside"]),
        ("members", ["/etc/passwd"]),
        ("members", ["a//b"]),
        ("sha256", "abc"),
        ("sha256", "A" * 64),
    ],
)
def test_bad_fields(key: str, value: object) -> None:
    fields = {"requirement": "fake-data==1.0", "members": ["a"], "sha256": "0" * 64} | {key: value}
    node = fields | {"_target_": "regraft.sources.wheel.WheelMembers"}
    with pytest.raises(ConfigError, match=rf"model\.source\.{key}"):
        build(node, "model.source", Allowed())


def test_identity_follows_every_field() -> None:
    def identity(**fields: object) -> dict[str, object]:
        return WheelMembers(**({"requirement": "a==1", "members": ("b",), "sha256": "0" * 64} | fields)).identity()  # type: ignore[arg-type]

    others = [identity(requirement="a==2"), identity(members=("c",)), identity(sha256="1" * 64)]
    assert identity() == identity()
    assert identity() not in others
