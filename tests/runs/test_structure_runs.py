"""Runs that remove other things than neurons, and several at once."""

from __future__ import annotations

from pathlib import Path

import pandas
import pytest
from conftest import BRIEF, Regraft, records
from transformers import AutoModelForCausalLM

from regraft.records import SCORES, Record


def _value(record: Record, metric: str) -> float:
    (row,) = [row for row in record.rows if row.metric == metric and row.stage_index == record.stages[-1].index]
    return row.value


@pytest.mark.slow
def test_a_sweep_over_structures_saves_models_that_load(regraft: Regraft, tmp_path: Path) -> None:
    sweep = ["-m", "pruner/structure=kv_groups,layers", "loss=none", "save_model=true", "sweep=mine"]
    result = regraft(*sweep, "evaluation.latency=true", *BRIEF)
    assert result.returncode == 0, result.stderr
    found = records(tmp_path / "multirun" / "mine")
    assert sorted(record.choices["pruner/structure"] for record in found) == ["kv_groups", "layers"]
    for record in found:
        details = record.stages[2].details
        ((removed,), (dense,)) = details["removed"].values(), details["dense"].values()
        assert [2 * gone for gone in removed] == dense
        assert {row.block_sparsity for row in record.rows if row.stage_index == 5} == {0.5}
        assert _value(record, "milliseconds_per_new_token") > 0 and _value(record, "speedup_of_new_token") > 0
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "multirun" / "mine" / record.run_id / "checkpoint")
        assert loaded.num_parameters() == _value(record, "parameters")


def test_a_run_of_depth_and_width_under_one_budget(regraft: Regraft, tmp_path: Path) -> None:
    overrides = ["pruner=combined", "pruner/criterion@pruner.parts.neurons.criterion=random", "pipeline=evaluate_last"]
    result = regraft(*overrides, "sparsity=0.5", "loss=none", "save_model=true", "sweep=mine", *BRIEF)
    assert result.returncode == 0, result.stderr
    (record,) = records(tmp_path / "multirun" / "mine")
    folder = tmp_path / "multirun" / "mine" / record.run_id
    (prune,) = [stage for stage in record.stages if stage.stage == "prune"]
    removed, budget = prune.details["removed"], prune.details["budget"]
    assert {name: len(groups) for name, groups in removed.items()} == {"layers": 1, "kv_groups": 4, "mlp_neurons": 4}
    assert budget["of"] == "parameters" and budget["reached"] <= 0.5 * budget["dense"] == budget["allowed"]
    (row,) = [row for row in record.rows if row.metric == "parameters" and row.stage_index == record.stages[-1].index]
    assert row.value == budget["reached"]
    assert row.model_sparsity == pytest.approx(0.5, abs=0.01) and row.block_sparsity is None
    gone = [number for number, lost in enumerate(removed["mlp_neurons"]) if lost == 512]
    assert len(gone) == removed["layers"][0] >= 1
    scores = pandas.read_parquet(folder / SCORES)
    assert set(scores["structure"]) == set(removed)
    assert set(scores[scores["structure"] == "mlp_neurons"]["layer"]) == set(range(4)) - set(gone)
    loaded = AutoModelForCausalLM.from_pretrained(folder / "checkpoint")
    assert loaded.num_parameters() == row.value
