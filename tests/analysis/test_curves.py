"""Points and means of any metric against any axis: what is averaged, what never is, and what is left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sweeps
from scipy import stats

from analysis.collect import AnalysisError, Collection, collect
from analysis.curves import NUMBERS, SPARSITIES, axis, points, summarise
from analysis.metrics import ACCURACY, KNOWN, metric
from analysis.statistics import wilson
from regraft.records import RECORD

Sweep = Callable[..., Collection]


def _only(found: object) -> dict[str, Any]:
    (line,) = summarise(found).to_dict("records")
    return {str(key): value for key, value in line.items()}


def test_mean_and_interval_over_seeds(sweep: Sweep) -> None:
    values = [0.50, 0.55, 0.63]
    found = points(sweep(*({"seed": seed, "accuracy": value} for seed, value in enumerate(values))))
    line = _only(found)
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert found.gaps == ()
    assert line["mean"] == pytest.approx(np.mean(values))
    assert (line["low"], line["high"]) == pytest.approx((low, high))
    assert (line["over"], line["seeds"], line["distinct"], line["questions"]) == ("seeds", 3, 3, 200)


def test_seeds_that_change_nothing_give_an_interval_over_questions(sweep: Sweep) -> None:
    line = _only(points(sweep(*({"loss": "none", "seed": seed, "accuracy": 0.4} for seed in range(3)))))
    assert (line["over"], line["seeds"], line["distinct"]) == ("questions", 3, 1)
    assert (line["low"], line["high"]) == pytest.approx(wilson(80, 200))


def test_seeds_without_variance_give_no_interval_over_seeds(sweep: Sweep) -> None:
    runs = [{"seed": seed, "accuracy": 0.4, "metrics": {"nll": 1.25}} for seed in range(3)]
    line = _only(points(sweep(*runs)))
    assert (line["over"], line["distinct"]) == ("questions", 3)
    assert (line["low"], line["high"]) == pytest.approx(wilson(80, 200))
    line = _only(points(sweep(*runs), metric("nll")))
    assert (line["mean"], line["over"]) == (1.25, "nothing")
    assert np.isnan([line["low"], line["high"]]).all()


@pytest.mark.parametrize(("x", "costs"), [("recovery_flops", [1e9, 2e9]), ("recovery_tokens", [100, 200])])
def test_longer_recoveries_of_a_loss_are_points_of_its_line(sweep: Sweep, x: str, costs: list[float]) -> None:
    collection = sweep(
        *(
            {"loss": loss, "seed": seed, "costs": {"tokens": 100 * more, "flops": 1e9 * more}, "steps": 30 * more}
            for loss in ("ce", "kl")
            for more in (1, 2)
            for seed in (0, 1)
        )
    )
    found = points(collection, x=x)
    assert found.lines == ["loss"]
    assert list(summarise(found)["x"]) == [*costs, *costs]


@pytest.mark.parametrize("name", ["nll", "ece", "parameters", "tokens_per_second"])
def test_one_seed_of_what_is_no_share_of_questions_gets_no_interval(sweep: Sweep, name: str) -> None:
    line = _only(points(sweep({"metrics": {name: 0.5}}), metric(name)))
    assert (line["mean"], line["over"], line["seeds"]) == (0.5, "nothing", 1)
    assert np.isnan([line["low"], line["high"]]).all()


def test_one_sparsity_written_in_two_ways_is_one_point(sweep: Sweep) -> None:
    found = points(sweep({"sparsity": 0.1 + 0.2, "seed": 0}, {"sparsity": 0.3, "seed": 1, "accuracy": 0.6}))
    assert list(summarise(found)["seeds"]) == [2]


@pytest.mark.parametrize(
    ("changed", "column"),
    [
        ({"loss_settings": {"temperature": 2.0}}, "variant"),
        ({"lr": 0.1}, "variant"),
        ({"train_size": 100}, "train_size"),
        ({"schedule": "iterative"}, "schedule"),
        ({"criterion": "random"}, "criterion"),
        ({"task": "riddles"}, "task"),
        ({"teacher_parameters": 1000}, "variant"),
    ],
)
def test_what_varies_and_has_no_role_is_never_averaged(sweep: Sweep, changed: dict[str, Any], column: str) -> None:
    found = points(sweep({"accuracy": 0.5}, {"accuracy": 0.6} | changed))
    assert column in (*found.facets, *found.lines)
    assert sorted(summarise(found)["mean"]) == pytest.approx([0.5, 0.6])


def test_sparsity_is_a_line_where_it_is_no_axis(sweep: Sweep) -> None:
    runs = [
        {"sparsity": sparsity, "recovery_questions": size, "train_size": size, "accuracy": 0.9 - sparsity}
        for sparsity in (0.3, 0.5)
        for size in (10, 20)
    ]
    found = points(sweep(*runs), x="recovery_questions")
    assert found.lines == ["loss", "sparsity"]
    assert len(summarise(found)) == 4


def test_roles_are_taken(study: Collection) -> None:
    found = points(study, facets=["loss"], colour="criterion")
    assert (found.facets, found.lines) == (["loss"], ["criterion"])
    found = points(study, facets=[], lines=["criterion"])
    assert (found.facets, found.lines) == ([], ["loss", "criterion"])
    assert len(summarise(found)) == len(summarise(points(study))) == 2 * 3 * 3


def test_a_dotted_config_key_is_an_axis_and_a_line(sweep: Sweep) -> None:
    collection = sweep(
        *(
            {"lr": lr, "loss_settings": {"temperature": temperature}, "seed": seed, "accuracy": 0.5 + lr + seed / 100}
            for lr in (0.01, 0.1)
            for temperature in (1.0, 2.0)
            for seed in (0, 1)
        )
    )
    found = points(collection, x="recovery.lr", lines=["loss.temperature"])
    assert found.lines == ["loss", "loss.temperature"] and found.axis.swept == "recovery.lr"
    table = summarise(found)
    assert sorted(zip(table["loss.temperature"], table["x"], strict=True)) == [
        (1.0, 0.01),
        (1.0, 0.1),
        (2.0, 0.01),
        (2.0, 0.1),
    ]
    assert sorted(set(table["mean"].round(6))) == pytest.approx([0.515, 0.605])
    assert set(table["seeds"]) == {2}
    # the key that no role is given to is still told apart
    assert points(collection, x="recovery.lr").lines == ["loss", "variant"]
    with pytest.raises(AnalysisError, match=r"recovery\.no_such: no run has it"):
        points(collection, lines=["recovery.no_such"])
    with pytest.raises(AnalysisError, match="No run has accuracy on test questions against task._target_"):
        points(collection, x="task._target_")


def test_columns_that_are_no_number_are_no_axis(study: Collection) -> None:
    with pytest.raises(AnalysisError, match="--x criterion: is no number. Give one of target, block"):
        points(study, x="criterion")


@pytest.mark.parametrize("name", SPARSITIES)
def test_axes_of_sparsity(study: Collection, name: str) -> None:
    table = points(study, x=name).table
    expected = {
        "target": table["sparsity"],
        "block": table["sparsity"],
        "model": 0.6 * table["sparsity"],
        "retention": 1 - table["sparsity"],
    }[name]
    assert list(table["x"]) == pytest.approx(list(expected))
    assert axis(name, {"mlp_neurons"}).scale == 100


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("sparsity", "target"),
        ("target_sparsity", "target"),
        ("block_sparsity", "block"),
        ("model_sparsity", "model"),
    ],
)
def test_axes_of_sparsity_answer_to_the_names_of_their_columns(study: Collection, column: str, name: str) -> None:
    found, expected = points(study, x=column), points(study, x=name)
    assert found.axis.name == name and found.axis.label == expected.axis.label
    assert list(found.table["x"]) == list(expected.table["x"])


@pytest.mark.parametrize(("name", "fixture"), [("recovery_questions", "scaling"), ("teacher_parameters", "teachers")])
def test_axes_of_numbers(request: pytest.FixtureRequest, name: str, fixture: str) -> None:
    collection: Collection = request.getfixturevalue(fixture)
    found = points(collection, x=name)
    assert set(found.axis.label.split()) >= {NUMBERS[name].split()[0]} and found.axis.logarithmic
    assert list(found.table["x"]) == [float(getattr(run, name)) for run in collection.runs]
    assert not {"train_size", "teacher", "variant"} & set(found.lines)
    assert not found.gaps


@pytest.mark.parametrize("name", KNOWN)
def test_every_metric_is_an_axis_and_a_curve(study: Collection, name: str) -> None:
    across, up = points(study, x=name).table["x"], points(study, KNOWN[name]).table["value"]
    source = KNOWN[name].inverse_of or name
    rows = [run.row(run.last_evaluation, source) for run in study.runs]
    values = [row.value for row in rows if row is not None and row.value is not None]
    expected = [1000 / value for value in values] if KNOWN[name].inverse_of else values
    assert len(expected) == len(study.runs)
    assert list(across) == pytest.approx(expected) and list(up) == pytest.approx(expected)


def test_labels_name_what_is_removed_and_the_unit() -> None:
    assert axis("block", {"mlp_neurons"}).label == "Share of MLP neurons removed (%)"
    assert axis("target", {"mlp_neurons"}).label == "Requested share of MLP neurons removed (%)"
    assert axis("retention", {"mlp_neurons"}).label == "Share of MLP neurons kept (%)"
    assert axis("block", {"mlp_neurons", "heads"}).label == "Share of units removed (%)"
    assert axis("model", {"mlp_neurons"}).label == "Share of all parameters removed (%)"
    assert axis("milliseconds_per_token", set()).label == "Time of the evaluation per token (ms)"
    for each in KNOWN.values():
        unit = each.axis.removeprefix(each.label)
        assert bool(unit) or each.name in ("brier", "parameters", "non_embedding_parameters")
        assert each.scale == (100 if "%" in unit else 1)


VALUES = {"facts": [0.50, 0.56, 0.61], "riddles": [0.20, 0.33, 0.24, 0.30]}


def _tasks(losses: tuple[str, ...] = ("kl",)) -> list[dict[str, Any]]:
    return [
        {"task": task, "questions": 100 if task == "facts" else 300, "seed": seed, "accuracy": value, "loss": loss}
        for loss in losses
        for task, values in VALUES.items()
        for seed, value in enumerate(values)
    ]


def test_tasks_with_different_questions_stay_apart(sweep: Sweep) -> None:
    found = points(sweep(*_tasks()))
    assert found.facets == ["criterion", "task"]
    table = summarise(found).set_index("task")
    for task, values in VALUES.items():
        assert table.loc[task, "mean"] == pytest.approx(np.mean(values))
    assert table.loc["facts", "questions"] == 100 and table.loc["riddles", "questions"] == 300


def test_pooled_tasks_weigh_the_same_and_the_interval_is_stratified(sweep: Sweep) -> None:
    found = points(sweep(*_tasks()), pool=["task"])
    assert "task" not in (*found.facets, *found.lines) and found.pooled == ["task"]
    line = _only(found)
    first, second = VALUES.values()
    assert line["mean"] == pytest.approx((np.mean(first) + np.mean(second)) / 2)
    # half the sum is half the difference to the negated values, of which scipy knows Welch's interval
    welch = stats.ttest_ind(first, [-value for value in second], equal_var=False).confidence_interval(0.95)
    assert (line["low"], line["high"]) == pytest.approx((welch.low / 2, welch.high / 2))
    assert (line["over"], line["tasks"]) == ("seeds", 2)


def test_pooled_tasks_of_which_one_has_one_seed_get_no_interval(sweep: Sweep) -> None:
    line = _only(points(sweep(*_tasks()[:4]), pool=["task"]))
    assert line["mean"] == pytest.approx((np.mean(VALUES["facts"]) + 0.2) / 2)
    assert line["over"] == "nothing" and np.isnan([line["low"], line["high"]]).all()


def test_conditions_that_were_not_run_on_all_tasks_are_named(sweep: Sweep) -> None:
    found = points(sweep(*_tasks(("kl",)), *_tasks(("ce",))[:2]), pool=["task"])
    assert found.gaps == ("L2, loss CE, sparsity 50 %: was run on facts only, not on all 2 tasks, 2 runs left out",)
    assert set(found.table["loss"]) == {"kl"}
    with pytest.raises(AnalysisError, match="no condition was run on all 2 of them"):
        points(sweep(_tasks(("kl",))[0], _tasks(("ce",))[-1]), pool=["task"])


def test_a_run_without_the_metric_is_named(tmp_path: Path) -> None:
    sweeps.save(sweeps.record(), tmp_path)
    made = sweeps.record(seed=1)
    folder = sweeps.save(made, tmp_path)
    replace(made, rows=[replace(row, value=None) for row in made.rows]).save(folder)
    found = points(collect([tmp_path]))
    assert len(found.table) == 1
    assert found.gaps == (f"{folder}: has no accuracy on test questions, left out",)
    for path in tmp_path.glob(f"*/{RECORD}"):
        replace(made, rows=[], run_id=path.parent.name).save(path.parent)
    with pytest.raises(AnalysisError, match="No run has accuracy on test questions"):
        points(collect([tmp_path]))


def test_a_run_without_the_axis_is_named(sweep: Sweep) -> None:
    runs = [{"train_size": size, "recovery_questions": size} for size in (10, 20)]
    collection = sweep(*runs, {"train_size": 30})
    found = points(collection, x="recovery_questions")
    (gap,) = found.gaps
    lost = next(run for run in collection.runs if run.recovery_questions is None)
    assert gap == f"{lost.folder}: has no recovery_questions, left out"
    assert sorted(found.table["x"]) == [10, 20]


def test_one_setting_and_seed_with_two_ids_is_refused(tmp_path: Path) -> None:
    made = sweeps.record()
    sweeps.save(made, tmp_path)
    sweeps.save(replace(made, run_id="0123456789"), tmp_path)
    with pytest.raises(AnalysisError, match="equal in every setting and seed"):
        points(collect([tmp_path]))


def test_the_dense_value_is_that_before_pruning(study: Collection) -> None:
    assert set(points(study, ACCURACY).table["dense"].round(6)) == {0.97}
    assert set(points(study, metric("nll")).table["dense"]) == {0.2}
    assert points(study, metric("brier")).table["dense"].isna().all()
