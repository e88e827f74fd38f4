from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas
import pytest
import sweeps

from analysis.collect import COLUMNS, AnalysisError, collect, write
from regraft.records import RECORD


def test_one_line_for_each_row(tmp_path: Path) -> None:
    study = sweeps.grid(tmp_path / "study", sparsities=(0.1 + 0.2, 0.5), seeds=(0, 1))
    collection = collect([study])
    table = collection.table()
    assert list(table.columns) == list(COLUMNS)
    assert len(table) == 24 * 4
    line = table[
        (table["loss"] == "kl")
        & (table["criterion"] == "random")
        & (table["sparsity"] == 0.3)
        & (table["seed"] == 1)
        & (table["metric"] == "accuracy")
        & (table["stage_index"] == 4)
    ]
    assert len(line) == 1
    assert line["block_sparsity"].item() == pytest.approx(0.3)
    assert line["model_sparsity"].item() == pytest.approx(0.18)
    assert (line["structure"].item(), line["schedule"].item()) == ("mlp_neurons", "one_shot")
    made = next(run for run in collection.runs if run.record.run_id == line["run_id"].item()).record
    assert line["units"].item() == made.stages[2].fingerprints["units"]
    assert line["batches"].item() == made.stages[3].fingerprints["batches"]
    assert line["model_in"].item() == made.stages[2].fingerprints["model_in"]


def test_files_hold_the_table(tmp_path: Path) -> None:
    study = sweeps.grid(tmp_path / "study", sparsities=(0.5,), seeds=(0,))
    collection = collect([study])
    parquet, csv = write(collection)
    assert (parquet, csv) == (study / "results.parquet", study / "results.csv")
    pandas.testing.assert_frame_equal(pandas.read_parquet(parquet), collection.table())
    assert list(pandas.read_csv(csv).columns) == list(COLUMNS)
    assert len(pandas.read_csv(csv)) == len(collection.table())
    # what analysis writes into the sweep is no run
    assert len(collect([study]).runs) == len(collection.runs)


def test_every_folder_that_is_left_out_is_named(tmp_path: Path) -> None:
    study = sweeps.grid(tmp_path / "study", sparsities=(0.5,), seeds=(0,))
    made = sweeps.record(seed=7)
    failed = sweeps.save(
        replace(made, status="failed", error="NaN loss at step 3\n\nTraceback", rows=[]), study, with_predictions=False
    )
    (study / "stopped" / ".hydra").mkdir(parents=True)
    torn = study / "torn"
    torn.mkdir()
    (torn / RECORD).write_text('{"schema_version": 1, "run')
    old = sweeps.save(sweeps.record(seed=8), study)
    plain = json.loads((old / RECORD).read_text()) | {"schema_version": 0}
    (old / RECORD).write_text(json.dumps(plain))
    foreign = study / "foreign"
    foreign.mkdir()
    (foreign / RECORD).write_text('{"schema_version": 1, "stages": [], "rows": []}')
    other = tmp_path / "again"
    repeated = sweeps.save(sweeps.record(loss="kl", sparsity=0.5, seed=0), other)

    collection = collect([study, other])
    assert len(collection.runs) == 6
    told = "\n".join(collection.account())
    assert f"1 failed:\n  {failed}: NaN loss at step 3" in told
    assert f"1 unfinished:\n  {study / 'stopped'}" in told
    assert "3 unreadable:" in told and f"{torn}: not a whole record" in told and f"{foreign}: " in told
    assert f"{old}: schema_version=0" in told
    assert f"1 repeated, counted once:\n  {repeated}: the run of {study}" in told


def test_a_run_in_two_sweeps_counts_once(tmp_path: Path) -> None:
    made = sweeps.record()
    first, second = sweeps.save(made, tmp_path / "a"), sweeps.save(made, tmp_path / "b")
    collection = collect([tmp_path / "a", tmp_path / "b"])
    assert [run.folder for run in collection.runs] == [first]
    assert f"  {second}: the run of {first}" in collection.account()


def test_variant_names_settings_that_no_column_tells_apart(tmp_path: Path) -> None:
    for temperature in (1.0, 2.0):
        for seed in (0, 1):
            sweeps.save(sweeps.record(loss_settings={"temperature": temperature}, seed=seed), tmp_path)
    sweeps.save(sweeps.record(loss="ce", tracker="None"), tmp_path)
    table = collect([tmp_path]).run_table
    assert sorted(set(table["variant"])) == ["", "loss.temperature=1.0", "loss.temperature=2.0"]
    assert set(table.loc[table["loss"] == "ce", "variant"]) == {""}


def test_a_neutral_setting_makes_no_variant(tmp_path: Path) -> None:
    sweeps.save(sweeps.record(seed=0, tracker="WandB"), tmp_path)
    sweeps.save(sweeps.record(seed=1, tracker="None"), tmp_path)
    assert set(collect([tmp_path]).run_table["variant"]) == {""}


def test_no_folder_empty_folder_and_folder_of_a_run(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match="is no folder"):
        collect([tmp_path / "nowhere"])
    with pytest.raises(AnalysisError, match="Nothing to analyse. Run the sweep first."):
        collect([tmp_path])
    folder = sweeps.save(sweeps.record(), tmp_path)
    with pytest.raises(AnalysisError, match="folder of one run"):
        collect([folder])
