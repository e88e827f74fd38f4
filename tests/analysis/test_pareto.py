"""The front of two metrics: against brute force, and as a command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pytest
import sweeps
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from analysis.__main__ import main
from analysis.collect import AnalysisError, collect
from analysis.figures import FIGURES
from analysis.figures.pareto import front, points, unbeaten
from analysis.metrics import metric
from regraft.records import Row

# loss, sparsity, parameters after pruning, accuracy on selection and on test questions
RUNS = [
    ("kl", 0.1, 900, 0.90, 0.88),
    ("kl", 0.5, 500, 0.80, 0.70),
    ("ce", 0.5, 500, 0.75, 0.85),  # beaten on selection, unbeaten on test
    ("ce", 0.7, 300, 0.60, 0.60),
    ("kl", 0.7, 300, 0.60, 0.55),  # as good as the one before
    ("none", 0.8, 310, 0.20, 0.20),
]
FRONT = {("kl", 0.1), ("kl", 0.5), ("ce", 0.7), ("kl", 0.7)}


@pytest.fixture
def search(tmp_path: Path) -> Path:
    """A search in which both kinds of questions were asked."""
    for loss, sparsity, parameters, selection, test in RUNS:
        made = sweeps.record(loss=loss, sparsity=sparsity, accuracy=test)
        asked = [row for row in made.rows if row.metric == "accuracy"]
        extra: list[Row] = [
            replace(row, split="selection", value=value) for row, value in zip(asked, (0.95, selection), strict=True)
        ]
        extra += [
            replace(row, split="", metric="parameters", value=float(value), n=None, ci_low=None, ci_high=None)
            for row, value in zip(asked, (1000, parameters), strict=True)
        ]
        sweeps.save(replace(made, rows=[*made.rows, *extra]), tmp_path / "search")
    return tmp_path / "search"


@given(arrays(float, st.tuples(st.integers(1, 30), st.integers(1, 3)), elements=st.integers(0, 5).map(float)))
def test_unbeaten_is_what_brute_force_finds(values: np.ndarray) -> None:
    groups = values[:, 0] % 2
    expected = [
        not any(all(other <= one) and any(other < one) for other in values[groups == group])
        for one, group in zip(values, groups, strict=True)
    ]
    assert unbeaten(values, groups).tolist() == expected


def test_a_metric_that_asks_nothing_has_no_rings_and_does_not_choose(search: Path, tmp_path: Path) -> None:
    collection = collect([search])
    table, chooses, _ = points(collection, metric("accuracy"), metric("parameters"))
    assert chooses == "selection" and "test" not in table
    drawn, _ = front(collection, tmp_path, metric("accuracy"), metric("parameters"))
    assert "Rings" not in drawn.caption
    assert metric("parameters", "higher").asked is False and metric("accuracy", "lower").share


def test_runs_are_chosen_by_selection_questions(search: Path) -> None:
    table, chooses, gaps = points(collect([search]), metric("parameters"), metric("accuracy"))
    assert chooses == "selection" and not gaps
    chosen = table[table["front"]]
    assert set(zip(chosen["loss"], chosen["sparsity"], strict=True)) == FRONT
    assert (
        chosen["test"].tolist() == pytest.approx([0.55, 0.60, 0.70, 0.88], abs=0.2) and 0.7 in chosen["test"].tolist()
    )
    assert set(table["dense_x"]) == {1000} and set(table["dense_y"]) == {0.95}
    table, chooses, _ = points(collect([search]), metric("parameters"), metric("accuracy"), "test")
    assert chooses == "test" and ("ce", 0.5) in set(
        zip(*(table[table["front"]][c] for c in ("loss", "sparsity")), strict=True)
    )


def test_the_command_tells_and_draws(search: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pareto", str(search)]) == 0
    told = capsys.readouterr().out
    header = ["parameters", "accuracy", "(selection)", "(test)", "run", "loss", "sparsity"]
    assert told.splitlines()[0].split() == header
    assert "900         90.0 %                88.0 %" in told
    assert "joins the 4 that no other run beats on selection questions" in told
    assert "6 finished runs" in told
    data = pandas.read_csv(search / "figures" / "pareto_accuracy_vs_parameters.csv")
    assert data["front"].sum() == 4 and len(data) == 6
    assert {"parameters", "accuracy_selection", "accuracy_test", "loss", "sparsity", "run_id"} <= set(data)
    before = {path: path.read_bytes() for path in (search / "figures").iterdir()}
    assert {path.suffix for path in before} == {".pdf", ".png", ".svg", ".csv", ".txt"}
    assert main(["pareto", str(search)]) == 0
    assert {path: path.read_bytes() for path in before} == before


def test_without_selection_questions_the_fault_is_said(tmp_path: Path) -> None:
    collection = collect([sweeps.grid(tmp_path / "study", sparsities=(0.5, 0.7), seeds=(0,))])
    x = metric("nll", "higher")
    drawn, _ = front(collection, tmp_path / "figures", x, metric("accuracy"))
    assert "chosen by the very questions shown" in drawn.caption


def test_what_is_missing_or_unknown_is_said(search: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweeps.save(sweeps.record(loss="ce_kl"), search)
    table, chooses, gaps = points(collect([search]), metric("parameters"), metric("accuracy"))
    assert chooses == "test" and len(table) == 6
    assert len(gaps) == 1 and "has no parameters" in gaps[0]
    with pytest.raises(AnalysisError, match="--x-better"):
        metric("beauty")
    assert main(["pareto", str(search), "--x", "beauty"]) == 2
    assert main(["pareto", str(search), "--x", "bytes"]) == 2
    assert "No run has both bytes and accuracy" in capsys.readouterr().err


def test_runs_of_one_size_have_no_front(tmp_path: Path) -> None:
    for loss in ("ce", "kl"):
        sweeps.save(sweeps.record(loss=loss, metrics={"parameters": 10}), tmp_path / "study")
    with pytest.raises(AnalysisError, match="all runs came to one size"):
        FIGURES["pareto_accuracy_vs_parameters"](collect([tmp_path / "study"]), tmp_path)


def test_the_front_is_a_staircase_through_the_best(search: Path, tmp_path: Path, drawn: list[Figure]) -> None:
    FIGURES["pareto_accuracy_vs_parameters"](collect([search]), tmp_path)
    axes = drawn[0].axes[0]
    (front,) = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    assert list(zip(front.get_xdata(), front.get_ydata(), strict=True)) == [(300, 60), (500, 80), (900, 90)]
    data = pandas.read_csv(tmp_path / "pareto_accuracy_vs_parameters.csv")
    best = data[data["front"]].drop_duplicates("parameters")
    assert list(front.get_xdata()) == list(best["parameters"])
    assert list(front.get_ydata()) == pytest.approx(list(100 * best["accuracy_selection"]))
    marks = [each for each in axes.collections if isinstance(each, PathCollection)]
    assert [1000, 95] in [list(each.get_offsets()[0]) for each in marks if len(each.get_offsets()) == 1]
