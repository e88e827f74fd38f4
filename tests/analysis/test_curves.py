from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sweeps
from scipy import stats

from analysis.collect import AnalysisError, collect
from analysis.curves import points, summarise
from analysis.statistics import wilson
from analysis.tables import accuracy
from regraft.records import RECORD


def test_mean_and_interval_over_seeds(tmp_path: Path) -> None:
    values = [0.50, 0.55, 0.63]
    for seed, value in enumerate(values):
        sweeps.save(sweeps.record(seed=seed, accuracy=value), tmp_path)
    table, gaps = points(collect([tmp_path]))
    (line,) = summarise(table, ["criterion", "loss"]).to_dict("records")
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert gaps == []
    assert line["mean"] == pytest.approx(np.mean(values))
    assert (line["low"], line["high"]) == pytest.approx((low, high))
    assert (line["over"], line["seeds"], line["distinct"], line["questions"]) == ("seeds", 3, 3, 200)
    half = 100 * (high - low) / 2
    assert f"56.0 ± {half:.1f}" in accuracy(collect([tmp_path]))


def test_seeds_that_change_nothing_give_an_interval_over_questions(tmp_path: Path) -> None:
    for seed in range(3):
        sweeps.save(sweeps.record(loss="none", seed=seed, accuracy=0.4), tmp_path)
    table, _ = points(collect([tmp_path]))
    (line,) = summarise(table, ["criterion", "loss"]).to_dict("records")
    assert (line["over"], line["seeds"], line["distinct"]) == ("questions", 3, 1)
    assert (line["low"], line["high"]) == pytest.approx(wilson(80, 200))
    text = accuracy(collect([tmp_path]))
    assert "40.0 ± 6.7*" in text
    assert "*: interval over the questions (Wilson)" in text and "over seeds (t" not in text


def test_one_sparsity_written_in_two_ways_is_one_point(tmp_path: Path) -> None:
    sweeps.save(sweeps.record(sparsity=0.1 + 0.2, seed=0), tmp_path)
    sweeps.save(sweeps.record(sparsity=0.3, seed=1, accuracy=0.6), tmp_path)
    table, _ = points(collect([tmp_path]))
    assert list(summarise(table, ["loss"])["seeds"]) == [2]


def test_runs_of_different_settings_are_never_averaged(tmp_path: Path) -> None:
    for temperature in (1.0, 2.0):
        sweeps.save(sweeps.record(loss_settings={"temperature": temperature}), tmp_path)
    for size in (100, None):
        sweeps.save(sweeps.record(loss="ce", train_size=size), tmp_path)
    text = accuracy(collect([tmp_path]))
    assert text.count("50.0 ±") == 4
    assert "loss.temperature=2.0" in text and "recovery questions" in text and "100" in text


def test_table_has_a_line_for_each_condition(tmp_path: Path) -> None:
    study = sweeps.grid(tmp_path, sparsities=(0.0, 0.5), seeds=(0, 1))
    text = accuracy(collect([study]))
    lines = [line.split()[:2] for line in text.splitlines()[4:11]]
    assert lines == [
        ["L2", "none"],
        ["L2", "CE"],
        ["L2", "KL"],
        ["random", "none"],
        ["random", "CE"],
        ["random", "KL"],
        ["dense", "97.0"],
    ]
    markdown = accuracy(collect([study]), markdown=True).splitlines()
    assert markdown[2] == "| criterion | loss | 0 % | 50 % |"
    assert {line.count("|") for line in markdown[2:11]} == {5}


def test_fewer_seeds_are_told(tmp_path: Path) -> None:
    for seed in range(3):
        sweeps.save(sweeps.record(seed=seed, accuracy=0.5 + seed / 100), tmp_path)
    sweeps.save(sweeps.record(loss="ce", seed=0, accuracy=0.3), tmp_path)
    assert "(seeds: 1)" in accuracy(collect([tmp_path]))


def test_a_run_without_accuracy_is_named(tmp_path: Path) -> None:
    sweeps.save(sweeps.record(), tmp_path)
    made = sweeps.record(seed=1)
    folder = sweeps.save(made, tmp_path)
    replace(made, rows=[replace(row, value=None) for row in made.rows]).save(folder)
    table, gaps = points(collect([tmp_path]))
    assert len(table) == 1
    assert gaps == [f"{folder}: has no accuracy on test questions, left out"]
    for path in tmp_path.glob(f"*/{RECORD}"):
        replace(made, rows=[], run_id=path.parent.name).save(path.parent)
    with pytest.raises(AnalysisError, match="No run has an accuracy"):
        points(collect([tmp_path]))


def test_one_setting_and_seed_with_two_ids_is_refused(tmp_path: Path) -> None:
    made = sweeps.record()
    sweeps.save(made, tmp_path)
    sweeps.save(replace(made, run_id="0123456789"), tmp_path)
    with pytest.raises(AnalysisError, match="equal in every setting and seed"):
        points(collect([tmp_path]))
