from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import sweeps

from analysis.__main__ import main


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return sweeps.grid(tmp_path / "study", sparsities=(0.0, 0.5), seeds=(0, 1), questions=100)


def test_commands(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (study / "stopped" / ".hydra").mkdir(parents=True)
    for command in (["collect"], ["table"], ["table", "--markdown"], ["figures", "--x", "target"]):
        assert main([command[0], str(study), *command[1:]]) == 0
        output = capsys.readouterr()
        assert f"1 unfinished:\n  {study / 'stopped'}" in output.out and not output.err
        assert "24 finished runs" in output.out
    assert (study / "results.parquet").exists() and (study / "results.csv").exists()
    assert (study / "figures" / "accuracy_vs_target_sparsity.pdf").exists()
    assert main(["compare", str(study), "--factor", "loss", "--a", "kl", "--b", "ce"]) == 0
    assert capsys.readouterr().out.count("(100 questions x 2 seeds, same units)") == 4


def test_what_the_user_can_mend_is_one_message(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["table", str(tmp_path / "nowhere")],
        ["collect", str(tmp_path)],
        ["compare", str(study), "--factor", "loss", "--a", "kl", "--b", "no_such"],
    ):
        assert main(arguments) == 2
        output = capsys.readouterr()
        assert output.err.startswith("error: ") and not output.out


def test_as_a_program(tmp_path: Path) -> None:
    asked = subprocess.run(
        [sys.executable, "-m", "analysis", "figures", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert asked.returncode == 2
    assert "Nothing to analyse" in asked.stderr and "Traceback" not in asked.stderr
