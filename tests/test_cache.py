"""The store: whole entries or none, and no more than fits."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from regraft.cache import FILES, IN_USE, Cache, main


def fill(folder: Path, text: str = "whole") -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "weights").write_text(text * 100)
    (folder / "about").write_text("x")


def age(path: Path, seconds: float) -> None:
    os.utime(path / FILES, (time.time() - seconds,) * 2)


def test_an_entry_is_made_once_and_found(cache: Cache) -> None:
    assert cache.find("kind", "key") is None
    path = cache.entry("kind", "key", fill)
    assert cache.entry("kind", "key", lambda folder: pytest.fail("made twice")) == path == cache.find("kind", "key")
    assert (path / "inner" / "weights").read_text() == "whole" * 100


def _make_slowly(root: Path, made: Path) -> None:
    def make(folder: Path) -> None:
        time.sleep(0.3)
        fill(folder)
        with made.open("a") as file:
            file.write("x")

    path = Cache(root).entry("kind", "key", make)
    assert (path / "inner" / "weights").read_text() == "whole" * 100


def test_of_several_processes_one_makes_it(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_make_slowly, args=(tmp_path / "cache", tmp_path / "made")) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert (tmp_path / "made").read_text() == "x"


def truncate(path: Path) -> None:
    os.truncate(path / "inner" / "weights", 7)


def flip(path: Path) -> None:
    text = (path / "inner" / "weights").read_bytes()
    (path / "inner" / "weights").write_bytes(text[:-1] + b"?")


def lose(path: Path) -> None:
    (path / "about").unlink()


def forget(path: Path) -> None:
    (path / FILES).unlink()


def scribble(path: Path) -> None:
    (path / FILES).write_text('{"inner/weights": 3')


@pytest.mark.parametrize("damage", [truncate, flip, lose, forget, scribble])
def test_a_damaged_entry_is_told_of_and_made_anew(
    cache: Cache, damage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cache.entry("kind", "key", fill)
    other = cache.entry("kind", "other", fill)
    damage(path)
    monkeypatch.setattr(Cache, "_verified", set())  # as in another process
    with caplog.at_level(logging.WARNING):
        assert cache.find("kind", "key") is None
    assert str(path) in caplog.text and "made anew" in caplog.text
    assert cache.entry("kind", "key", lambda folder: fill(folder, "again")) == path
    assert (path / "inner" / "weights").read_text() == "again" * 100
    assert cache.find("kind", "other") == other


def test_what_fails_leaves_nothing(cache: Cache) -> None:
    def fail(folder: Path) -> None:
        fill(folder)
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        cache.entry("kind", "key", fail)
    assert [path.name for path in (cache.root / "kind").iterdir()] == ["key.lock"]


def test_what_a_killed_process_left_is_removed(cache: Cache) -> None:
    stale = cache.root / "kind" / ".making-key-abc"
    stale.mkdir(parents=True)
    (stale / "half").write_text("x")
    of_another = cache.root / "kind" / ".making-key2-abc"
    of_another.mkdir()
    cache.entry("kind", "key", fill)
    assert not stale.exists() and of_another.exists()


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    size = 501
    cache = Cache(tmp_path, limit=3 * size)
    paths = {name: cache.entry("kind", name, fill) for name in ("one", "two", "three")}
    for number, name in enumerate(paths):
        age(paths[name], 10 * IN_USE - number)
    assert cache.find("kind", "one")  # used: it is the youngest now
    paths["four"] = cache.entry("kind", "four", fill)
    assert [name for name, path in paths.items() if path.exists()] == ["one", "three", "four"]
    assert [entry.path.name for entry in cache.entries()] == ["three", "one", "four"]
    assert sum(entry.bytes for entry in cache.entries()) == 3 * size


def test_what_is_in_use_stays_even_beyond_the_limit(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit=600)
    paths = [cache.entry("kind", str(number), fill) for number in range(3)]
    assert all(path.exists() for path in paths)
    for path in paths[:2]:
        age(path, IN_USE + 1)
    assert cache.trim() == 2 * 501
    assert [path.exists() for path in paths] == [False, False, True]


def test_old_progress_is_evicted_too(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit=600)
    kept = cache.progress("abandoned")
    kept.parent.mkdir()
    kept.write_bytes(b"x" * 400)
    os.utime(kept, (1, 1))
    cache.entry("kind", "key", fill)
    assert not kept.exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="drops the rights of root")
def test_a_read_only_store_is_read(tmp_path: Path) -> None:
    """By somebody who may not write there: what is whole is used, and for what is missing the next step is told."""
    for parent in (tmp_path, *tmp_path.parents):
        if Path(tempfile.gettempdir()) in parent.parents:
            parent.chmod(parent.stat().st_mode | 0o055)
    Cache(tmp_path / "cache").entry("kind", "key", fill)
    program = (
        "import os, sys\nfrom regraft.cache import Cache\nos.setuid(65534)\ncache = Cache(sys.argv[1])\n"
        "assert cache.entry('kind', 'key', None).is_dir()\n"
        "try:\n    cache.entry('kind', 'new', lambda folder: None)\n"
        "except OSError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for part in ("Permission denied", "runtime.cache=FOLDER", "$REGRAFT_CACHE", str(tmp_path / "cache")):
        assert part in done.stdout


def test_stats_and_clear(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    for kind, key in (("models", "a"), ("stages", "b"), ("stages", "c")):
        cache.entry(kind, key, fill)
    at = ["--cache", str(cache.root)]
    assert main([*at, "--stats"]) == 0
    told = capsys.readouterr().out
    assert f"{cache.root}: 1.5 kB in 3 entries" in told and "stages                2 entries     1.0 kB" in told
    assert main([*at, "--clear", "--kind", "stage"]) == 2
    assert "--kind stage: must be a kind that is there (models, stages)" in capsys.readouterr().err
    assert main([*at, "--clear", "--kind", "stages"]) == 0
    assert [entry.kind for entry in cache.entries()] == ["models"]
    assert main([*at, "--clear"]) == 0 and not cache.entries()
    assert "removed 501 bytes" in capsys.readouterr().out
    assert cache.entry("models", "a", fill).is_dir()


def test_what_others_left_is_removed_in_time(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit=10**6)
    (tmp_path / "kind").mkdir()
    (tmp_path / "progress").mkdir()
    left = [tmp_path / "progress" / ".key.safetensors.17", tmp_path / "kind" / ".making-a-x", tmp_path / "kind" / "old"]
    left[0].write_text("x")
    for folder in left[1:]:
        folder.mkdir()
    cache.trim()
    assert all(path.exists() for path in left), "a process may still be at it"
    for path in left:
        os.utime(path, (1, 1))
    cache.trim()
    assert not any(path.exists() for path in left)


def test_a_file_of_the_users_that_cannot_be_read_is_not_blamed_on_the_cache(cache: Cache) -> None:
    def make(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", "/data/questions.jsonl")

    with pytest.raises(PermissionError, match=r"/data/questions\.jsonl") as told:
        cache.entry("kind", "key", make)
    assert "cache" not in str(told.value)


def test_the_list_of_files_is_that_of_the_folder(cache: Cache) -> None:
    listed = json.loads((cache.entry("kind", "key", fill) / FILES).read_text())
    assert {name: size for name, (size, _) in listed.items()} == {"inner/weights": 500, "about": 1}
