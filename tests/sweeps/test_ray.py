"""A sweep on a Ray of this machine; `make test-ray` installs it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from launched import SWEEP, in_process, regraft, rows
from runs.conftest import BRIEF, records

pytestmark = pytest.mark.slow
pytest.importorskip("hydra_plugins.hydra_ray_launcher")

DEVICES = Path(__file__).parent / "devices"


def test_ray_leaves_what_one_process_leaves(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    expected = in_process(tmp_path / "here")
    result = regraft(tmp_path / "there", "-m", "hydra/launcher=ray_workers", "sweep=there", *SWEEP)
    assert result.returncode == 0, result.stderr
    assert rows(tmp_path / "there", "there") == expected


def test_each_run_sees_a_gpu_of_its_own(tmp_path: Path) -> None:
    """Ray takes our word for the GPUs; a tracker of the test's own writes down which one a run sees."""
    gpus = ["hydra.launcher.ray.init.num_gpus=2", "hydra.launcher.ray.remote.num_gpus=1", "runtime.device=cpu"]
    brief = [override for override in BRIEF if not override.startswith("tracker")]
    result = regraft(
        tmp_path,
        "--config-dir",
        str(DEVICES),
        "-m",
        "hydra/launcher=ray_workers",
        *gpus,
        "tracker=devices",
        "loss=none,ce,kl",
        "recovery.learning_rate=1e-4",
        "sweep=gpus",
        *brief,
    )
    assert result.returncode == 0, result.stderr
    seen = {path.parent.name: path.read_text() for path in (tmp_path / "multirun" / "gpus").glob("*/devices.txt")}
    assert len(seen) == 3
    assert set(seen.values()) == {"0", "1"}


def test_a_failing_run_leaves_the_others_finished(tmp_path: Path) -> None:
    result = regraft(
        tmp_path, "-m", "hydra/launcher=ray_workers", "loss=none,ce", "recovery.learning_rate=1e30", "sweep=bad", *BRIEF
    )
    assert result.returncode == 1
    assert re.search(r"1 of 2 runs failed.*diverged", result.stderr, re.DOTALL)
    status = {record.choices["loss"]: record.status for record in records(tmp_path / "multirun" / "bad")}
    assert status == {"none": "finished", "ce": "failed"}
