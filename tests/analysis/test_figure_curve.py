"""The curve as it is drawn: heights, reference lines, intervals, captions and gaps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import sweeps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from analysis.collect import AnalysisError, Collection, collect
from analysis.curves import NUMBERS, SPARSITIES, points
from analysis.figures import FIGURES, accuracy, curve
from analysis.figures.style import COLOURS
from analysis.metrics import KNOWN, metric
from regraft.records import PREDICTIONS

Sweep = Callable[..., Collection]


def _legend(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def _levels(axes: Axes) -> list[float]:
    """Heights of the lines that cross the whole panel."""
    return [
        float(np.asarray(line.get_ydata())[0])
        for line in axes.lines
        if line.get_transform() != axes.transData and list(line.get_xdata()) == [0, 1]
    ]


def _line(axes: Axes, loss: str) -> tuple[np.ndarray, np.ndarray]:
    """The line that joins the means of a loss."""
    colour, marker = COLOURS["loss"][loss]
    (line,) = [
        each for each in axes.lines if each.get_marker() == marker and to_hex(str(each.get_color())) == colour.lower()
    ]
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


def _bars(axes: Axes) -> list[tuple[float, float]]:
    """Lower and upper end of each interval that is drawn."""
    segments = [each.get_segments() for each in axes.collections if isinstance(each, LineCollection)]
    return sorted((float(one[0][1]), float(one[1][1])) for each in segments for one in each)


def test_what_is_drawn_is_what_the_csv_says(study: Collection, tmp_path: Path, drawn: list[Figure]) -> None:
    result = curve.draw(study, points(study, x="model"), tmp_path)
    (figure,) = drawn
    assert _legend(figure) == ["none", "CE", "KL", "dense", "chance", "nothing removed"]
    assert [axes.get_title() for axes in figure.axes] == ["criterion L2", "criterion random"]
    assert figure.get_supxlabel() == "Share of all parameters removed (%)"
    assert figure.axes[0].get_ylabel() == "Accuracy (%)"
    data = pandas.read_csv(tmp_path / "accuracy_vs_model_sparsity.csv")
    assert len(data) == 2 * 3 * 3
    assert len(pandas.read_csv(tmp_path / "accuracy_vs_model_sparsity_runs.csv")) == len(study.runs)
    runs = study.run_table.assign(value=[run.row(run.last_evaluation).value for run in study.runs])
    for axes, criterion in zip(figure.axes, ("l2", "random"), strict=True):
        for loss in ("none", "ce", "kl"):
            mine = data[(data["criterion"] == criterion) & (data["loss"] == loss)].sort_values("x")
            x, y = _line(axes, loss)
            assert list(y) == pytest.approx(list(100 * mine["mean"]))
            assert list(x) == pytest.approx([0, 30, 48], abs=1)
            of = runs[(runs["criterion"] == criterion) & (runs["loss"] == loss)]
            assert list(mine["mean"]) == pytest.approx(list(of.groupby("sparsity")["value"].mean()))
        shown = data[(data["criterion"] == criterion) & (data["over"] == "seeds")]
        expected = sorted(zip(100 * shown["low"].clip(0, 1), 100 * shown["high"].clip(0, 1), strict=True))
        assert _bars(axes) == [pytest.approx(ends) for ends in expected]
    assert "over 3 seeds" in result.caption and "on 400 test questions" in result.caption
    assert "against the share of all parameters removed." in result.caption


def test_reference_lines_are_at_their_heights(study: Collection, tmp_path: Path, drawn: list[Figure]) -> None:
    result = FIGURES["accuracy_vs_block_sparsity"](study, tmp_path)
    data = pandas.read_csv(tmp_path / "accuracy_vs_block_sparsity.csv")
    for axes, criterion in zip(drawn[0].axes, ("l2", "random"), strict=True):
        kept = data[(data["criterion"] == criterion) & (data["sparsity"] == 0) & (data["loss"] != "none")]
        assert len(kept) == 2
        expected = [97.0, 100 / sweeps.CHOICES, *(100 * kept["mean"])]
        assert sorted(_levels(axes)) == pytest.approx(sorted(expected))
    assert "Chance, the mean over questions of 1 / number of choices: 20.0 %" in result.caption
    assert "Dense, the model before pruning: 97.0 %" in result.caption
    assert "Thin lines: the same recovery where nothing is removed" in result.caption


def test_lines_that_are_not_there_are_not_explained(sweep: Sweep, tmp_path: Path, drawn: list[Figure]) -> None:
    collection = sweep(*({"sparsity": sparsity, "metrics": {"brier": sparsity}} for sparsity in (0.3, 0.5)))
    caption = curve.draw(collection, points(collection, metric("brier")), tmp_path).caption
    assert _legend(drawn[0]) == ["KL"] and _levels(drawn[0].axes[0]) == []
    assert not any(word in caption for word in ("Dense", "Chance", "Thin", "Bars"))


def test_retention_falls_to_the_right_and_uses_the_papers_names(
    study: Collection, tmp_path: Path, drawn: list[Figure]
) -> None:
    FIGURES["accuracy_vs_retention"](study, tmp_path)
    (figure,) = drawn
    left, right = figure.axes[0].get_xlim()
    assert left > 100 and right < 20
    assert {"no recovery", "L2PFT (CE)", "L2PSD (KL)"} < set(_legend(figure))
    assert figure.get_supxlabel() == "Share of MLP neurons kept (%)"
    x, y = _line(figure.axes[0], "none")
    assert list(x) == pytest.approx([100, 50, 20], abs=2) or list(x) == pytest.approx([20, 50, 100], abs=2)
    assert y[np.argmax(x)] > y[np.argmin(x)]


def test_retention_of_two_panels_is_turned_once(study: Collection, tmp_path: Path, drawn: list[Figure]) -> None:
    curve.draw(study, points(study, x="retention"), tmp_path)
    assert [axes.get_xlim()[0] > axes.get_xlim()[1] for axes in drawn[0].axes] == [True, True]


def test_one_seed_gets_bars_over_questions_and_says_so(tmp_path: Path, drawn: list[Figure]) -> None:
    study = sweeps.grid(tmp_path, criteria=("l2",), sparsities=(0.5, 0.8), seeds=(0,))
    collection = collect([study])
    caption = FIGURES["accuracy_vs_block_sparsity"](collection, tmp_path / "figures").caption
    assert "means over 1 seed. Bars: 95 % intervals over the questions (Wilson)" in caption
    assert "nothing is known of the spread over seeds" in caption and "over seeds (t" not in caption
    assert len(_bars(drawn[0].axes[0])) == 6
    assert set(pandas.read_csv(tmp_path / "figures" / "accuracy_vs_block_sparsity.csv")["over"]) == {"questions"}


def test_one_seed_of_what_has_no_interval_has_no_bars(sweep: Sweep, tmp_path: Path, drawn: list[Figure]) -> None:
    collection = sweep(*({"sparsity": sparsity, "metrics": {"ece": sparsity / 4}} for sparsity in (0.3, 0.5)))
    caption = curve.draw(collection, points(collection, metric("ece")), tmp_path).caption
    assert "means over 1 seed; nothing is known of their spread" in caption and "intervals" not in caption
    assert _bars(drawn[0].axes[0]) == []


def test_seeds_that_agree_have_no_bar_among_those_that_do_not(
    sweep: Sweep, tmp_path: Path, drawn: list[Figure]
) -> None:
    runs = [{"loss": "none", "seed": seed, "accuracy": 0.4} for seed in (0, 1)]
    runs += [{"loss": "kl", "seed": seed, "accuracy": 0.5 + seed / 10} for seed in (0, 1)]
    collection = sweep(*runs)
    result = curve.draw(collection, points(collection), tmp_path)
    assert len(_bars(drawn[0].axes[0])) == 1
    assert "No bar where all seeds came to the same value" in result.caption


@pytest.mark.parametrize("questions", [7, 1221])
def test_all_right_and_all_wrong_are_drawn(sweep: Sweep, questions: int, tmp_path: Path, drawn: list[Figure]) -> None:
    collection = sweep(
        {"loss": "kl", "accuracy": 1.0, "questions": questions}, {"loss": "ce", "accuracy": 0.0, "questions": questions}
    )
    assert curve.draw(collection, points(collection), tmp_path).gaps == ()
    low, high = drawn[0].axes[0].get_ylim()
    assert low < 0 and high > 100
    ends = [end for bar in _bars(drawn[0].axes[0]) for end in bar]
    assert min(ends) >= 0 and max(ends) <= 100


def test_without_predictions_the_chance_line_is_missing_and_told(tmp_path: Path, drawn: list[Figure]) -> None:
    study = sweeps.grid(tmp_path, criteria=("l2",), sparsities=(0.5, 0.8), seeds=(0, 1))
    for path in study.glob(f"*/{PREDICTIONS}"):
        path.unlink()
    result = FIGURES["accuracy_vs_block_sparsity"](collect([study]), tmp_path / "figures")
    assert len(result.gaps) == 1 and result.gaps[0].startswith("no chance line: ")
    assert "Chance" not in result.caption and "chance" not in _legend(drawn[0])


def test_each_task_has_its_own_panel_and_lines(sweep: Sweep, tmp_path: Path, drawn: list[Figure]) -> None:
    heights = {"facts": 0.9, "riddles": 0.7}
    collection = sweep(
        *(
            {"task": task, "sparsity": sparsity, "accuracy": dense - sparsity / 2, "dense": {"accuracy": dense}}
            for task, dense in heights.items()
            for sparsity in (0.3, 0.5)
        )
    )
    curve.draw(collection, points(collection), tmp_path)
    pooled = curve.draw(collection, points(collection, pool=["task"]), tmp_path)
    apart, together = drawn
    assert [axes.get_title() for axes in apart.axes] == ["criterion L2, task facts", "criterion L2, task riddles"]
    assert [sorted(_levels(axes)) for axes in apart.axes] == [
        pytest.approx([20, 100 * dense]) for dense in heights.values()
    ]
    (axes,) = together.axes
    assert sorted(_levels(axes)) == pytest.approx([20, 80])
    assert list(_line(axes, "kl")[1]) == pytest.approx([65, 55])
    assert "Means over tasks, all with the same weight." in pooled.caption


@pytest.mark.parametrize("x", [*SPARSITIES, "bytes", "dense_kl", "tokens_per_second", "milliseconds_per_token"])
def test_accuracy_is_drawn_against_every_axis(x: str, study: Collection, tmp_path: Path, drawn: list[Figure]) -> None:
    study = study.where({"criterion": ["l2"]})
    result = curve.draw(study, points(study, x=x), tmp_path)
    (figure,) = drawn
    assert figure.get_supxlabel() == points(study, x=x).axis.label
    ends = sorted(figure.axes[0].get_xlim())
    scale = points(study, x=x).axis.scale
    values = scale * points(study, x=x).table["x"]
    assert ends[0] <= values.min() and values.max() <= ends[1]
    assert ("measured with a clock" in result.caption) == (x in ("tokens_per_second", "milliseconds_per_token"))


@pytest.mark.parametrize("y", ["nll", "ece", "parameters", "dense_agreement", "milliseconds_per_token"])
def test_every_metric_is_drawn_against_sparsity(y: str, study: Collection, tmp_path: Path, drawn: list[Figure]) -> None:
    study = study.where({"criterion": ["l2"]})
    found = points(study, metric(y))
    caption = curve.draw(study, found, tmp_path).caption
    (figure,) = drawn
    assert figure.axes[0].get_ylabel().replace("\n", " ") == KNOWN[y].axis
    assert caption.startswith(KNOWN[y].label)
    low, high = figure.axes[0].get_ylim()
    assert low < KNOWN[y].scale * found.table["value"].min() and KNOWN[y].scale * found.table["value"].max() < high


@pytest.mark.parametrize(
    ("x", "fixture", "ticks"),
    [
        ("recovery_questions", "scaling", ["15", "120", "1.2k"]),
        ("teacher_parameters", "teachers", ["1.16M", "4.63M", "21M"]),
    ],
)
def test_axes_of_numbers_are_logarithmic_with_a_tick_at_each(
    x: str, fixture: str, ticks: list[str], request: pytest.FixtureRequest, tmp_path: Path, drawn: list[Figure]
) -> None:
    collection: Collection = request.getfixturevalue(fixture)
    curve.draw(collection, points(collection, x=x), tmp_path)
    (figure,) = drawn
    axes = figure.axes[0]
    assert axes.get_xscale() == "log" and figure.get_supxlabel() == NUMBERS[x]
    assert [label.get_text() for label in axes.get_xticklabels()] == ticks


def test_where_sparsity_is_no_axis_the_caption_tells_it(
    scaling: Collection, tmp_path: Path, drawn: list[Figure]
) -> None:
    caption = FIGURES["accuracy_vs_recovery_questions"](scaling, tmp_path).caption
    assert "against the recovery questions, 90 % of MLP neurons removed." in caption
    assert "Each seed drew its own recovery questions; draws that" in caption
    assert "90 % of MLP neurons removed" in FIGURES["uncertainty_vs_recovery_questions"](scaling, tmp_path).caption


def test_a_dotted_key_is_drawn_with_its_name(sweep: Sweep, tmp_path: Path, drawn: list[Figure]) -> None:
    runs: list[dict[str, Any]] = [
        {"lr": lr, "loss_settings": {"temperature": temperature}, "accuracy": 0.5 + lr}
        for lr in (0.01, 0.1)
        for temperature in (1.0, 2.0)
    ]
    collection = sweep(*runs)
    result = curve.draw(collection, points(collection, x="recovery.lr", lines=["loss.temperature"]), tmp_path)
    assert drawn[0].get_supxlabel() == "recovery.lr"
    assert _legend(drawn[0])[:2] == ["KL, loss.temperature 1.0", "KL, loss.temperature 2.0"]
    assert result.files[0].name == "accuracy_vs_recovery_lr.pdf"


def test_teachers_are_lines_of_a_capacity_gap(teachers: Collection, tmp_path: Path, drawn: list[Figure]) -> None:
    FIGURES["capacity_gap"](teachers, tmp_path)
    data = pandas.read_csv(tmp_path / "capacity_gap.csv")
    assert len(data) == 2 * 3
    for (sparsity, size), group in data.groupby(["sparsity", "teacher_parameters"]):
        expected = [0.95 - 0.4 * sparsity + 0.02 * np.log10(size) - 0.01 * seed for seed in range(3)]
        assert list(group["mean"]) == pytest.approx([np.mean(np.round(np.multiply(expected, 200)) / 200)])
    assert _legend(drawn[0])[:2] == ["50 %", "80 %"]


def test_lines_that_cannot_be_told_apart_are_refused(sweep: Sweep, tmp_path: Path) -> None:
    collection = sweep(*({"train_size": size, "sparsity": share} for size in range(1, 8) for share in (0.3, 0.5)))
    with pytest.raises(AnalysisError, match="cannot be told apart.*--where train_size=1,7"):
        FIGURES["accuracy_vs_block_sparsity"](collection, tmp_path)


def test_criteria_are_colours_and_losses_panels(study: Collection, tmp_path: Path, drawn: list[Figure]) -> None:
    accuracy.criteria(study, tmp_path)
    (figure,) = drawn
    assert [axes.get_title() for axes in figure.axes] == ["loss none", "loss CE", "loss KL"]
    assert _legend(figure) == ["L2", "random", "dense", "chance"]
    assert figure.legends[0].get_title().get_text() == "Criterion"
