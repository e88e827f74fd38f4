"""Runs that set single weights to zero: what is recorded, saved, and shared among processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Regraft
from test_masked import composed
from test_processes import LONG, RUN, check, torchrun

from regraft.cache import Cache
from regraft.models import export
from regraft.records import CHECKPOINT, Row
from regraft.run import run


def test_a_run_in_steps_counts_the_weights_that_are_left(tmp_path: Path, cache: Cache) -> None:
    small = ["hidden_size=32", "intermediate_size=48", "num_hidden_layers=2", "steps=2", "world.entities=24"]
    config = composed(
        *(f"model.{each}" for each in small),
        *("pruner=sparsegpt", "schedule=iterative", "schedule.steps=2", "sparsity=0.5", "calibration.questions=8"),
        *(
            "task.world.entities=24",
            "task.train_size=32",
            "recovery.steps=2",
            "tracker=none",
            "runtime.progress=false",
            "save_model=true",
        ),
        f"runtime.cache={cache.root}",
    )
    record = run(config, tmp_path, {}, {}, "masked")
    assert record.status == "finished", record.error
    model = export.load(tmp_path / CHECKPOINT)
    parameters = dict(model.model.named_parameters())
    assert {name.split(".")[2] for name in model.masks} == {"0", "1"}
    maskable = sum(mask.numel() for mask in model.masks.values())
    for name, mask in model.masks.items():
        assert int(mask.sum()) == mask.numel() // 2
        assert bool((parameters[name] != 0).eq(mask).all()), name
    stages = [stage.index for stage in record.stages if stage.stage == "evaluate"]
    measured = {index: [row for row in record.rows if row.stage_index == index] for index in stages}
    dense = value(measured[stages[0]], "parameters")
    for index, expected in zip(stages[1:], [0.25, 0.25, 0.5, 0.5], strict=True):
        rows = measured[index]
        assert {row.block_sparsity for row in rows} == {expected}
        assert value(rows, "parameters") == dense - expected * maskable
        assert {row.model_sparsity for row in rows} == {1 - (dense - expected * maskable) / dense}
        assert value(rows, "bytes") == value(measured[stages[0]], "bytes")


def value(rows: list[Row], metric: str) -> float:
    (found,) = [row.value for row in rows if row.metric == metric]
    assert found is not None
    return found


@pytest.mark.slow
@pytest.mark.parametrize("shard", ["false", "true"])
def test_two_processes_hold_the_masks_of_one(regraft: Regraft, tmp_path: Path, warm_cache: Path, shard: str) -> None:
    masked = [*RUN, "recovery.steps=9", *LONG, "pruner=wanda", "save_model=true"]
    process = torchrun(tmp_path, warm_cache, *masked, "sweep=together", f"runtime.shard={shard}")
    told = process.communicate(timeout=200)[0]
    assert process.returncode == 0, told
    alone = regraft(*masked, "sweep=alone")
    assert alone.returncode == 0, alone.stderr
    check(tmp_path, "together", "alone")
    (folder,) = (tmp_path / "multirun" / "together").glob(f"*/{CHECKPOINT}")
    model = export.load(folder)
    parameters = dict(model.model.named_parameters())
    assert model.masks and all(not parameters[name][~mask].any() for name, mask in model.masks.items())
