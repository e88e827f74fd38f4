"""Numbers behind the other figures, against numbers computed here from the same records."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pytest
import sweeps
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy import special, stats

from analysis.collect import AnalysisError, Collection, collect
from analysis.comparison import compare
from analysis.crossed import estimate
from analysis.figures import FIGURES, differences
from analysis.figures.reliability import FEWEST
from regraft.evaluation.metrics import expected_calibration_error
from regraft.records import PREDICTIONS, TRAINING

Sweep = Callable[..., Collection]


def _legend(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_reliability_bins_are_those_of_the_metric(study: Collection, tmp_path: Path, drawn: list[Figure]) -> None:
    FIGURES["reliability"](study, tmp_path)
    data = pandas.read_csv(tmp_path / "reliability.csv")
    for run in study.runs:
        if run.choice("loss") != "none" or run.choice("criterion") != "l2" or run.seed:
            continue
        # without recovery the seed changes nothing, so the bins are those of a single model
        answers = run.predictions()
        scores = np.stack(list(answers["scores"]))
        confidence = special.softmax(scores, axis=1).max(axis=1)
        expected = expected_calibration_error(confidence, (answers["predicted"] == answers["gold"]).to_numpy())
        mine = data[(data["criterion"] == "l2") & (data["loss"] == "none") & (data["sparsity"] == run.sparsity)]
        told = (mine["share"] * (mine["accuracy"] - mine["confidence"]).abs()).sum()
        assert told == pytest.approx(expected) and expected > 0.01
        assert mine["answers"].sum() == 400 and len(mine) > 5
        assert (10 * mine["confidence"]).between(mine["bin"], mine["bin"] + 1).all()
    joined = data[(data["loss"] == "kl") & (data["sparsity"] == 0.5)].groupby("criterion")
    assert dict(joined["answers"].sum()) == {"l2": 1200, "random": 1200}
    assert list(joined["share"].sum()) == pytest.approx([1, 1])


def test_reliability_draws_no_bin_of_few_answers_and_says_so(sweep: Sweep, tmp_path: Path, drawn: list[Figure]) -> None:
    result = FIGURES["reliability"](sweep({"questions": 90}), tmp_path)
    data = pandas.read_csv(tmp_path / "reliability.csv")
    few = data["answers"] < FEWEST
    assert few.any() and not few.all()
    (line,) = [each for each in drawn[0].axes[0].lines if each.get_marker() == "s"]
    assert list(line.get_ydata()) == pytest.approx(list(100 * data["accuracy"][~few]))
    assert f"Bins of fewer than {FEWEST} answers are not drawn." in result.caption
    with pytest.raises(AnalysisError, match="ask more questions"):
        FIGURES["reliability"](sweep({"questions": 8}), tmp_path)


def test_reliability_names_the_panels_that_do_not_fit(tmp_path: Path, drawn: list[Figure]) -> None:
    folder = sweeps.grid(
        tmp_path / "study", criteria=("l1", "l2", "random"), losses=("kl",), sparsities=(0.0, 0.3, 0.5, 0.9), seeds=(0,)
    )
    result = FIGURES["reliability"](collect([folder]), tmp_path)
    assert result.gaps == (
        "panels of 30 %, 50 % removed are not drawn, to fit a page; their numbers are in reliability.csv",
    )
    assert set(pandas.read_csv(tmp_path / "reliability.csv")["sparsity"]) == {0.0, 0.3, 0.5, 0.9}
    # a row for each sparsity, since there are more criteria than sparsities
    told = [axes.get_title().replace("\n", " ") for axes in drawn[0].axes]
    assert told == [
        f"criterion {criterion}, {share} % removed"
        for share, criterion in itertools.product((0, 90), ("L1", "L2", "random"))
    ]


def test_discs_are_as_large_as_the_share_of_answers(study: Collection, tmp_path: Path, drawn: list[Figure]) -> None:
    FIGURES["reliability"](study.where({"criterion": ["l2"], "loss": ["kl"], "sparsity": ["0.5"]}), tmp_path)
    data = pandas.read_csv(tmp_path / "reliability.csv")
    (discs,) = drawn[0].axes[0].collections
    sizes, shares = np.asarray(discs.get_sizes()), data["share"][data["answers"] >= FEWEST].to_numpy()
    assert np.polyfit(shares, sizes, 1)[0] > 0 and np.corrcoef(shares, sizes)[0, 1] == pytest.approx(1)
    assert not discs.get_clip_on()


def test_three_readings_of_uncertainty(scaling: Collection, tmp_path: Path, drawn: list[Figure]) -> None:
    result = FIGURES["uncertainty_vs_recovery_questions"](scaling, tmp_path)
    data = pandas.read_csv(tmp_path / "uncertainty_vs_recovery_questions.csv").set_index(["loss", "recovery_questions"])
    assert len(data) == 6
    for (loss, size), line in data.iterrows():
        runs = [run for run in scaling.runs if (run.choice("loss"), run.recovery_questions) == (loss, size)]
        values = [float(run.right.mean()) for run in runs]
        assert line["deviation"] == pytest.approx(np.std(values, ddof=1))
        quantiles = stats.chi2.ppf([0.975, 0.025], len(values) - 1)
        ends = np.sqrt((len(values) - 1) * np.var(values, ddof=1) / quantiles)
        assert [line["deviation_low"], line["deviation_high"]] == pytest.approx(list(ends))
        crossed = estimate(np.stack([run.right.to_numpy(float) for run in runs], axis=1))
        assert crossed is not None and line["width"] == pytest.approx(crossed.high - crossed.low)
        errors = [run.row(run.last_evaluation, "ece").value for run in runs]
        low, high = stats.t.interval(0.95, 4, loc=np.mean(errors), scale=stats.sem(errors))
        assert [line["ece"], line["ece_low"], line["ece_high"]] == pytest.approx([np.mean(errors), low, high])
        assert (line["seeds"], line["questions"], line["width_over"]) == (5, 300, "questions and seeds")
    for axes, column in zip(drawn[0].axes, ("width", "deviation", "ece"), strict=True):
        heights = [list(each.get_ydata()) for each in axes.lines if each.get_marker() in ("o", "s")]
        assert heights == [pytest.approx(list(100 * data.loc[loss, column])) for loss in ("ce", "kl")]
        assert axes.get_ylim()[0] == 0
    assert "Each seed drew its own recovery questions" in result.caption
    assert "over seeds" in drawn[0].axes[1].get_ylabel().replace("\n", " ")


def test_uncertainty_of_one_recovery_set_is_not_said_to_be_over_subsets(
    sweep: Sweep, tmp_path: Path, drawn: list[Figure]
) -> None:
    runs = [
        {"train_size": size, "recovery_questions": size, "seed": seed, "accuracy": 0.5 + seed / 10}
        for size in (10, 20)
        for seed in (0, 1)
    ]
    collection = sweep(*({"metrics": {"ece": 0.1}} | run for run in runs))
    caption = FIGURES["uncertainty_vs_recovery_questions"](collection, tmp_path).caption
    assert "over seeds" in drawn[0].axes[1].get_ylabel().replace("\n", " ")
    assert "All seeds had the same recovery questions in another order" in caption and "over seeds." in caption
    data = pandas.read_csv(tmp_path / "uncertainty_vs_recovery_questions.csv")
    assert list(data["ece"]) == pytest.approx([0.1, 0.1]) and data["ece_low"].isna().all()
    # where all seeds agree there is no spread, and none is drawn
    alike = sweep(*(run | {"accuracy": 0.5, "loss": "none", "metrics": {"ece": 0.1}} for run in runs))
    with pytest.raises(AnalysisError, match="no condition has two seeds that differ"):
        FIGURES["uncertainty_vs_recovery_questions"](alike, tmp_path)


def test_uncertainty_names_a_run_without_calibration(sweep: Sweep, tmp_path: Path, drawn: list[Figure]) -> None:
    runs = [
        {"train_size": size, "recovery_questions": size, "seed": seed, "accuracy": 0.5 + seed / 10}
        for size in (10, 20)
        for seed in (0, 1)
    ]
    collection = sweep(*({"metrics": {"ece": 0.1 + run["seed"] / 10}} | run for run in runs[1:]), runs[0])
    (gap,) = FIGURES["uncertainty_vs_recovery_questions"](collection, tmp_path).gaps
    assert gap.endswith("has no ece on test questions, left out")
    data = pandas.read_csv(tmp_path / "uncertainty_vs_recovery_questions.csv")
    assert list(data["ece_low"].isna()) == [True, False]


def test_seeds_that_answered_different_questions_have_no_common_interval(tmp_path: Path) -> None:
    for size, seed in itertools.product((10, 20), (0, 1)):
        made = sweeps.record(
            train_size=size, recovery_questions=size, seed=seed, accuracy=0.5 + seed / 10, metrics={"ece": 0.1}
        )
        folder = sweeps.save(made, tmp_path / "study")
    table = pandas.read_parquet(folder / PREDICTIONS)
    table.assign(id="other" + table["id"]).to_parquet(folder / PREDICTIONS)
    with pytest.raises(AnalysisError, match="answered different test questions"):
        FIGURES["uncertainty_vs_recovery_questions"](collect([tmp_path / "study"]), tmp_path)


def test_layers_tell_the_share_that_is_gone(study: Collection, tmp_path: Path, drawn: list[Figure]) -> None:
    result = FIGURES["layer_wise_sparsity"](study, tmp_path)
    data = pandas.read_csv(tmp_path / "layer_wise_sparsity.csv")
    assert len(data) == 2 * 3 * 4 and set(data["runs"]) == {9}
    half = data[(data["criterion"] == "l2") & (data["sparsity"] == 0.5)].sort_values("layer")
    assert list(half["mean"]) == pytest.approx([0.48, 0.51, 0.5, 0.51])
    assert list(drawn[0].axes[0].lines[1].get_ydata()) == pytest.approx([48, 51, 50, 51])
    assert _legend(drawn[0]) == ["0 %", "50 %", "80 %"]
    assert "mean over 9 runs" in result.caption


def test_layers_of_different_runs_make_a_band(sweep: Sweep, tmp_path: Path, drawn: list[Figure]) -> None:
    FIGURES["layer_wise_sparsity"](
        sweep(
            {"seed": 0, "neurons": ((10, 60), (40, 80))},
            {"seed": 1, "neurons": ((30, 20), (40, 80))},
            {"seed": 2},
        ),
        tmp_path,
    )
    data = pandas.read_csv(tmp_path / "layer_wise_sparsity.csv")
    assert data[["mean", "low", "high", "runs"]].to_numpy().tolist() == [[0.5, 0.25, 0.75, 2], [0.5, 0.25, 0.75, 2]]
    (band,) = drawn[0].axes[0].collections
    assert sorted({round(float(y)) for _, y in band.get_paths()[0].vertices}) == [25, 75]


def test_seeds_are_told_by_their_distance(sweep: Sweep, tmp_path: Path, drawn: list[Figure]) -> None:
    values = [0.40, 0.50, 0.55]
    runs = [{"seed": seed, "accuracy": value} for seed, value in enumerate(values)]
    runs += [{"loss": "none", "seed": seed, "accuracy": 0.3} for seed in range(3)]
    result = FIGURES["spread_of_seeds"](sweep(*runs), tmp_path)
    data = pandas.read_csv(tmp_path / "spread_of_seeds.csv").sort_values("seed")
    assert list(data["loss"]) == ["kl"] * 3
    assert list(data["distance"]) == pytest.approx(list(np.array(values) - np.mean(values)))
    assert list(data["deviation"]) == pytest.approx([np.std(values, ddof=1)] * 3)
    axes = drawn[0].axes[0]
    bar, dots = axes.collections
    assert [abs(y) for y in bar.get_segments()[0][:, 1]] == pytest.approx([100 * np.std(values, ddof=1)] * 2)
    assert sorted(np.asarray(dots.get_offsets())[:, 1]) == pytest.approx(sorted(100 * data["distance"]))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["50"]
    assert drawn[0].get_supxlabel().endswith("(%)")
    assert "Conditions in which the seed changes nothing have no dots." in result.caption
    with pytest.raises(AnalysisError, match="they have no spread"):
        FIGURES["spread_of_seeds"](sweep(*runs[3:]), tmp_path)


def test_training_curves_are_means_over_seeds(tmp_path: Path, drawn: list[Figure]) -> None:
    losses = {0: [4.0, 2.0, 1.0], 1: [2.0, 1.0, 0.5]}
    for seed, each in losses.items():
        sweeps.save(sweeps.record(seed=seed, accuracy=0.5 + seed / 10), tmp_path / "study", losses=each)
    sweeps.save(sweeps.record(loss="none"), tmp_path / "study")
    result = FIGURES["training_curves"](collect([tmp_path / "study"]), tmp_path)
    data = pandas.read_csv(tmp_path / "training_curves.csv")
    assert data["step"].tolist() == [1, 2, 3]
    assert data["mean"].tolist() == [3.0, 1.5, 0.75]
    assert data["low"].tolist() == losses[1] and data["high"].tolist() == losses[0]
    assert list(drawn[0].axes[0].lines[0].get_ydata()) == [3.0, 1.5, 0.75]
    assert "mean over 2 seeds" in result.caption
    assert [axes.get_title() for axes in drawn[0].axes] == ["KL"] and "All: criterion L2." in result.caption
    assert [axes.get_ylabel() for axes in drawn[0].axes] == ["Loss"], "not every loss is in nats"


@pytest.mark.parametrize("losses", [[1.6, 1.4, 1.3], [0.9, 0.5, 0.2], [2.0, 0.9, 0.3], [40.0, 3.0, 0.02]])
def test_an_axis_of_losses_has_numbers(losses: list[float], tmp_path: Path, drawn: list[Figure]) -> None:
    for criterion in ("l2", "random"):
        sweeps.save(sweeps.record(criterion=criterion), tmp_path / "study", losses=losses)
    FIGURES["training_curves"](collect([tmp_path / "study"]), tmp_path)
    for axes in drawn[0].axes:
        low, high = axes.get_ylim()
        written = [tick for tick in axes.yaxis.get_major_ticks() if low <= tick.get_loc() <= high]
        assert len([tick for tick in written if tick.label1.get_text()]) >= 2
    assert [axes.get_title() for axes in drawn[0].axes] == ["KL, criterion L2", "KL, criterion random"]


def test_steps_count_over_stages_and_long_trainings_are_averaged(tmp_path: Path, drawn: list[Figure]) -> None:
    folder = sweeps.save(sweeps.record(schedule="iterative"), tmp_path / "study")
    falling = [float(step) for step in range(1000, 0, -1)]
    stages = [sweeps.training(falling[:600], stage=3), sweeps.training(falling[600:], stage=6)]
    pandas.concat(stages).to_parquet(folder / TRAINING, index=False)
    FIGURES["training_curves"](collect([tmp_path / "study"]), tmp_path)
    data = pandas.read_csv(tmp_path / "training_curves.csv")
    assert len(data) == 334 and data["step"].is_monotonic_increasing
    # 1001 minus the step is the loss, so means of both over neighbours fit too
    assert (data["mean"] + data["step"]).to_numpy() == pytest.approx(1001)
    (folder / TRAINING).write_bytes(b"no table")
    with pytest.raises(AnalysisError, match="cannot be read"):
        FIGURES["training_curves"](collect([tmp_path / "study"]), tmp_path)


def test_training_at_one_sparsity_is_told_apart_by_what_else_differs(
    scaling: Collection, tmp_path: Path, drawn: list[Figure]
) -> None:
    caption = FIGURES["training_curves"](scaling, tmp_path).caption
    assert _legend(drawn[0]) == ["15", "120", "1200"]
    assert drawn[0].legends[0].get_title().get_text() == "Recovery questions"
    assert "Requested sparsity: 90 %." in caption
    assert len(pandas.read_csv(tmp_path / "training_curves.csv")) == 2 * 3 * 19


def test_a_loss_of_zero_has_no_place_on_a_logarithm_and_the_caption_says_so(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    sweeps.save(sweeps.record(sparsity=0.0), tmp_path / "study", losses=[0.0, 0.0, 0.0])
    sweeps.save(sweeps.record(sparsity=0.5), tmp_path / "study", losses=[1.0, 0.5, 0.2])
    result = FIGURES["training_curves"](collect([tmp_path / "study"]), tmp_path)
    assert result.caption.endswith("there is no line.")
    assert [len(line.get_xdata()) for line in drawn[0].axes[0].lines] == [3]
    assert _legend(drawn[0]) == ["50 %"]


def _pairs(folder: Path, questions: int = 150, seeds: int = 5) -> Collection:
    """KL is much better than CE at 50 %, and as good at 80 %."""
    for sparsity, loss, seed in itertools.product((0.5, 0.8), ("ce", "kl"), range(seeds)):
        noise = np.random.default_rng([round(100 * sparsity), seed, loss == "kl"])
        right = noise.random(questions) < (0.8 if loss == "kl" and sparsity == 0.5 else 0.5)
        sweeps.save(sweeps.record(loss=loss, sparsity=sparsity, seed=seed, questions=questions), folder, right=right)
    return collect([folder])


def test_differences_are_drawn_with_their_intervals(tmp_path: Path, drawn: list[Figure]) -> None:
    collection = _pairs(tmp_path / "study")
    result = FIGURES["loss_kl_minus_ce"](collection, tmp_path)
    comparisons, _ = compare(collection, "loss", "kl", "ce")
    axes = drawn[0].axes[0]
    points = [line for line in axes.lines if line.get_marker() == "o"]
    for point, bar, each in zip(points, axes.collections, comparisons, strict=True):
        assert each.estimate is not None
        assert list(point.get_ydata()) == pytest.approx([100 * each.difference])
        assert list(bar.get_segments()[0][:, 1]) == pytest.approx([100 * each.estimate.low, 100 * each.estimate.high])
        filled = to_hex(str(point.get_markerfacecolor())) != "#ffffff"
        assert filled == each.claimed == (each.sparsity == 0.5)
    assert _legend(drawn[0]) == ["claimed", "not told apart"]
    assert axes.get_ylabel().replace("\n", " ") == "Accuracy, KL minus CE (points)"
    assert "paired on 150 questions and 5 seeds" in result.caption
    assert "Filled: p < 0.05 after Holm over 2 sparsities" in result.caption
    assert len(pandas.read_csv(tmp_path / "loss_kl_minus_ce.csv")) == 2


def test_with_one_seed_no_difference_is_claimed(tmp_path: Path, drawn: list[Figure]) -> None:
    result = FIGURES["loss_kl_minus_ce"](_pairs(tmp_path / "study", seeds=1), tmp_path)
    assert _legend(drawn[0]) == ["not tested"]
    assert "Nothing is claimed" in result.caption and "1 seed." in result.caption


def test_a_difference_that_is_not_controlled_is_crossed_out(tmp_path: Path, drawn: list[Figure]) -> None:
    for seed in range(5):
        for loss, lr in (("kl", 0.1), ("ce", 0.001)):
            made = sweeps.record(loss=loss, seed=seed, lr=lr)
            right = np.random.default_rng([seed, loss == "kl"]).random(100) < (0.9 if loss == "kl" else 0.3)
            sweeps.save(replace(made), tmp_path / "study", right=np.resize(right, 200))
    result = FIGURES["loss_kl_minus_ce"](collect([tmp_path / "study"]), tmp_path)
    assert _legend(drawn[0]) == ["not controlled"]
    assert "Grade: not controlled." in result.caption and "Nothing is claimed" in result.caption


def test_differences_against_the_size_of_the_recovery_set(
    scaling: Collection, tmp_path: Path, drawn: list[Figure]
) -> None:
    caption = FIGURES["loss_kl_minus_ce"](scaling, tmp_path).caption
    assert drawn[0].get_supxlabel() == "Recovery questions" and drawn[0].axes[0].get_xscale() == "log"
    assert "90 % of MLP neurons removed." in caption
    with pytest.raises(AnalysisError, match="sparsity is the x-axis"):
        differences.draw(compare(_pairs(tmp_path / "study", seeds=2), "sparsity", "0.5", "0.8")[0], tmp_path)
    with pytest.raises(AnalysisError, match="no pair of runs"):
        differences.draw([], tmp_path)


def test_methods_at_one_sparsity_are_rows_the_best_on_top(
    sweep: Callable[..., Collection], tmp_path: Path, drawn: list[Figure]
) -> None:
    accuracies = {"none": 0.3, "ce": 0.6, "kl": 0.8, "jsd": 0.7}
    runs = [
        {"loss": loss, "seed": seed, "accuracy": value + 0.02 * seed}
        for loss, value in accuracies.items()
        for seed in range(1 if loss == "none" else 2)
    ]
    collection = sweep(*runs, {"loss": "kl", "sparsity": 0.0, "accuracy": 0.9})
    FIGURES["accuracy_of_methods"](collection, tmp_path)
    (axes,) = drawn[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["none", "CE", "JSD", "KL"]
    assert [list(line.get_xdata()) for line in axes.lines if line.get_marker() != "None"] == [
        pytest.approx([100 * value]) for value in (0.3, 0.61, 0.71, 0.81)
    ]
    bars = [bar.get_segments()[0][:, 0] for bar in axes.collections if hasattr(bar, "get_segments")]
    assert len(bars) == 4 and all(low < high for low, high in bars)
    assert _legend(drawn[0]) == ["dense", "chance"]
    with pytest.raises(AnalysisError, match="several sparsities"):
        FIGURES["accuracy_of_methods"](sweep(*runs, {"loss": "kl", "sparsity": 0.9}), tmp_path)
    with pytest.raises(AnalysisError, match="there is 1"):
        FIGURES["accuracy_of_methods"](sweep(runs[0]), tmp_path)


def test_learning_rates_are_points_of_a_loss(
    sweep: Callable[..., Collection], tmp_path: Path, drawn: list[Figure]
) -> None:
    rates = (1e-4, 1e-3, 1e-2)
    runs = [
        {"loss": loss, "seed": seed, "learning_rate": rate, "accuracy": 0.5 + 10 * rate + 0.01 * seed}
        for loss in ("ce", "kl")
        for rate in rates
        for seed in (0, 1)
    ]
    FIGURES["accuracy_vs_learning_rate"](sweep(*runs), tmp_path)
    axes = drawn[0].axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0.0001", "0.001", "0.01"]
    assert {"CE", "KL"} <= set(_legend(drawn[0]))
    with pytest.raises(AnalysisError, match="sweep recovery.learning_rate"):
        FIGURES["accuracy_vs_learning_rate"](sweep(*runs[:2]), tmp_path)
