from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import sweeps

from analysis import names
from analysis.collect import COLUMNS, AnalysisError, Run, collect, write
from regraft.records import PREDICTIONS, RECORD, Record


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
    parquet, csv = write(collection, study)
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


def test_one_cell_of_compare_is_told_beside_other_losses(tmp_path: Path) -> None:
    cell = {"target": "soft", "over": "choices", "at": "answer"}
    sweeps.save(sweeps.record(loss="compare", loss_settings=cell), tmp_path)
    sweeps.save(sweeps.record(loss="kl"), tmp_path)
    told = collect([tmp_path]).run_table.set_index("loss")["variant"]
    assert told["compare"] == "loss.at=answer loss.over=choices loss.target=soft" and told["kl"] == ""


def test_records_older_than_a_key_mean_its_default(tmp_path: Path) -> None:
    old, new = sweeps.record(seed=0), sweeps.record(seed=1)
    new.config["recovery"] |= {"tokens": None, "flops": None, "optimizer": "adamw", "frozen": []}
    new.config["teacher"] |= {"precision": "as_stored"}
    for made in (old, new):
        sweeps.save(made, tmp_path)
    found = collect([tmp_path])
    assert set(found.run_table["variant"]) == {""}
    assert set(found.conditions(["recovery.optimizer"])["recovery.optimizer"]) == {"adamw"}


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


def with_config(made: Record, group: str, **settings: Any) -> Record:
    """The record with further settings; each needs an id of its own."""
    config = made.config | {group: made.config[group] | settings}
    return replace(made, config=config, run_id=sweeps.digest(config))


def test_where_chooses_runs_by_columns_and_keys(tmp_path: Path) -> None:
    study = sweeps.grid(tmp_path / "study", sparsities=(0.1 + 0.2, 0.5), seeds=(0, 1), questions=20)
    collection = collect([study])
    chosen = collection.where({"loss": ["ce", "kl"], "sparsity": ["0.30"], "recovery.lr": ["1e-3"]})
    assert {(run.choice("loss"), run.sparsity) for run in chosen.runs} == {("ce", 0.3), ("kl", 0.3)}
    assert len(chosen.runs) == 8
    assert set(chosen.run_table["loss"]) == {"ce", "kl"}
    told = chosen.account()
    assert told[0].startswith("8 finished runs")
    assert told[1] == "16 more that --where loss=ce,kl sparsity=0.30 recovery.lr=1e-3 leaves out"
    assert len(collection.runs) == 24 and not collection.filtered
    assert collection.where({}) is collection


def test_where_after_where_counts_all_that_is_left_out(tmp_path: Path) -> None:
    study = sweeps.grid(tmp_path / "study", sparsities=(0.5,), seeds=(0, 1), questions=20)
    chosen = collect([study]).where({"loss": ["kl"]}).where({"criterion": ["l2"]})
    assert len(chosen.runs) == 2
    assert "10 more that --where loss=kl criterion=l2 leaves out" in chosen.account()


def test_where_all_questions_and_what_a_run_does_not_have(tmp_path: Path) -> None:
    for size, settings in ((None, {}), (50, {"temperature": 2.0})):
        sweeps.save(sweeps.record(train_size=size, loss_settings=settings), tmp_path, with_predictions=False)
    collection = collect([tmp_path])
    for condition in ({"train_size": ["all"]}, {"loss.temperature": ["empty"]}):
        (run,) = collection.where(condition).runs
        assert run.train_size is None
    (run,) = collection.where({"train_size": ["50"], "loss.temperature": ["2"]}).runs
    assert run.train_size == 50


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (
            {"colour": ["red"]},
            r"--where colour=red: colour: no run has it\. Give a column \(run_id, .*dotted config key",
        ),
        ({"loss": ["kl", "mse"]}, r"--where loss=mse: no finished run has it; there are ce, kl, none\."),
        ({"sparsity": ["0.4"]}, r"--where sparsity=0\.4: no finished run has it; there are 0\.5, 0\.8\."),
        ({"teacher_parameters": ["7"]}, r"--where teacher_parameters=7.*; there are empty\."),
        ({"loss": ["none"], "task.extra": ["1"]}, r"--where loss=none task\.extra=1: no finished run has all of it\."),
    ],
)
def test_where_that_leaves_nothing(tmp_path: Path, conditions: dict[str, list[str]], message: str) -> None:
    study = sweeps.grid(tmp_path / "study", losses=("none", "ce"), sparsities=(0.5, 0.8), seeds=(0,), questions=20)
    sweeps.save(with_config(sweeps.record(), "task", extra=1), study, with_predictions=False)
    with pytest.raises(AnalysisError, match=message):
        collect([study]).where(conditions)


def test_conditions_are_values_that_can_be_grouped(tmp_path: Path) -> None:
    made = sweeps.record()
    sweeps.save(with_config(made, "pruner", layers=[1, 2], width=4), tmp_path, with_predictions=False)
    sweeps.save(with_config(made, "pruner", layers=[1, 3], width=8), tmp_path, with_predictions=False)
    sweeps.save(with_config(made, "recovery", steps=5), tmp_path, with_predictions=False)
    collection = collect([tmp_path])
    table = collection.conditions(["pruner.layers", "pruner.width", "recovery.steps"])
    lines = set(table[["pruner.layers", "pruner.width", "recovery.steps"]].itertuples(index=False, name=None))
    assert lines == {("[1, 2]", 4, None), ("[1, 3]", 8, None), (None, None, 5)}
    # what has a column of its own is no longer told by variant
    assert set(table["variant"]) == {""}
    assert any("pruner.width=4" in variant for variant in collection.conditions()["variant"])
    assert list(collection.conditions()["train_size"]) == ["all"] * 3


def test_right_goes_by_id_and_tells_questions_apart(tmp_path: Path) -> None:
    right = np.arange(20) % 3 == 0
    folder = sweeps.save(sweeps.record(questions=20), tmp_path, right)
    table = pandas.read_parquet(folder / PREDICTIONS)
    table.sample(frac=1, random_state=0).to_parquet(folder / PREDICTIONS)
    (run,) = collect([tmp_path]).runs
    assert run.right.tolist() == right.tolist()
    assert [name for name, _ in run.right.index] == [f"q{number:05}" for number in range(20)]
    other = sweeps.save(sweeps.record(questions=20, seed=1), tmp_path, right)
    table = pandas.read_parquet(other / PREDICTIONS)
    table.assign(gold=(table["gold"] + 1) % 5).to_parquet(other / PREDICTIONS)
    first, second = (next(run for run in collect([tmp_path]).runs if run.seed == seed) for seed in (0, 1))
    # the same ids with other right choices are other questions
    assert not first.right.index.equals(second.right.index)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(columns="gold"), "has no column gold"),
        (lambda table: table[table["stage_index"] == 1], "holds no answers to test questions of the last evaluation"),
        (lambda table: pandas.concat([table, table]), "holds two answers to one question"),
    ],
)
def test_predictions_that_do_not_fit(tmp_path: Path, change: Any, message: str) -> None:
    folder = sweeps.save(sweeps.record(questions=20), tmp_path)
    change(pandas.read_parquet(folder / PREDICTIONS)).to_parquet(folder / PREDICTIONS)
    (run,) = collect([tmp_path]).runs
    with pytest.raises(AnalysisError, match=f"{PREDICTIONS}: {message}.*Run the sweep again"):
        _ = run.right


def test_predictions_that_are_missing_or_torn(tmp_path: Path) -> None:
    folder = sweeps.save(sweeps.record(questions=20), tmp_path, with_predictions=False)
    with pytest.raises(AnalysisError, match="is missing, so no answer of this run is known. Run the sweep again"):
        collect([tmp_path]).runs[0].predictions()
    (folder / PREDICTIONS).write_bytes(b"PAR1 torn")
    with pytest.raises(AnalysisError, match="cannot be read .*Run the sweep again"):
        collect([tmp_path]).runs[0].predictions()


def test_columns_of_recovery(tmp_path: Path) -> None:
    made = with_config(sweeps.record(train_size=400), "task", subset=3)
    asked = replace(made.rows[0], split="recovery", n=321)
    # the last recovery that had a teacher counts
    sizes = {2: 11, 3: 22}
    stages = [
        replace(stage, details={"teacher": {"parameters": sizes[stage.index]}}) if stage.index in sizes else stage
        for stage in made.stages
    ]
    sweeps.save(replace(made, rows=[*made.rows, asked], stages=stages), tmp_path, with_predictions=False)
    sweeps.save(sweeps.record(loss="ce"), tmp_path, with_predictions=False)
    collection = collect([tmp_path])
    table = collection.table().drop_duplicates("run_id").set_index("loss")
    columns = ["train_size", "subset", "recovery_questions", "teacher_parameters"]
    assert table.loc["kl", columns].tolist() == [400, 3, 321, 22]
    assert table.loc["ce", columns].isna().all()
    assert (table[columns].dtypes == "Int64").all()
    # a subset is a replicate, like a seed: no setting in which runs are told apart
    assert set(table["variant"]) == {""}


def test_a_subset_that_is_no_number_is_unreadable(tmp_path: Path) -> None:
    sweeps.save(sweeps.record(), tmp_path, with_predictions=False)
    folder = sweeps.save(with_config(sweeps.record(seed=1), "task", subset="first"), tmp_path, with_predictions=False)
    told = "\n".join(collect([tmp_path]).account())
    assert f"1 unreadable:\n  {folder}: " in told


def test_a_combined_pruner_is_known_by_its_parts(tmp_path: Path) -> None:
    record = sweeps.record()
    del record.choices["pruner/criterion"], record.choices["pruner/structure"]
    for part, structure, criterion in (("depth", "layers", "l2"), ("width", "mlp_neurons", "l2")):
        record.choices[f"pruner/structure@pruner.parts.{part}.structure"] = structure
        record.choices[f"pruner/criterion@pruner.parts.{part}.criterion"] = criterion
    run = Run(record, tmp_path)
    assert (run.choice("criterion"), run.choice("structure")) == ("l2", "layers + mlp_neurons")
    assert names.value("structure", run.choice("structure")) == "layers + MLP neurons"
