"""Whole runs through the command line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas
import pytest
from conftest import BRIEF, Regraft, numbers, records

from analysis.comparison import grade
from regraft.records import QUESTION_COLUMNS, QUESTIONS, SCORE_COLUMNS, SCORES, Record, questions_file

STRANGER = Path(__file__).parents[1] / "stranger"


def test_a_sweep_leaves_records_and_does_not_run_again(regraft: Regraft, tmp_path: Path) -> None:
    sweep = ["-m", "sparsity=0,0.5", "loss=none,ce,kl", "sweep=mine", *BRIEF]
    result = regraft(*sweep)
    assert result.returncode == 0, result.stderr
    found = records(tmp_path / "multirun" / "mine")
    assert len(found) == 6
    assert {record.status for record in found} == {"finished"}
    by = {(record.choices["loss"], record.config["sparsity"]): record for record in found}
    ce, kl = by["ce", 0.5], by["kl", 0.5]
    for name in ("model_in", "units", "batches"):
        assert [stage.fingerprints.get(name) for stage in ce.stages[:4]] == [
            stage.fingerprints.get(name) for stage in kl.stages[:4]
        ]
    assert ce.stages[4].fingerprints == kl.stages[4].fingerprints  # same pruned weights, same questions in order
    assert grade(ce, kl, "loss").name == "same-units"
    assert numbers(ce) != numbers(kl) != numbers(by["none", 0.5])
    for record in found:
        folder = tmp_path / "multirun" / "mine" / record.run_id
        predictions = pandas.read_parquet(folder / "predictions.parquet")
        last = predictions[predictions.stage_index == record.stages[-1].index]
        accuracy = (last.gold == last.predicted).mean()
        assert accuracy == pytest.approx(_value(record, "accuracy"))
        assert (folder / "training.parquet").exists() == (record.choices["loss"] != "none")
    assert _measured(by["kl", 0.5], 3) == _measured(by["none", 0.5], 5)
    assert {row.block_sparsity for row in by["none", 0.5].rows if row.stage_index == 5} == {0.5}
    assert _value(by["kl", 0.5], "parameters") < _value(by["kl", 0], "parameters")
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}
    again = regraft(*sweep)
    assert again.returncode == 0 and "6 runs, 0 to do" in again.stdout
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}


def test_a_run_keeps_what_its_units_scored_and_what_it_was_asked(regraft: Regraft, tmp_path: Path) -> None:
    result = regraft("-m", "sparsity=0,0.25", "loss=none", "sweep=mine", *BRIEF)
    assert result.returncode == 0, result.stderr
    sweep = tmp_path / "multirun" / "mine"
    by = {record.config["sparsity"]: record for record in records(sweep)}
    assert not (sweep / by[0].run_id / SCORES).exists(), "nothing was removed"

    scores = pandas.read_parquet(sweep / by[0.25].run_id / SCORES)
    assert set(scores.columns) == set(SCORE_COLUMNS) and set(scores["stage_index"]) == {2}
    (pruned,) = [stage for stage in by[0.25].stages if stage.stage == "prune"]
    (removed,), (dense,) = pruned.details["removed"].values(), pruned.details["dense"].values()
    assert scores.groupby("layer")["removed"].sum().tolist() == removed
    assert scores.groupby("layer")["units"].sum().tolist() == dense
    for _, bins in scores.groupby("layer"):
        # the lowest went: only the bin in which the line was drawn may hold both
        assert bins["low"][bins["removed"] > 0].max() <= bins["low"][bins["units"] > bins["removed"]].min()

    (path,) = (sweep / QUESTIONS).iterdir()
    assert {questions_file(sweep / record.run_id, record) for record in by.values()} == {path.resolve()}
    questions = pandas.read_parquet(path)
    assert set(questions.columns) == set(QUESTION_COLUMNS)
    answers = pandas.read_parquet(sweep / by[0.25].run_id / "predictions.parquet").query("stage_index == 5")
    asked = answers.merge(questions, on=["split", "id"], validate="one_to_one")
    assert len(asked) == len(answers) == len(questions) == 50
    assert {row.n for row in by[0.25].rows if (row.metric, row.split) == ("accuracy", "test")} == {50}
    assert (asked["choices"].map(len) == asked["scores"].map(len)).all() and (asked["question"] != "").all()


def test_a_run_alone_equals_the_same_run_in_a_sweep(regraft: Regraft, tmp_path: Path) -> None:
    regraft("-m", "sparsity=0.25,0.6", "loss=ce,kl", "seed=3", "sweep=together", *BRIEF)
    # with other hashes, by which sets are ordered
    cold = {"REGRAFT_CACHE": str(tmp_path / "cold"), "PYTHONHASHSEED": "1"}
    alone = regraft("sparsity=0.6", "loss=kl", "seed=3", "sweep=alone", *BRIEF, **cold)
    assert alone.returncode == 0, alone.stderr
    (one,) = records(tmp_path / "multirun" / "alone")
    (other,) = [record for record in records(tmp_path / "multirun" / "together") if record.run_id == one.run_id]
    assert numbers(one) == numbers(other)
    assert not any(stage.reused for stage in one.stages)


def test_a_failing_run_leaves_its_record_and_the_others_run(regraft: Regraft, tmp_path: Path) -> None:
    result = regraft("-m", "loss=none,ce", "recovery.learning_rate=1e30", "sweep=bad", *BRIEF)
    assert result.returncode == 1
    assert "1 of 2 runs failed" in result.stderr and "diverged" in result.stderr
    status = {record.choices["loss"]: record for record in records(tmp_path / "multirun" / "bad")}
    assert status["none"].status == "finished" and status["ce"].status == "failed"
    assert "Traceback" in (status["ce"].error or "")


def test_a_sparsity_that_empties_a_layer_says_so(regraft: Regraft, tmp_path: Path) -> None:
    result = regraft("sparsity=0.9999", "loss=none", "sweep=empty", *BRIEF)
    assert result.returncode == 1
    assert "sparsity=0.9999" in result.stderr


def test_a_saved_checkpoint_loads_without_regraft_and_evaluates_again(regraft: Regraft, tmp_path: Path) -> None:
    result = regraft("sparsity=0.5", "loss=kl", "save_model=true", "sweep=saved", *BRIEF)
    assert result.returncode == 0, result.stderr
    (record,) = records(tmp_path / "multirun" / "saved")
    checkpoint = tmp_path / "multirun" / "saved" / record.run_id / "checkpoint"
    code = (
        "import sys, torch\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"model = AutoModelForCausalLM.from_pretrained({str(checkpoint)!r})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(checkpoint)!r})\n"
        "assert not any(name.startswith('regraft') for name in sys.modules)\n"
        "print(model(**tokenizer('Question: What', return_tensors='pt')).logits.shape[-1], model.num_parameters())\n"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert loaded.returncode == 0, loaded.stderr
    assert int(loaded.stdout.split()[1]) == _value(record, "parameters")
    again = regraft(f"evaluate={checkpoint}", "evaluation.questions=50", "tracker=none")
    assert again.returncode == 0, again.stderr
    (evaluated,) = records(tmp_path / "multirun" / "evaluate")
    for metric in ("accuracy", "nll", "dense_kl", "parameters"):
        assert _value(evaluated, metric) == pytest.approx(_value(record, metric), rel=1e-5), metric


@pytest.mark.slow
def test_uneven_layers_are_exported_and_what_cannot_be_exported_loses_nothing(regraft: Regraft, tmp_path: Path) -> None:
    uneven = ["sparsity=0.5", "loss=ce", "pruner/allocation=per_layer", "+pruner.allocation.weights={0: 0}", *BRIEF]
    saved = regraft(*uneven, "recovery=small_model_lora", "save_model=true", "export=remote_code", "sweep=saved")
    assert saved.returncode == 0, saved.stderr
    (record,) = records(tmp_path / "multirun" / "saved")
    checkpoint = tmp_path / "multirun" / "saved" / record.run_id / "checkpoint"
    assert (checkpoint / "modeling_uneven.py").exists()

    # its own widths are not known before it is read: the measurements stay, and the reason is told
    again = [f"evaluate={checkpoint}", "tracker=none", "save_model=true"]
    refused = regraft(*again)
    assert refused.returncode == 1 and "export=plain" in refused.stderr and "export=padded" in refused.stderr
    (evaluated,) = records(tmp_path / "multirun" / "evaluate")
    assert evaluated.status == "finished" and "Traceback" in (evaluated.error or "")
    for metric in ("accuracy", "nll", "parameters"):
        assert _value(evaluated, metric) == pytest.approx(_value(record, metric), rel=1e-5), metric

    for choice, file in (("padded", "model.safetensors"), ("gguf", "model.gguf")):
        written = regraft(*again, f"export={choice}")
        assert written.returncode == 0, written.stderr
        (exported,) = records(tmp_path / "multirun" / "evaluate")
        assert exported.error is None and numbers(exported) == numbers(evaluated)
        folder = tmp_path / "multirun" / "evaluate" / exported.run_id / "checkpoint"
        assert (folder / file).exists() and not (folder / "modeling_uneven.py").exists()
    assert "nothing to do" in regraft(*again, "export=gguf").stdout


def test_a_new_metric_of_a_kept_model_trains_nothing(regraft: Regraft, tmp_path: Path) -> None:
    """Also in the middle of an iterative run, where the next pruning counts units as the dense model did."""
    iterative = ["sparsity=0.5", "loss=ce", "schedule=iterative", "schedule.steps=2", *BRIEF]
    cold = {"REGRAFT_CACHE": str(tmp_path / "cold")}
    first = regraft(*iterative, "save_model=true", "sweep=first", **cold)
    assert first.returncode == 0, first.stderr
    second = regraft(*iterative, "evaluation.normalisation=character", "sweep=second", **cold)
    assert second.returncode == 0, second.stderr
    (one,), (other,) = (records(tmp_path / "multirun" / name) for name in ("first", "second"))
    assert [stage.reused for stage in other.stages if stage.stage == "recover"] == [True, True]
    prunes = [stage for stage in one.stages if stage.stage == "prune"]
    # the second pruning is lost: it is done again from the kept model of the first recovery
    shutil.rmtree(tmp_path / "cold" / "stages" / prunes[1].key)
    again = regraft(*iterative, "evaluation.normalisation=character", "sweep=fourth", **cold)
    assert again.returncode == 0, again.stderr
    (fourth,) = records(tmp_path / "multirun" / "fourth")
    assert [s.fingerprints["units"] for s in fourth.stages if s.stage == "prune"] == [
        s.fingerprints["units"] for s in prunes
    ]


def test_permuting_the_answers_moves_ce_and_leaves_kl_to_the_bit(regraft: Regraft, tmp_path: Path) -> None:
    """In a file of questions; all losses, batches and teachers are permuted in `config/test_label_free.py`."""
    words = ["red", "pale green and very long", "honey", "a barn", "night guard"]
    rows = [
        {"id": f"q{n}", "question": f"What is thing {n}?", "choices": words[n % 5 :] + words[: n % 5], "answer": n % 3}
        for n in range(48)
    ]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, rows[:16])))
    found = {}
    for name, shift in (("as_is", 0), ("permuted", 1)):
        moved = [row | {"answer": (row["answer"] + shift * (1 + n % 2)) % 5} for n, row in enumerate(rows[16:])]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, moved)))
        task = ["task=local_jsonl", f"task.train={tmp_path}/{name}.jsonl", f"task.test={tmp_path}/test.jsonl"]
        brief = [override for override in BRIEF if not override.startswith("task.")]
        result = regraft("-m", "loss=ce,kl", *task, "task.preparation_size=0", f"sweep={name}", *brief)
        assert result.returncode == 0, result.stderr
        for record in records(tmp_path / "multirun" / name):
            folder = tmp_path / "multirun" / name / record.run_id
            asked = [number for number in numbers(record) if number[1] in ("", "test")]
            (read,) = [stage.details["needs"] for stage in record.stages if stage.stage == "recover"]
            assert ("labels" in read) == (record.choices["loss"] == "ce"), "the record says what its loss reads"
            found[name, record.choices["loss"]] = asked, pandas.read_parquet(folder / "training.parquet")
    assert found["as_is", "kl"][0] == found["permuted", "kl"][0]
    pandas.testing.assert_frame_equal(found["as_is", "kl"][1], found["permuted", "kl"][1], check_exact=True)
    assert found["as_is", "ce"][0] != found["permuted", "ce"][0]


def test_a_strangers_criterion_loss_and_task_run_without_an_edit(regraft: Regraft, tmp_path: Path) -> None:
    brief = [override for override in BRIEF if not override.startswith("task.")]
    result = regraft(
        "--config-dir", str(STRANGER), "pruner/criterion=first_go", "loss=confidence", "task=sums", "sweep=own", *brief
    )
    assert result.returncode == 0, result.stderr
    (record,) = records(tmp_path / "multirun" / "own")
    assert record.choices["loss"] == "confidence"
    assert _value(record, "accuracy") >= 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_no_space_in_the_cache_is_said_and_nothing_stays(regraft: Regraft, tmp_path: Path, small_disk: Path) -> None:
    result = regraft("loss=none", f"runtime.cache={small_disk}", "sweep=full", *BRIEF)
    assert result.returncode == 1
    assert "No space left on device" in result.stderr and str(small_disk) in result.stderr
    assert "Traceback" not in result.stderr
    assert not [path for path in small_disk.rglob("*") if path.is_file() and path.suffix != ".lock"]
    (record,) = records(tmp_path / "multirun" / "full")
    assert record.status == "failed"


def _measured(record: Record, index: int) -> set[tuple[str, str, float | None]]:
    """What one stage measured, but for what a clock did."""
    return {(row.split, row.metric, row.value) for row in record.rows if row.stage_index == index and row.deterministic}


def _value(record: object, metric: str) -> float:
    """A metric of the last stage, on the test split where it has one."""
    last = record.stages[-1].index  # type: ignore[attr-defined]
    (value,) = [
        row.value
        for row in record.rows  # type: ignore[attr-defined]
        if row.stage_index == last and row.metric == metric and row.split in ("", "test")
    ]
    return value
