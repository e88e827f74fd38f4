"""Learning rates are chosen on the selection questions, both ways, and told on the test questions."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pages
import pytest
import sweeps

from analysis import report, tuning
from analysis.__main__ import main
from analysis.collect import AnalysisError, collect
from analysis.crossed import estimate
from regraft.records import PREDICTIONS

QUESTIONS = 200
SEEDS = (0, 1, 2)
ARMS: Mapping[str, Mapping[float, tuple[float, float, float]]] = {
    # rate -> selection accuracy, selection KL, test accuracy
    "ce": {1e-4: (0.50, 0.9, 0.80), 1e-3: (0.70, 0.2, 0.60), 1e-2: (0.60, 0.5, 0.70)},
    "kl": {1e-4: (0.60, 0.2, 0.55), 1e-3: (0.80, 0.3, 0.75), 1e-2: (0.90, 0.4, 0.85)},
}


def right(accuracy: float, *of: object) -> np.ndarray:
    noise = np.random.default_rng([ord(letter) for letter in repr(of)])
    return noise.random(QUESTIONS) < accuracy


def save(folder: Path, loss: str, rate: float, seed: int, **more: Any) -> None:
    accuracy, kl, tested = ARMS[loss][rate]
    shift = 0.02 * (seed - 1)
    made = sweeps.record(
        loss=loss,
        seed=seed,
        learning_rate=rate,
        questions=QUESTIONS,
        **{"selection": {"accuracy": accuracy + shift, "dense_kl": kl + shift}} | more,
    )
    sweeps.save(made, folder, right=right(tested, loss, rate, seed))


@pytest.fixture
def grid(tmp_path: Path) -> Callable[..., Path]:
    def made(**more: Any) -> Path:
        for loss, rates in ARMS.items():
            for rate in rates:
                for seed in SEEDS:
                    save(tmp_path / "study", loss, rate, seed, **more)
        return tmp_path / "study"

    return made


def by_loss(found: tuning.Tuned) -> dict[str, tuning.Arm]:
    arms = {arm.condition["loss"]: arm for arm in found.arms}
    assert len(arms) == len(found.arms)
    return arms


def on_test(loss: str, rate: float) -> np.ndarray:
    return np.stack([right(ARMS[loss][rate][2], loss, rate, seed) for seed in SEEDS], axis=1).astype(float)


def test_the_selection_questions_choose_and_never_the_test_questions(grid: Callable[..., Path]) -> None:
    arms = by_loss(tuning.tune(collect([grid()])))
    assert (arms["ce"].labelled.rate, arms["kl"].labelled.rate) == (1e-3, 1e-2)
    assert arms["kl"].label_free is not None and arms["kl"].label_free.rate == 1e-4
    assert arms["ce"].label_free is None, "it reads labels anyway"
    assert arms["kl"].labelled.score == pytest.approx(0.9)
    assert arms["kl"].label_free.score == pytest.approx(0.2)


def test_best_is_compared_with_best_on_the_same_questions_and_seeds(grid: Callable[..., Path]) -> None:
    found = tuning.tune(collect([grid()]))
    for how, rate in ((tuning.WITH, 1e-2), (tuning.WITHOUT, 1e-4)):
        (one,) = found.compared[how]
        expected = estimate(on_test("kl", rate) - on_test("ce", 1e-3))
        assert (one.a, one.b, one.grade.name, one.seeds, one.questions) == ("kl", "ce", "same-units", 3, QUESTIONS)
        assert one.estimate == expected and expected is not None
        assert one.about == "", "the rate is no other factor"
    # 25 points by labels, none without: the way of choosing decides the verdict
    assert [each.claimed for how in found.compared.values() for each in how] == [True, False]


def test_what_the_choice_without_labels_costs(grid: Callable[..., Path]) -> None:
    mean, interval = by_loss(tuning.tune(collect([grid()])))["kl"].difference()
    table = on_test("kl", 1e-4) - on_test("kl", 1e-2)
    assert mean == pytest.approx(table.mean()) and interval == estimate(table)


def test_a_rate_at_the_end_of_the_grid_is_warned_of(grid: Callable[..., Path]) -> None:
    arms = by_loss(tuning.tune(collect([grid()])))
    assert arms["ce"].warnings == []
    highest, lowest = arms["kl"].warnings
    assert "0.01, chosen with labels, is the highest of 3 learning rates" in highest
    assert "0.0001, chosen without labels, is the lowest of 3" in lowest
    assert "Widen the grid: recovery.learning_rate=...,0.03." in highest and lowest.endswith("...,3e-05.")


def test_rates_are_chosen_for_all_seeds_together(tmp_path: Path) -> None:
    """The best single run has another rate than the best mean."""
    for rate, accuracies in {0.1: (0.95, 0.2, 0.2), 0.2: (0.5, 0.6, 0.55)}.items():
        for seed, accuracy in enumerate(accuracies):
            made = sweeps.record(seed=seed, learning_rate=rate, selection={"accuracy": accuracy, "dense_kl": rate})
            sweeps.save(made, tmp_path)
    (arm,) = tuning.tune(collect([tmp_path])).arms
    assert arm.labelled.rate == 0.2 and [run.seed for run in arm.labelled.runs] == [0, 1, 2]


def test_among_equals_the_lower_rate(tmp_path: Path) -> None:
    for rate, accuracies in {0.3: (0.1, 0.2, 0.3), 0.1: (0.3, 0.2, 0.1)}.items():
        for seed, accuracy in enumerate(accuracies):
            made = sweeps.record(seed=seed, learning_rate=rate, selection={"accuracy": accuracy, "dense_kl": accuracy})
            sweeps.save(made, tmp_path)
    (arm,) = tuning.tune(collect([tmp_path])).arms
    assert arm.label_free is not None and arm.labelled.rate == arm.label_free.rate == 0.1
    assert arm.difference() == (0.0, None)


def test_a_rate_that_lacks_a_seed_is_left_out_and_named(grid: Callable[..., Path]) -> None:
    study = grid()
    lost = next(
        run.folder
        for run in collect([study]).runs
        if (run.seed, run.settings[tuning.RATE]) == (1, 1e-2) and run.choice("loss") == "kl"
    )
    lost.rename(study.parent / "lost")
    found = tuning.tune(collect([study]))
    arm = by_loss(found)["kl"]
    assert arm.labelled.rate == 1e-3
    assert any("learning rate 0.01 lacks seed 1, left out" in gap for gap in found.gaps)
    highest, _ = arm.warnings
    assert "0.001, chosen with labels, is the highest of 2 learning rates" in highest
    assert highest.endswith("0.01 was left out: run its missing seeds, or recovery.learning_rate=0.003.")


def test_settings_of_the_loss_make_arms(tmp_path: Path) -> None:
    for beta in (0.1, 0.9):
        for rate in (0.1, 0.2):
            settings = {"loss_settings": {"beta": beta}, "selection": {"accuracy": rate * beta, "dense_kl": rate}}
            sweeps.save(sweeps.record(loss="jsd", learning_rate=rate, **settings), tmp_path)
    found = tuning.tune(collect([tmp_path]))
    assert [arm.condition["variant"] for arm in found.arms] == ["loss.beta=0.1", "loss.beta=0.9"]
    assert "variant" in tuning.table(found).header


@pytest.mark.parametrize(
    ("losses", "pairs"),
    [
        (("kl", "jsd"), {("kl", "jsd")}),
        (("ce", "kl", "jsd"), {("kl", "ce"), ("jsd", "ce"), ("kl", "jsd")}),
        # the last is the best, and of many the others are compared with it alone
        (("kl", "jsd", "rkd", "hints", "lm"), {("kl", "lm"), ("jsd", "lm"), ("rkd", "lm"), ("hints", "lm")}),
    ],
)
def test_losses_are_compared_with_one_another_where_none_is_the_reference(
    losses: tuple[str, ...], pairs: set[tuple[str, str]], tmp_path: Path
) -> None:
    for place, loss in enumerate(losses):
        for rate in (1e-4, 1e-3):
            for seed in SEEDS:
                score = 0.5 + 0.05 * place + rate
                made = sweeps.record(
                    loss=loss, seed=seed, learning_rate=rate, selection={"accuracy": score, "dense_kl": 1 - score}
                )
                sweeps.save(made, tmp_path / "study", right=right(score, loss, rate, seed))
    found = tuning.tune(collect([tmp_path / "study"]))
    assert {frozenset((each.a, each.b)) for each in found.compared[tuning.WITH]} == set(map(frozenset, pairs))
    told = [gap for gap in found.gaps if "6 pairs of the 5 losses are not compared" in gap]
    assert bool(told) == (len(losses) > tuning.FEW)


def test_arms_are_told_by_what_differs(grid: Callable[..., Path], tmp_path: Path) -> None:
    assert [arm.name for arm in tuning.tune(collect([grid()])).arms] == ["CE", "KL"]
    for rate in (1e-4, 1e-3):
        save(tmp_path / "other", "kl", rate, 0, sparsity=0.8)
    arms = tuning.tune(collect([tmp_path / "study", tmp_path / "other"])).arms
    assert sorted(arm.name for arm in arms) == ["CE, sparsity 50 %", "KL, sparsity 50 %", "KL, sparsity 80 %"]


def test_runs_that_nothing_can_be_chosen_from(tmp_path: Path, grid: Callable[..., Path]) -> None:
    one_rate = sweeps.grid(tmp_path / "one", seeds=(0,), sparsities=(0.5,))
    with pytest.raises(AnalysisError, match="no loss was run at several learning rates.*experiment=lr_per_arm"):
        tuning.tune(collect([one_rate]))
    with pytest.raises(AnalysisError, match="was asked no selection questions"):
        tuning.tune(collect([grid(selection={})]))


def test_selection_questions_that_are_test_questions_are_refused(grid: Callable[..., Path]) -> None:
    import pandas

    study = grid()
    for path in study.glob(f"*/{PREDICTIONS}"):
        table = pandas.read_parquet(path)
        table["id"] = table["id"].str.replace("s", "q")
        table.to_parquet(path, index=False)
    with pytest.raises(AnalysisError, match="200 selection questions are test questions too"):
        tuning.tune(collect([study]))


def test_the_command_tells_and_writes_all_of_it(grid: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    study = grid()
    assert main(["tune", str(study)]) == 0
    told = capsys.readouterr().out
    assert "KL" in told and "0.0001" in told and "18 finished runs" in told
    assert "200 selection questions; none of them is among the 200 test questions" in told
    assert "Best against best on the test questions, rates chosen with labels:\n  KL is better than CE by" in told
    assert "Widen the grid" in told
    assert (study / "tuning.tex").read_text().count(r"\begin{tabular}") == 1
    with (study / "tuning.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(each["loss"], each["chosen"], float(each["learning_rate"])) for each in lines] == [
        ("ce", "with labels", 1e-3),
        ("kl", "with labels", 1e-2),
        ("kl", "without labels", 1e-4),
    ]
    with (study / "tuning_compared.csv").open() as file:
        assert [each["chosen"] for each in csv.DictReader(file)] == [tuning.WITH, tuning.WITHOUT]


def test_the_page_shows_it_where_rates_were_varied(
    grid: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "FIGURES", {})
    told = pages.data(report.write(collect([grid()]), tmp_path)[0])["tuning"]
    assert [line[1][0] for line in told["table"]["body"]] == ["50 %", "50 %"]
    assert any("Widen the grid" in line for line in told["lines"])
    plain = sweeps.grid(tmp_path / "plain", seeds=(0, 1), sparsities=(0.5,), criteria=("l2",))
    assert pages.data(report.write(collect([plain]), tmp_path)[0])["tuning"] is None
