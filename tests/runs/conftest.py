"""Runs of the command line, as a user starts them, on a model that is trained for a moment only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forked import TIMEOUT, Server

from regraft.cache import Cache
from regraft.models.tiny_olmo2 import TinyOlmo2
from regraft.records import Record

BRIEF = (
    "model.steps=12",
    "model.threads=1",
    "task.train_size=64",
    "recovery.steps=4",
    "evaluation.questions=50",
    "tracker=none",
    "runtime.progress=false",
)
"""Overrides that make a run short: what it learns does not matter here."""

Regraft = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with nothing but the model of `BRIEF`."""
    root = tmp_path_factory.mktemp("trained")
    TinyOlmo2(steps=12, threads=1).load(Cache(root))
    return root


@pytest.fixture
def warm_cache(tmp_path: Path, _trained: Path) -> Path:
    """A cache of this test's own, in which the model is."""
    return Path(shutil.copytree(_trained, tmp_path / "cache"))


@pytest.fixture(scope="session")
def _forks() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def regraft(tmp_path: Path, shared_cache: Path, _forks: Server) -> Regraft:
    """Runs `regraft ...` in an empty folder, with a cache that all tests share.

    In an interpreter of its own if a variable is given that is read when one starts, or a launcher that starts more.
    """

    def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        variables = os.environ | {"REGRAFT_CACHE": str(shared_cache), "OMP_NUM_THREADS": "1"} | environment
        if "hydra/launcher=two_processes" not in arguments and _forks.can(variables):
            return subprocess.CompletedProcess(arguments, *_forks.run(arguments, tmp_path, variables))
        return subprocess.run(
            [sys.executable, "-m", "regraft", *arguments],
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )

    return call


def records(folder: Path) -> list[Record]:
    """All records below a folder."""
    return [Record.load(path.parent) for path in sorted(folder.glob("**/record.json"))]


def numbers(record: Record) -> list[tuple]:
    """The rows that must be equal whenever the same is run again."""
    return [(row.stage_index, row.split, row.metric, row.value, row.ci_low) for row in record.rows if row.deterministic]
