from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sweeps
from statsmodels.stats import contingency_tables, multitest

from analysis.collect import AnalysisError, collect
from analysis.comparison import as_table, compare, loss_pairs, told_needed, told_views
from analysis.crossed import estimate
from analysis.grades import Grade, grade
from regraft.records import BATCHES_BY_STEP, PREDICTIONS, Record


def test_a_one_shot_pair_is_same_units() -> None:
    assert grade(sweeps.record(loss="kl"), sweeps.record(loss="ce"), "loss") == Grade("same-units")
    assert grade(sweeps.record(loss="kl"), sweeps.record(loss="none"), "loss") == Grade("same-units")
    assert grade(sweeps.record(loss="kl", sparsity=0.0), sweeps.record(loss="ce", sparsity=0.0), "loss") == Grade(
        "same-units"
    )


def test_an_iterative_pair_is_same_rule() -> None:
    pair = (sweeps.record(loss=loss, schedule="iterative") for loss in ("kl", "ce"))
    assert grade(*pair, "loss") == Grade("same-rule")


def test_criteria_are_compared_by_the_same_rule() -> None:
    pair = (sweeps.record(criterion=criterion) for criterion in ("l2", "random"))
    assert grade(*pair, "criterion") == Grade("same-rule")


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"lr": 0.1}, "recovery.lr"),
        ({"train_size": 100}, "task.train_size"),
        ({"criterion": "random"}, "pruner.criterion._target_"),
        ({"schedule": "iterative"}, "schedule._target_"),
    ],
)
def test_what_else_differs_is_named(changed: dict[str, object], key: str) -> None:
    found = grade(sweeps.record(loss="kl"), sweeps.record(loss="ce", **changed), "loss")
    assert found == Grade("not controlled", (key,))


def test_another_seed_is_not_controlled() -> None:
    found = grade(sweeps.record(loss="kl", seed=0), sweeps.record(loss="ce", seed=1), "loss")
    assert found == Grade("not controlled", ("seed", "the recovery batches"))


def test_settings_that_change_no_result_are_left_out() -> None:
    other = sweeps.record(loss="ce", tracker="None", sweep="second")
    other.config["runtime"] = {"threads": 8}
    other.config["save_model"] = True
    assert grade(sweeps.record(loss="kl"), other, "loss") == Grade("same-units")


def _with(made: Record, stage: int, **fingerprints: str) -> Record:
    stages = list(made.stages)
    stages[stage] = replace(stages[stage], fingerprints=stages[stage].fingerprints | fingerprints)
    return replace(made, stages=stages)


def test_fingerprints_count_where_configs_agree() -> None:
    a, b = sweeps.record(loss="kl"), sweeps.record(loss="ce")
    assert grade(a, _with(b, 2, model_in="x"), "loss") == Grade("not controlled", ("the model that entered pruning",))
    assert grade(a, _with(b, 3, batches="x"), "loss") == Grade("not controlled", ("the recovery batches",))
    assert grade(a, _with(b, 2, units="x"), "loss") == Grade("same-rule")
    # after pruning, what enters recovery follows from the units
    assert grade(a, _with(b, 3, model_in="x"), "loss") == Grade("same-units")


@pytest.mark.parametrize(
    ("factor", "may_move"),
    [
        ("model", {"batches", "model_in"}),
        ("model.layers", {"batches", "model_in"}),
        ("preparation", {"model_in"}),
        ("task", {"batches", "model_in"}),
        ("task.scoring", {"batches", "model_in"}),
        ("train_size", {"batches"}),
        ("recovery", {"batches"}),
        ("recovery.epochs", {"batches"}),
        ("recovery.steps", {"batches"}),
        ("recovery.flops", {"batches"}),
        ("recovery.batch_size", {"batches"}),
        ("recovery.accumulation", {"batches"}),
        ("recovery.learning_rate", set()),
        ("schedule", {"batches"}),
        ("pipeline", {"batches"}),
        ("batch_source", {"batches"}),
        ("batches.share", {"batches"}),
        ("sparsity", {"batches"}),
        ("loss", set()),
        ("teacher", set()),
        ("criterion", set()),
    ],
)
def test_a_factor_may_move_what_it_decides_and_nothing_else(factor: str, may_move: set[str]) -> None:
    a = sweeps.record()
    others = {"batches": _with(a, 3, batches="x"), "model_in": _with(a, 2, model_in="x")}
    moved = {name for name, other in others.items() if grade(a, other, factor).name == "same-units"}
    assert moved == may_move


def within(made: Record, steps: int, *, first: str = "", **budget: float) -> Record:
    """The run with a recovery that a budget ended after so many steps; each of them has a digest."""
    by_step = [f"{first}{number}" for number in range(steps)]
    stages = list(made.stages)
    stages[3] = replace(stages[3], details=stages[3].details | {BATCHES_BY_STEP: by_step})
    other = _with(replace(made, stages=stages), 3, batches=f"{first}{steps}")
    return replace(other, config=made.config | {"recovery": made.config["recovery"] | budget})


def test_one_budget_may_give_one_side_more_of_the_same_batches() -> None:
    kl, ce = sweeps.record(loss="kl"), sweeps.record(loss="ce")
    one = {"flops": 2e11}
    assert grade(within(kl, 90, **one), within(ce, 238, **one), "loss") == Grade("same-units", steps=((90, 238),))
    assert grade(within(kl, 90, **one), within(ce, 90, **one), "loss") == Grade("same-units")
    other_batches = Grade("not controlled", ("the recovery batches",))
    assert grade(within(kl, 90, **one), within(ce, 238, first="x", **one), "loss") == other_batches
    assert grade(within(kl, 90), within(ce, 238), "loss") == other_batches, "nothing says that it costs as much"
    assert grade(within(kl, 90, **one), _with(within(ce, 90, **one), 3, batches="x"), "loss") == other_batches
    assert "recovery.flops" in grade(within(kl, 90, **one), within(ce, 238, flops=3e11), "loss").differing


def test_records_from_before_say_no_step_so_that_other_batches_are_not_controlled() -> None:
    def of_before(made: Record) -> Record:
        stages = [
            replace(stage, details={key: value for key, value in stage.details.items() if key != BATCHES_BY_STEP})
            for stage in made.stages
        ]
        return replace(made, stages=stages)

    kl, ce = within(sweeps.record(loss="kl"), 90, tokens=5e4), within(sweeps.record(loss="ce"), 115, tokens=5e4)
    for pair in ((of_before(kl), ce), (kl, of_before(ce)), (of_before(kl), of_before(ce))):
        assert grade(*pair, "loss") == Grade("not controlled", ("the recovery batches",))


def test_the_verdict_says_how_many_steps_one_budget_gave(tmp_path: Path) -> None:
    for seed, steps in ((0, 238), (1, 240)):
        for loss, taken in (("kl", 90), ("ce", steps)):
            made = within(sweeps.record(loss=loss, seed=seed), taken, first=f"{seed}/", flops=2e11)
            right = np.random.default_rng([seed, ord(loss[0])]).random(200) < 0.5
            sweeps.save(replace(made, run_id=f"{loss}{seed}"), tmp_path, right)
    (found,), _ = compare(collect([tmp_path]), "loss", "kl", "ce")
    assert found.grade == Grade("same-units", steps=((90, 238), (90, 240)))
    assert "same units, one budget gave KL 90 and CE 238 to 240 steps of the same batches" in found.verdict


def _without(made: Record, stage: int, name: str) -> Record:
    kept = {key: value for key, value in made.stages[stage].fingerprints.items() if key != name}
    stages = list(made.stages)
    stages[stage] = replace(stages[stage], fingerprints=kept)
    return replace(made, stages=stages)


def test_what_is_not_recorded_is_not_taken_for_equal() -> None:
    kl, ce, none = (sweeps.record(loss=loss) for loss in ("kl", "ce", "none"))
    for a, b in ((_without(kl, 3, "batches"), ce), (_without(kl, 3, "batches"), _without(ce, 3, "batches"))):
        assert grade(a, b, "loss") == Grade("not controlled", ("the recovery batches (they are not recorded)",))
    silent = _without(kl, 2, "units"), _without(ce, 2, "units")
    assert grade(*silent, "loss") == Grade("not controlled", ("the units removed (they are not recorded)",))
    assert grade(kl, none, "loss") == Grade("same-units")


def test_other_surroundings_are_told(tmp_path: Path) -> None:
    for loss, commit in (("kl", "abc"), ("ce", "def")):
        for seed in range(2):
            made = replace(sweeps.record(loss=loss, seed=seed), environment={"commit": commit, "device": "cpu"})
            sweeps.save(made, tmp_path, np.random.default_rng([seed, len(commit), ord(loss[0])]).random(200) < 0.5)
    (found,), _ = compare(collect([tmp_path]), "loss", "kl", "ce")
    assert found.grade == Grade("same-units", (), ("code version",))
    assert found.verdict.endswith("same units, different code version)")


def test_draws_of_recovery_questions_are_no_seeds(tmp_path: Path) -> None:
    """Five subsets under one seed are five comparisons of one seed, and claim nothing."""
    for subset in range(5):
        for loss, share in (("kl", 0.8), ("ce", 0.4)):
            made = sweeps.record(loss=loss, subset=subset)
            right = np.random.default_rng([subset, ord(loss[0])]).random(200) < share
            sweeps.save(_measured_as(made, f"{loss} {subset}"), tmp_path, right)
    found, _ = compare(collect([tmp_path]), "loss", "kl", "ce")
    assert [each.seeds for each in found] == [1] * 5 and not any(each.claimed for each in found)
    assert ", recovery subset 3 (" in found[3].verdict


def test_a_seed_that_draws_its_own_questions_is_a_seed(tmp_path: Path) -> None:
    for seed in range(5):
        for loss, share in (("kl", 0.8), ("ce", 0.4)):
            right = np.random.default_rng([seed, ord(loss[0])]).random(200) < share
            sweeps.save(sweeps.record(loss=loss, seed=seed, subset=seed), tmp_path, right)
    (found,), _ = compare(collect([tmp_path]), "loss", "kl", "ce")
    assert found.seeds == 5 and found.claimed


def test_one_pair_that_is_not_controlled_leaves_the_others_alone(tmp_path: Path) -> None:
    _pairs(tmp_path, seeds=3)
    for loss, lr in (("kl", 0.001), ("ce", 0.5)):
        sweeps.save(sweeps.record(loss=loss, seed=9, lr=lr, questions=500), tmp_path)
    found, _ = compare(collect([tmp_path]), "loss", "kl", "ce")
    assert sorted((each.grade.name, each.seeds) for each in found) == [("not controlled", 1), ("same-units", 3)]


def test_what_cannot_be_compared_is_a_gap_beside_what_can(tmp_path: Path) -> None:
    _noisy(tmp_path, {0.3: 0.1, 0.5: 0.1}, seeds=2)
    collection = collect([tmp_path])
    broken = next(run for run in collection.runs if run.sparsity == 0.5)
    (broken.folder / PREDICTIONS).unlink()
    found, gaps = compare(collection, "loss", "kl", "ce")
    assert [each.sparsity for each in found] == [0.3]
    assert len(gaps) == 1 and "at sparsity 0.5" in gaps[0] and f"{broken.folder}" in gaps[0]


def test_the_test_that_decides_is_told_where_it_is_not_that_of_the_interval(tmp_path: Path) -> None:
    """All seeds agree, and hardly any question: over seeds nearly sure, over questions not."""
    for seed in range(3):
        kl = np.arange(200) < 100
        ce = kl.copy()
        ce[[0, 1 + seed]] = False
        for loss, right in (("kl", kl), ("ce", ce)):
            if seed == 2 and loss == "ce":
                right[5] = False
            sweeps.save(sweeps.record(loss=loss, seed=seed), tmp_path, right)
    (found,), _ = compare(collect([tmp_path]), "loss", "kl", "ce")
    assert found.estimate is not None and found.estimate.over == "seeds"
    assert found.estimate.decided_by == "questions" and " over questions, same units" in found.verdict


def _pairs(folder: Path, seeds: int = 3, questions: int = 500) -> np.ndarray:
    """KL is right on every 5th question where CE is wrong, CE on every 20th; returns KL minus CE."""
    number = np.arange(questions)
    columns = []
    for seed in range(seeds):
        ce = (number + seed) % 3 == 0
        kl = np.where(number % 5 == seed, True, np.where(number % 20 == 19 - seed, False, ce))
        for loss, right in (("kl", kl), ("ce", ce)):
            sweeps.save(sweeps.record(loss=loss, seed=seed, questions=questions), folder, right=right)
        columns.append(kl.astype(float) - ce)
    return np.stack(columns, axis=1)


def test_the_difference_is_paired_and_told_in_a_sentence(tmp_path: Path) -> None:
    expected = _pairs(tmp_path, seeds=5)
    (found,), alone = compare(collect([tmp_path]), "loss", "kl", "ce")
    assert alone == []
    assert found.difference == pytest.approx(expected.mean())
    assert [each.difference for each in found.by_seed] == pytest.approx(list(expected.mean(axis=0)))
    over = estimate(expected)
    assert found.estimate == over and over is not None and over.over == "questions and seeds"
    assert found.verdict == (
        f"KL is better than CE by {100 * expected.mean():.1f} points [{100 * over.low:.1f}, {100 * over.high:.1f}] "
        "at 50 % of MLP neurons removed by L2 (500 questions x 5 seeds, p < 0.001, same units)"
    )
    half = 1.96 * expected.mean(axis=1).std() / np.sqrt(500)
    assert found.bootstrap == pytest.approx((expected.mean() - half, expected.mean() + half), abs=3e-3)
    (turned,), _ = compare(collect([tmp_path]), "loss", "ce", "kl")
    assert turned.difference == pytest.approx(-found.difference)
    assert turned.verdict == found.verdict


def test_each_seed_has_its_exact_test_and_its_odds(tmp_path: Path) -> None:
    expected = _pairs(tmp_path, seeds=2)
    (found,), _ = compare(collect([tmp_path]), "loss", "kl", "ce")
    for seed, column in enumerate(expected.T):
        first, second = int((column == 1).sum()), int((column == -1).sum())
        table = [[0, first], [second, 0]]
        assert found.by_seed[seed].seed == seed
        assert found.by_seed[seed].p == pytest.approx(contingency_tables.mcnemar(table, exact=True).pvalue)
        assert found.by_seed[seed].odds == pytest.approx((first + 0.5) / (second + 0.5))
    assert "McNemar: seed 0 +" in " ".join(told_views(found))


def _noisy(folder: Path, gains: dict[float, float], seeds: int = 5, questions: int = 400) -> Path:
    """KL gains so much over CE at each sparsity, plus what seeds and questions do."""
    for sparsity, gain in gains.items():
        generator = np.random.default_rng(round(100 * sparsity))
        hard = generator.random(questions)
        for seed in range(seeds):
            for loss, share in (("ce", 0.6), ("kl", 0.6 + gain)):
                right = 0.5 * hard + 0.5 * generator.random(questions) < share
                sweeps.save(sweeps.record(loss=loss, sparsity=sparsity, seed=seed, questions=questions), folder, right)
    return folder


def test_p_values_are_adjusted_for_the_family_that_is_declared(tmp_path: Path) -> None:
    gains = {0.1: 0.0, 0.3: 0.03, 0.5: 0.06, 0.7: 0.2}
    collection = collect([_noisy(tmp_path, gains)])
    found, _ = compare(collection, "loss", "kl", "ce")
    p_values = [each.estimate.p for each in found if each.estimate]
    expected = multitest.multipletests(p_values, method="holm")[1]
    assert [each.adjusted for each in found] == pytest.approx(list(expected))
    assert [each.claimed for each in found] == [p < 0.05 for p in expected]
    assert found[-1].claimed and not found[0].claimed
    assert all("after Holm over 4 sparsities" in each.verdict for each in found)
    assert found[0].verdict.startswith("KL and CE are not told apart: ")
    few, _ = compare(collection.where({"sparsity": ["0.3", "0.5"]}), "loss", "kl", "ce")
    assert [each.family for each in few] == [(2, "sparsities")] * 2
    table = as_table(found)
    assert list(table["p_holm"]) == pytest.approx(list(expected)) and set(table["family"]) == {4}


def _measured_as(made: Record, key: str) -> Record:
    """The same run with another key of its last evaluation."""
    return replace(made, stages=[*made.stages[:-1], replace(made.stages[-1], key=key)])


def test_one_measurement_under_two_names_is_one_test(tmp_path: Path) -> None:
    """At sparsity 0 all criteria remove nothing: the runs come to the same."""
    for criterion in ("l2", "random"):
        for seed in range(3):
            for loss in ("kl", "ce"):
                right = np.random.default_rng([seed, len(loss), ord(loss[0])]).random(300) < 0.6
                made = sweeps.record(loss=loss, criterion=criterion, sparsity=0.0, seed=seed, questions=300)
                sweeps.save(_measured_as(made, f"{loss} {seed}"), tmp_path, right)
    found, _ = compare(collect([tmp_path]), "loss", "kl", "ce")
    assert len(found) == 2 and {each.family[0] for each in found} == {1}
    assert found[0].adjusted == found[1].adjusted == found[0].estimate.p  # type: ignore[union-attr]


def test_recovery_sets_are_compared_apart_and_in_their_order(tmp_path: Path) -> None:
    for size in (15, 120, 30):
        for seed in range(2):
            for loss in ("kl", "ce"):
                right = np.random.default_rng([seed, size, ord(loss[0])]).random(200) < 0.6
                made = sweeps.record(loss=loss, seed=seed, train_size=size)
                sweeps.save(_measured_as(made, f"{loss} {seed} {size}"), tmp_path, right)
    found, _ = compare(collect([tmp_path]), "loss", "kl", "ce")
    assert [each.size for each in found] == ["15", "30", "120"]
    assert "removed by L2, 15 recovery questions (" in found[0].verdict
    assert "after Holm over 3 numbers of recovery questions" in found[0].verdict


def test_few_seeds_have_an_interval_for_these_questions(tmp_path: Path) -> None:
    _pairs(tmp_path, seeds=3)
    (found,), _ = compare(collect([tmp_path]), "loss", "kl", "ce")
    assert "500 questions x 3 seeds, interval over seeds, for these questions, p" in found.verdict


def test_one_seed_claims_nothing(tmp_path: Path) -> None:
    _pairs(tmp_path, seeds=1)
    (found,), _ = compare(collect([tmp_path]), "loss", "kl", "ce")
    assert found.by_seed[0].p < 0.05 and not found.claimed and found.adjusted is None
    assert (
        found.verdict.startswith("KL minus CE: +")
        and "other seeds are not known, so nothing is claimed" in found.verdict
    )
    assert " p " not in found.verdict
    assert found.needed() is None and told_needed(found) == ""


def test_the_size_of_a_study_that_would_see_a_difference_is_told(tmp_path: Path) -> None:
    found, _ = compare(collect([_noisy(tmp_path, {0.5: 0.0})]), "loss", "kl", "ce")
    needed = found[0].needed(0.05)
    assert needed is not None and needed.questions is not None
    upwards = -(-needed.questions // 10) * 10
    assert 100 <= needed.questions < 1000
    assert f"about {upwards} questions with these seeds" in told_needed(found[0], 0.05)
    family = replace(found[0], family=(10, "comparisons")).needed(0.05)
    assert family is not None and family.questions is not None and family.questions > needed.questions
    few = compare(collect([_noisy(tmp_path / "few", {0.5: 0.0}, seeds=3)]), "loss", "kl", "ce")[0][0]
    assert few.tested and few.needed(0.05) is None
    smaller = found[0].needed(0.02)
    assert smaller is not None and (smaller.questions is None or smaller.questions > needed.questions)


def test_conditions_are_compared_apart(tmp_path: Path) -> None:
    for schedule in ("one_shot", "iterative"):
        for criterion in ("l2", "random"):
            for sparsity in (0.3, 0.5):
                for loss, value in (("kl", 0.6), ("ce", 0.5)):
                    value += 0.1 * (criterion == "random")
                    sweeps.save(
                        sweeps.record(
                            loss=loss, criterion=criterion, sparsity=sparsity, schedule=schedule, accuracy=value
                        ),
                        tmp_path,
                    )
    found, alone = compare(collect([tmp_path]), "loss", "kl", "ce")
    assert alone == []
    assert len(found) == 8 and [each.difference for each in found] == pytest.approx([0.1] * 8)
    assert {(each.grade.name, each.about) for each in found} == {
        ("same-units", ", schedule one-shot"),
        ("same-rule", ", schedule iterative"),
    }
    by_criterion, _ = compare(collect([tmp_path]), "criterion", "random", "l2")
    assert len(by_criterion) == 8
    assert {each.grade.name for each in by_criterion} == {"same-rule"}
    assert by_criterion[0].verdict.startswith("random minus L2: +10.0 points")
    assert {each.about for each in by_criterion} == {
        f", loss {loss}, schedule {schedule}" for loss in ("CE", "KL") for schedule in ("one-shot", "iterative")
    }
    assert " at 30 % of MLP neurons removed, loss CE, schedule iterative (" in by_criterion[0].verdict


def test_a_difference_that_is_not_controlled_is_attributed_to_nothing(tmp_path: Path) -> None:
    sweeps.save(sweeps.record(loss="kl", accuracy=0.6, lr=0.1), tmp_path)
    sweeps.save(sweeps.record(loss="ce", accuracy=0.5), tmp_path)
    (found,), _ = compare(collect([tmp_path]), "loss", "kl", "ce")
    assert found.grade == Grade("not controlled", ("recovery.lr",))
    assert "not controlled" in found.verdict and "recovery.lr differ too" in found.verdict
    assert "is not attributed to loss" in found.verdict


def test_a_value_that_holds_colons_and_brackets_leaves_the_parts_of_the_verdict_whole(tmp_path: Path) -> None:
    for size in (15, 30):
        for loss, right in (("kl", 0.6), ("ce", 0.5)):
            made = sweeps.record(loss=loss, accuracy=right, task=f"facts (of: {size})")
            sweeps.save(made, tmp_path)
    found, _ = compare(collect([tmp_path]), "loss", "kl", "ce")
    assert [each.besides for each in found] == [f", task facts (of: {size})" for size in (15, 30)]
    for each in found:
        assert each.kind == "one seed" and each.claim == f"KL minus CE: {each.signed}"
        assert each.verdict == f"{each.claim} {each.where} ({each.on}; {each.unclaimed})"
        assert each.on.startswith("200 questions x 1 seed, ")


def test_seeds_that_give_the_same_run_are_one_pair(tmp_path: Path) -> None:
    for seed in range(3):
        sweeps.save(sweeps.record(loss="none", criterion="l2", seed=seed, accuracy=0.5), tmp_path)
        sweeps.save(sweeps.record(loss="none", criterion="l1", seed=seed, accuracy=0.4), tmp_path)
    (found,), _ = compare(collect([tmp_path]), "criterion", "l2", "l1")
    assert (found.seeds, found.distinct, len(found.by_seed)) == (3, 1, 1)
    assert found.tested
    assert "3 seeds that give the same run" in found.verdict


def test_runs_without_a_partner_are_named(tmp_path: Path) -> None:
    _pairs(tmp_path, seeds=1)
    lonely = sweeps.save(sweeps.record(loss="kl", seed=9), tmp_path)
    _, alone = compare(collect([tmp_path]), "loss", "kl", "ce")
    assert alone == [f"{lonely}: no partner that equals it in all but loss, left out"]


def test_bad_input(tmp_path: Path) -> None:
    _pairs(tmp_path, seeds=1)
    collection = collect([tmp_path])
    with pytest.raises(AnalysisError, match="loss=nothing: no finished run has it; there are ce, kl"):
        compare(collection, "loss", "nothing", "ce")
    with pytest.raises(AnalysisError, match="--factor colour: no run has it"):
        compare(collection, "colour", "a", "b")
    with pytest.raises(AnalysisError, match="--factor seed: runs are paired by it"):
        compare(collection, "seed", "0", "1")
    with pytest.raises(AnalysisError, match="two different values"):
        compare(collection, "loss", "kl", "kl")
    (collection.runs[0].folder / PREDICTIONS).unlink()
    with pytest.raises(AnalysisError, match=r"predictions.parquet: is missing"):
        compare(collection, "loss", "kl", "ce")


def test_different_questions_are_not_paired(tmp_path: Path) -> None:
    sweeps.save(sweeps.record(loss="kl", questions=200), tmp_path)
    sweeps.save(sweeps.record(loss="ce", questions=100), tmp_path)
    with pytest.raises(AnalysisError, match="answered different questions"):
        compare(collect([tmp_path]), "loss", "kl", "ce")


def test_the_grade_of_several_pairs_is_that_of_the_weakest(tmp_path: Path) -> None:
    for seed in range(2):
        for loss in ("kl", "ce"):
            made = sweeps.record(loss=loss, seed=seed)
            if (loss, seed) == ("kl", 1):
                made = _with(made, 2, units="others")
            sweeps.save(made, tmp_path, np.random.default_rng([seed, ord(loss[0])]).random(200) < 0.5)
    (found,), _ = compare(collect([tmp_path]), "loss", "kl", "ce")
    assert found.grade == Grade("same-rule")


def test_losses_that_are_compared_without_being_asked() -> None:
    study = [("kl", "ce"), ("kl", "none"), ("ce", "none")]
    assert loss_pairs({"none", "ce", "kl"}) == study
    assert loss_pairs({"none", "ce", "kl", "pseudo_label"}) == [
        ("kl", "ce"),
        ("pseudo_label", "ce"),
        ("kl", "pseudo_label"),
        ("kl", "none"),
        ("ce", "none"),
        ("pseudo_label", "none"),
    ]
    # a loss that nobody has heard of is compared with what there is
    assert loss_pairs({"mine", "none", "kl"}) == [("kl", "none"), ("mine", "none")]
    assert loss_pairs({"mine", "ce"}) == [("mine", "ce")]
    assert loss_pairs({"mine", "kl", ""}) == []


def test_a_setting_of_one_side_is_told_once(tmp_path: Path) -> None:
    for seed in (0, 1):
        sweeps.save(sweeps.record(loss="ce", seed=seed), tmp_path)
        for beta in (0.1, 0.9):
            made = sweeps.record(loss="jsd", seed=seed, accuracy=0.5 + beta / 10, loss_settings={"beta": beta})
            sweeps.save(made, tmp_path)
    found, alone = compare(collect([tmp_path]), "loss", "jsd", "ce")
    assert [(each.about, each.seeds) for each in found] == [(", loss.beta=0.1", 2), (", loss.beta=0.9", 2)]
    assert not alone and "removed by L2, loss.beta=0.1 (" in found[0].verdict
    ((between,), _) = compare(collect([tmp_path]).where({"loss": ["jsd"]}), "loss.beta", "0.9", "0.1")
    assert between.about == "" and between.sides == ("loss.beta 0.9", "loss.beta 0.1")


def test_what_each_side_has_chosen_for_itself_may_differ(tmp_path: Path) -> None:
    for seed in (0, 1):
        for loss, rate in (("ce", 0.1), ("kl", 0.3)):
            sweeps.save(sweeps.record(loss=loss, seed=seed, learning_rate=rate, lr=0.5), tmp_path)
    collection = collect([tmp_path])
    ((apart,), _) = compare(collection, "loss", "kl", "ce")
    assert apart.grade == Grade("not controlled", ("recovery.learning_rate",))
    ((tuned,), _) = compare(collection, "loss", "kl", "ce", tuned=("recovery.learning_rate",))
    assert tuned.grade == Grade("same-units") and tuned.seeds == 2 and tuned.about == ""


def test_where_batches_come_from_is_a_factor_that_older_records_do_not_name(tmp_path: Path) -> None:
    for seed in (0, 1):
        sweeps.save(sweeps.record(seed=seed), tmp_path)
        made = sweeps.record(seed=seed, accuracy=0.7)
        other = _with(replace(made, choices=made.choices | {"batches": "on_policy"}), 3, batches="x")
        other.config["batches"] = {"_target_": "OnPolicy", "share": 0.5}
        sweeps.save(replace(other, run_id=f"{other.run_id}0"), tmp_path)
    collection = collect([tmp_path])
    assert {run.choice("batch_source") for run in collection.runs} == {"questions", "on_policy"}
    on_policy = collection.where({"batch_source": ["on_policy"]})
    assert len(on_policy.runs) == 2 and {run.choice("loss") for run in on_policy.runs} == {"kl"}
    asked = next(run for run in collection.runs if (run.choice("batch_source"), run.seed) == ("questions", 0))
    written = next(run for run in on_policy.runs if run.seed == 0)
    assert grade(asked.record, written.record, "batch_source") == Grade("same-units")
