from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import sweeps
from scipy import stats

from analysis.collect import AnalysisError, collect
from analysis.curves import Points, points
from analysis.landmarks import Landmark, area, crossing, landmarks, told
from analysis.metrics import metric

SPARSITIES = (0.0, 0.5, 0.8)


def curves(folder: Path, accuracies: Sequence[Mapping[float, float]], loss: str = "kl") -> Path:
    """One run for each seed and sparsity."""
    for seed, curve in enumerate(accuracies):
        for sparsity, accuracy in curve.items():
            made = sweeps.record(loss=loss, sparsity=sparsity, seed=seed, accuracy=accuracy, questions=1000)
            sweeps.save(made, folder, with_predictions=False)
    return folder


def found(folder: Path, **more: Any) -> Points:
    return points(collect([folder]), x="target", facets=[], **more)


def only(folder: Path, kept: float = 0.95) -> Mapping[Any, Any]:
    """The landmarks of the one condition."""
    (row,) = landmarks(found(folder), kept)[0].to_dict("records")
    return row


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    return float(low), float(high)


def test_area_is_the_mean_height() -> None:
    assert area([0.0, 0.5, 1.0], [0.9, 0.9, 0.1]) == pytest.approx((0.45 + 0.25) / 1.0)
    assert area([0.2, 0.3, 0.7], [0.8, 0.8, 0.8]) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("curve", "threshold", "at"),
    [
        ([0.9, 0.7, 0.1], 0.8, 0.25),
        ([0.9, 0.7, 0.1], 0.4, 0.75),
        ([0.9, 0.8, 0.1], 0.8, 0.5),
        ([0.9, 0.7, 0.95], 0.8, 0.25),
        ([0.8, 0.9, 0.1], 0.8, 0.5625),
        ([0.7, 0.9, 0.1], 0.8, -math.inf),
        ([0.9, 0.9, 0.8], 0.8, math.inf),
    ],
    ids=[
        "first half",
        "second half",
        "reached exactly, then left",
        "rises again",
        "begins there",
        "below at once",
        "never below",
    ],
)
def test_crossing(curve: list[float], threshold: float, at: float) -> None:
    assert crossing([0.0, 0.5, 1.0], curve, threshold) == pytest.approx(at)


def test_means_over_seeds_with_t_intervals(tmp_path: Path) -> None:
    accuracies = [[0.97, 0.95, 0.4], [0.97, 0.93, 0.5], [0.96, 0.94, 0.3]]
    row = only(curves(tmp_path, [dict(zip(SPARSITIES, each, strict=True)) for each in accuracies]))
    areas = [float(np.trapezoid(each, SPARSITIES)) / 0.8 for each in accuracies]
    assert row["area"] == pytest.approx(np.mean(areas))
    assert (row["area_low"], row["area_high"]) == pytest.approx(t_interval(areas))
    threshold = 0.95 * 0.97
    kept = [0.5 + 0.3 * (each[1] - threshold) / (each[1] - each[2]) for each in accuracies]
    assert row["kept"] == pytest.approx(np.mean(kept))
    assert (row["kept_low"], row["kept_high"]) == pytest.approx(t_interval(kept))
    falls = [(each[1] - each[2]) / 0.3 for each in accuracies]
    assert row["cliff"] == pytest.approx(np.mean(falls))
    assert (row["cliff_low"], row["cliff_high"]) == pytest.approx(t_interval(falls))
    assert (row["cliff_from"], row["cliff_to"], row["cliff_seeds"]) == (0.5, 0.8, 3)
    assert (row["seeds"], row["left_out"], row["from"], row["to"]) == (3, 0, 0.0, 0.8)


def test_the_cliff_is_where_the_mean_curve_is_steepest(tmp_path: Path) -> None:
    early, late = (0.97, 0.4, 0.3), (0.97, 0.95, 0.35)
    row = only(curves(tmp_path, [dict(zip(SPARSITIES, each, strict=True)) for each in (early, late, late)]))
    assert (row["cliff_from"], row["cliff_to"]) == (0.5, 0.8)
    assert row["cliff_seeds"] == 2


@pytest.mark.parametrize(
    ("accuracies", "kept", "beyond", "before"),
    [
        ([(0.97, 0.95), (0.96, 0.94)], math.inf, 2, 0),
        ([(0.9, 0.5), (0.8, 0.4)], -math.inf, 0, 2),
        ([(0.97, 0.95), (0.96, 0.5), (0.9, 0.1)], math.nan, 1, 1),
    ],
    ids=["never", "at once", "some"],
)
def test_what_some_seeds_do_not_reach_has_no_interval(
    tmp_path: Path, accuracies: list[tuple[float, float]], kept: float, beyond: int, before: int
) -> None:
    row = only(curves(tmp_path, [dict(zip((0.0, 0.5), each, strict=True)) for each in accuracies]))
    assert row["kept"] == pytest.approx(kept, nan_ok=True)
    assert math.isnan(row["kept_low"]) and math.isnan(row["kept_high"])
    assert (row["kept_beyond"], row["kept_before"]) == (beyond, before)
    text = "\n".join(told(found(tmp_path)))
    told_kept = {math.inf: "> 50", -math.inf: "< 0"}.get(kept, "1 of 3 never fall below, 1 of 3 begin below")
    assert told_kept in text


def test_seeds_that_happen_to_agree_are_two(tmp_path: Path) -> None:
    curve, other = {0.0: 0.97, 0.5: 0.5}, {0.0: 0.97, 0.5: 0.6}
    row = only(curves(tmp_path, [curve, curve, other]))
    assert row["seeds"] == 3
    assert (row["area_low"], row["area_high"]) == pytest.approx(t_interval([0.735, 0.735, 0.785]))


def test_seeds_that_change_nothing_are_one_and_have_no_interval(tmp_path: Path) -> None:
    row = only(curves(tmp_path, [{0.0: 0.97, 0.5: 0.5}] * 3, loss="none"))
    assert row["seeds"] == 1
    assert math.isnan(row["area_low"]) and math.isnan(row["kept_low"]) and math.isnan(row["cliff_low"])
    assert Landmark.of([0.5, 0.5]).low != Landmark.of([0.5, 0.5]).high


def test_a_seed_that_lacks_a_sparsity_is_left_out_and_named(tmp_path: Path) -> None:
    whole, torn = {0.0: 0.97, 0.5: 0.9, 0.8: 0.3}, {0.0: 0.1, 0.8: 0.1}
    folder = curves(tmp_path, [whole, torn, {0.0: 0.97, 0.5: 0.8, 0.8: 0.2}])
    table, gaps = landmarks(found(folder))
    row = table.iloc[0]
    assert (row["seeds"], row["left_out"]) == (2, 1)
    assert row["area"] == pytest.approx((0.809375 + 0.740625) / 2)
    assert gaps == ["KL: 1 of 3 seeds lack a sparsity, left out: seed 1"]
    assert gaps[0] in told(found(folder))


def test_conditions_without_a_curve_are_named(tmp_path: Path) -> None:
    curves(tmp_path, [{0.0: 0.97, 0.5: 0.5}])
    curves(tmp_path, [{0.5: 0.5}], loss="ce")
    curves(tmp_path, [{0.0: 0.5}, {0.5: 0.5}], loss="pseudo_label")
    table, gaps = landmarks(found(tmp_path))
    assert list(table["loss"]) == ["kl"]
    assert gaps == [
        "CE: run at one sparsity, so it has no curve to sum up",
        "pseudo-label CE: 2 of 2 seeds lack a sparsity, left out: seed 0; seed 1",
    ]


def test_nothing_to_sum_up(tmp_path: Path) -> None:
    curves(tmp_path, [{0.5: 0.5}])
    with pytest.raises(AnalysisError, match=r"KL: run at one sparsity.*\nNo seed of any condition"):
        landmarks(found(tmp_path))


def test_known_losses_come_in_their_order(tmp_path: Path) -> None:
    for loss in ("kl", "ce", "none"):
        curves(tmp_path, [{0.0: 0.97, 0.5: 0.5}], loss=loss)
    assert list(landmarks(found(tmp_path))[0]["loss"]) == ["none", "ce", "kl"]


def test_the_range_is_told_of_each_line_where_it_differs(tmp_path: Path) -> None:
    curves(tmp_path, [{0.0: 0.97, 0.5: 0.5}])
    assert "over sparsities from 0 % to 50 %" in "\n".join(told(found(tmp_path)))
    curves(tmp_path, [{0.3: 0.97, 0.8: 0.5}], loss="ce")
    text = told(found(tmp_path))
    assert "range" in text[0] and "30 % to 80 %" in text[2] and "0 % to 50 %" in text[3]
    assert "not the same for all lines" in "\n".join(text)


def test_dense_models_that_were_not_measured(tmp_path: Path) -> None:
    for loss in ("ce", "kl"):
        for sparsity in (0.0, 0.5):
            made = sweeps.record(loss=loss, sparsity=sparsity, accuracy=0.5)
            rows = made.rows[1:] if loss == "ce" else made.rows
            sweeps.save(replace(made, rows=rows), tmp_path, with_predictions=False)
    table, _ = landmarks(found(tmp_path))
    assert pandas.isna(table["kept"]).tolist() == [True, False]
    text = told(found(tmp_path))
    assert "dense not measured" in text[2] and "dense not measured" not in text[3]


@pytest.mark.parametrize("kept", [0.0, -1.0, 95.0])
def test_what_is_kept_is_a_share(tmp_path: Path, kept: float) -> None:
    curves(tmp_path, [{0.0: 0.97, 0.5: 0.5}])
    with pytest.raises(AnalysisError, match=f"--kept {kept:g}: must be a share"):
        landmarks(found(tmp_path), kept)


def test_only_curves_that_fall_with_sparsity(tmp_path: Path) -> None:
    curves(tmp_path, [{0.0: 0.97, 0.5: 0.5}])
    with pytest.raises(AnalysisError, match="--x recovery.lr: "):
        landmarks(points(collect([tmp_path]), x="recovery.lr"))
    with pytest.raises(AnalysisError, match="--y nll: "):
        landmarks(points(collect([tmp_path]), metric("nll"), "target"))
    with pytest.raises(AnalysisError, match="--pool task: "):
        landmarks(found(tmp_path, pool=["task"]))
