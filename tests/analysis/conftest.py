from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pages
import pandas
import pytest
import sweeps
from matplotlib.figure import Figure

from analysis import report, tables
from analysis.collect import Collection, Run, collect
from analysis.curves import points
from analysis.metrics import metric
from analysis.report import content, page
from regraft.records import StageRecord

DENSE = {"ece": 0.02, "nll": 0.2, "parameters": 1_158_272.0, "bytes": 4.6e6, "tokens_per_second": 20_000.0}


def metrics(sparsity: float, seed: int) -> dict[str, float]:
    """What a real evaluation tells beside accuracy."""
    left = 1 - 0.6 * sparsity
    return {
        "ece": 0.05 + 0.1 * sparsity + 0.004 * seed,
        "nll": 0.4 + sparsity + 0.01 * seed,
        "brier": 0.2 + 0.5 * sparsity,
        "entropy": 0.3 + 0.1 * sparsity,
        "accuracy_sum": round(400 * (0.9 - 0.5 * sparsity)) / 400,
        "accuracy_character": round(400 * (0.88 - 0.5 * sparsity)) / 400,
        "dense_agreement": round(400 * (0.95 - 0.5 * sparsity)) / 400,
        "dense_kl": 0.1 + sparsity,
        "tokens_per_second": 20_000.0 / left + seed,
        "parameters": float(round(DENSE["parameters"] * left)),
        "non_embedding_parameters": float(round(1e6 * (1 - 0.7 * sparsity))),
        "bytes": 4.0 * round(DENSE["parameters"] * left),
        "macs_per_token": float(round(1.1e6 * left)),
        "milliseconds_per_new_token": 2.0 * left + 0.01 * seed,
        "speedup_of_new_token": 1 / left + 0.01 * seed,
    }


def _noise(*parts: object) -> np.random.Generator:
    return np.random.default_rng([ord(letter) for letter in repr(parts)])


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Criteria x losses x sparsities x seeds, with all that records can hold."""
    folder = tmp_path_factory.mktemp("records") / "study"
    for criterion in ("l2", "random"):
        for sparsity in (0.0, 0.5, 0.8):
            for loss in ("none", "ce", "kl"):
                for seed in (0, 1, 2):
                    noise = _noise(criterion, sparsity, loss, seed)
                    gain = {"none": 0.0, "ce": 0.15, "kl": 0.2}[loss] - 0.1 * (criterion == "random")
                    moved = 0.0 if loss == "none" and (criterion == "l2" or not sparsity) else noise.normal(0, 0.015)
                    accuracy = 0.2 + 0.75 / (1 + np.exp((sparsity - 0.62 - gain) / 0.08)) + moved
                    gone = [round(100 * sparsity) + shift * bool(sparsity) for shift in (-2, 1, 0, 1)]
                    made = sweeps.record(
                        criterion=criterion,
                        sparsity=sparsity,
                        loss=loss,
                        seed=seed,
                        accuracy=float(accuracy),
                        questions=400,
                        neurons=(gone, [100] * 4),
                        metrics=metrics(sparsity, seed),
                        dense=DENSE,
                    )
                    steps = (1 + sparsity) * np.exp(-np.arange(30) / 10) + 0.1 * noise.random(30)
                    sweeps.save(made, folder, losses=None if loss == "none" else list(steps))
    return collect([folder])


@pytest.fixture(scope="session")
def scaling(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Sizes of the recovery set x losses x seeds, each of which draws a set of its own."""
    folder = tmp_path_factory.mktemp("records") / "scaling"
    for size in (15, 120, 1200):
        for loss, gain in (("ce", 0.0), ("kl", 0.1)):
            for seed in range(5):
                noise = _noise(size, loss, seed)
                accuracy = 0.3 + 0.08 * np.log(size / 10) + gain + noise.normal(0, 0.02)
                right = noise.random(300) < accuracy
                made = sweeps.record(
                    loss=loss,
                    seed=seed,
                    sparsity=0.9,
                    accuracy=float(right.mean()),
                    questions=300,
                    train_size=size,
                    subset=seed,
                    recovery_questions=size,
                    metrics=metrics(0.9, seed),
                    dense=DENSE,
                )
                sweeps.save(made, folder, right=right, losses=list(2 / np.arange(1, 20)))
    return collect([folder])


@pytest.fixture(scope="session")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Students of two sparsities under teachers of three sizes."""
    folder = tmp_path_factory.mktemp("records") / "teachers"
    for size in (1_158_272, 4_633_088, 21_000_000):
        for sparsity in (0.5, 0.8):
            for seed in (0, 1, 2):
                accuracy = 0.95 - 0.4 * sparsity + 0.02 * np.log10(size) - 0.01 * seed
                made = sweeps.record(
                    sparsity=sparsity, seed=seed, accuracy=accuracy, teacher_parameters=size, dense=DENSE
                )
                sweeps.save(made, folder)
    return collect([folder])


@pytest.fixture(scope="session")
def rates(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Learning rates x losses x seeds."""
    folder = tmp_path_factory.mktemp("records") / "rates"
    for rate, accuracy in ((1e-4, 0.6), (1e-3, 0.8), (1e-2, 0.5)):
        for loss, gain in (("ce", 0.0), ("kl", 0.05)):
            for seed in (0, 1, 2):
                told = accuracy + gain + 0.01 * seed
                sweeps.save(sweeps.record(loss=loss, seed=seed, learning_rate=rate, accuracy=told, dense=DENSE), folder)
    return collect([folder])


@pytest.fixture(scope="session")
def methods(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Many losses at one sparsity."""
    folder = tmp_path_factory.mktemp("records") / "methods"
    losses = ("none", "ce", "kl", "jsd", "reverse_kl", "total_variation", "standardised_kl", "pseudo_label", "kl_hints")
    for place, loss in enumerate(losses):
        for seed in (0, 1, 2):
            told = 0.4 + 0.05 * place + 0.01 * seed * (loss != "none")
            settings = {"target": "soft", "over": "vocabulary", "at": "every_choice"} if loss == "kl_hints" else {}
            made = sweeps.record(loss=loss, seed=seed, accuracy=told, dense=DENSE, loss_settings=settings)
            sweeps.save(made, folder)
    return collect([folder])


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Figure]]:
    """The figures that would be saved, laid out; no picture is written."""
    saved: list[Figure] = []

    def keep(figure: Figure, path: Path, **_: Any) -> None:
        if path.suffix == ".pdf":
            figure.draw_without_rendering()
            saved.append(figure)

    monkeypatch.setattr(Figure, "savefig", keep)
    yield saved


@pytest.fixture
def sweep(tmp_path: Path) -> Callable[..., Collection]:
    """Collects runs of the given settings, each a mapping of `sweeps.record`'s."""

    def saved(*settings: dict[str, Any]) -> Collection:
        folder = tmp_path / f"sweep{len(list(tmp_path.iterdir()))}"
        for each in settings:
            sweeps.save(sweeps.record(**each), folder)
        return collect([folder])

    return saved


@pytest.fixture(scope="session")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of `pages.evil`, with one figure."""
    folder = tmp_path_factory.mktemp("evil")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "FIGURES", {"spread_of_seeds": report.FIGURES["spread_of_seeds"]})
        return report.write(collect([pages.evil(folder)]), folder)[0]


@dataclass(frozen=True)
class MadeUp(Run):
    """A run whose answers are in no file."""

    def predictions(
        self, split: str = "test", dense: bool = False, after: StageRecord | None = None
    ) -> pandas.DataFrame:
        noise = _noise(self.record.run_id) if after is None else np.random.default_rng(0)
        gold = np.arange(480) % sweeps.CHOICES
        predicted = np.where(noise.random(480) < 0.8, gold, noise.integers(0, sweeps.CHOICES, 480))
        ids = pandas.Index([f"question{number:05}" for number in range(480)], name="id")
        return pandas.DataFrame({"gold": gold, "predicted": predicted, "choices": sweeps.CHOICES}, index=ids)


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of 500 runs x 480 questions."""
    runs = [
        MadeUp(
            sweeps.record(
                criterion=criterion,
                sparsity=sparsity,
                loss=loss,
                seed=seed,
                questions=480,
                accuracy=0.9 - 0.5 * sparsity,
                metrics={"parameters": 1e6 - 1e5 * sparsity, "nll": 1 + sparsity},
            ),
            Path("study"),
        )
        for criterion in ("l2", "random")
        for sparsity in (0.0, 0.3, 0.5, 0.8, 0.9)
        for loss in ("ce", "kl")
        for seed in range(25)
    ]
    collection = Collection(folders=(Path("study"),), runs=tuple(runs))
    table = tables.of(collection, points(collection, metric("nll"), "target"))
    path = tmp_path_factory.mktemp("many") / "report.html"
    path.write_text(page.written(content(collection, table, [], {}, {})), encoding="utf-8")
    return path
