"""Launchers of one machine, and what the settings of every launcher say."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from launched import SWEEP, finished, in_process, regraft, rows


@pytest.mark.slow
def test_two_processes_leave_what_one_leaves(tmp_path: Path) -> None:
    """The threads of a run are those of its config, whatever the environment says of OpenMP."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    expected = in_process(tmp_path / "one")
    result = regraft(tmp_path / "two", "-m", "hydra/launcher=two_processes", "sweep=two", *SWEEP, OMP_NUM_THREADS="2")
    assert result.returncode == 0, result.stderr
    assert rows(tmp_path / "two", "two") == expected
    for folder, sweep in (("one", "in_process"), ("two", "two")):
        found = finished(tmp_path / folder, sweep)
        assert {record.environment["threads"] for record in found.values()} == {1}


@pytest.mark.parametrize(
    ("launcher", "told"),
    [
        ("in_process", {}),
        ("two_processes", {"n_jobs": 2}),
        ("slurm", {"cpus_per_task": 3, "srun_args": ["--cpus-per-task=3"]}),
        ("ray_workers", {"ray.remote.num_cpus": 3, "ray.init.include_dashboard": False}),
    ],
)
def test_settings_compose_without_the_extra_and_follow_the_threads_of_a_run(tmp_path: Path, launcher, told) -> None:
    shown = ["--cfg", "all", "--package", "hydra.launcher", "--resolve"]
    result = regraft(tmp_path, f"hydra/launcher={launcher}", "runtime.threads=3", "sweep=mine", *shown)
    assert result.returncode == 0, result.stderr
    settings = yaml.safe_load(result.stdout)
    for key, value in told.items():
        found = settings
        for part in key.split("."):
            found = found[part]
        assert found == value
    if launcher == "slurm":
        assert settings["name"] == "regraft-mine"
        assert settings["submitit_folder"].startswith("multirun/mine/.slurm/")
