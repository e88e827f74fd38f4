"""The table of losses in docs/grafting, as a reader would print it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sweeps

from analysis import names
from analysis.collect import AnalysisError
from analysis.crossed import estimate

SCRIPT = Path(__file__).parents[2] / "docs" / "grafting" / "table.py"
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def printed() -> Callable[[list[str]], None]:
    spec = importlib.util.spec_from_file_location("grafting_table", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main  # type: ignore[no-any-return]


def right(loss: str, sparsity: float, seed: int) -> np.ndarray:
    accuracy = {"none": 0.3, "ce": 0.6, "kl": 0.9, "jsd": 0.62}[loss] - 0.2 * (sparsity == 0.8)
    return np.random.default_rng([seed, round(100 * sparsity), *map(ord, loss)]).random(300) < accuracy


def test_each_loss_beside_labels(
    tmp_path: Path, printed: Callable[[list[str]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    for loss in ("none", "ce", "kl", "jsd"):
        for sparsity in (0.5, 0.8):
            if (loss, sparsity) != ("jsd", 0.8):
                for seed in SEEDS:
                    made = sweeps.record(loss=loss, sparsity=sparsity, seed=seed, questions=300)
                    sweeps.save(made, tmp_path, right=right(loss, sparsity, seed))
    printed([str(tmp_path)])
    head, _, *lines = capsys.readouterr().out.splitlines()
    assert head == "| criterion | loss | 50 % | 80 % |"
    cells = {line.split(" | ")[1]: line.strip("| ").split(" | ")[2:] for line in lines}
    assert list(cells) == ["none", "CE", "KL", "JSD"]
    of = {loss: np.stack([right(loss, 0.5, seed) for seed in SEEDS], axis=1).astype(float) for loss in ("ce", "kl")}
    assert cells["CE"][0] == f"{100 * of['ce'].mean():.1f}", "nothing is subtracted from itself"
    expected = estimate(of["kl"] - of["ce"])
    assert expected is not None
    low, high = 100 * expected.low, 100 * expected.high
    assert cells["KL"][0] == f"{100 * of['kl'].mean():.1f} (**{100 * expected.mean:+.1f}** [{low:+.1f}, {high:+.1f}])"
    assert "**" not in cells["JSD"][0] and "**" in cells["none"][0]
    assert len(cells["JSD"]) == 1 or not cells["JSD"][1].strip(" |")


def test_settings_of_a_loss_have_lines_and_labels_in_two_ways_are_refused(
    tmp_path: Path, printed: Callable[[list[str]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in SEEDS:
        sweeps.save(sweeps.record(loss="ce", seed=seed), tmp_path)
        for beta in (0.1, 0.9):
            made = sweeps.record(loss="jsd", seed=seed, accuracy=0.5 + beta / 10, loss_settings={"beta": beta})
            sweeps.save(made, tmp_path)
    printed([str(tmp_path)])
    told = capsys.readouterr().out
    assert told.count("| L2 | JSD | loss.beta=0.") == 2
    for seed in SEEDS:
        sweeps.save(sweeps.record(loss="ce", seed=seed, loss_settings={"smoothing": 0.1}), tmp_path)
    with pytest.raises(AnalysisError, match="ce was run in 2 ways at sparsity 0.5"):
        printed([str(tmp_path)])


REGIMES = {"questions": 0.6, "teacher_written": 0.9, "data_free": 0.3}


def read(batches: str, loss: str, seed: int) -> np.ndarray:
    accuracy = REGIMES[batches] + 0.05 * (loss == "jsd")
    return np.random.default_rng([seed, *map(ord, batches + loss)]).random(300) < accuracy


@pytest.mark.parametrize("losses", [("kl",), ("kl", "jsd")])
def test_each_regime_beside_the_same_loss_on_the_questions(
    tmp_path: Path, printed: Callable[[list[str]], None], capsys: pytest.CaptureFixture[str], losses: tuple[str, ...]
) -> None:
    for batches in REGIMES:
        for loss in losses:
            for seed in SEEDS:
                made = sweeps.record(loss=loss, sparsity=0.8, seed=seed, questions=300)
                told = replace(made, run_id=f"{batches}{loss}{seed}", choices=made.choices | {"batches": batches})
                told.config["batches"] = {"_target_": batches}
                sweeps.save(told, tmp_path, right=read(batches, loss, seed))
    printed([str(tmp_path)])
    head, _, *lines = capsys.readouterr().out.splitlines()
    assert head == "| criterion | loss | batches | 80 % |"
    cells = {tuple(line.split(" | ")[1:3]): line.strip("| ").split(" | ")[3] for line in lines}
    assert len(cells) == len(losses) * len(REGIMES)
    for loss in losses:
        of = {
            batches: np.stack([read(batches, loss, seed) for seed in SEEDS], axis=1).astype(float)
            for batches in REGIMES
        }
        assert cells[loss.upper(), "questions"] == f"{100 * of['questions'].mean():.1f}"
        expected = estimate(of["data_free"] - of["questions"])
        assert expected is not None
        low, high = 100 * expected.low, 100 * expected.high
        told_cell = cells[loss.upper(), names.value("batch_source", "data_free")]
        assert (
            told_cell
            == f"{100 * of['data_free'].mean():.1f} (**{100 * expected.mean:+.1f}** [{low:+.1f}, {high:+.1f}])"
        )
