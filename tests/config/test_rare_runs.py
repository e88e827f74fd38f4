"""Runs of what is seldom put together: parts of a model that lost layers, rewound or pruned again; adapters."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from combinations import composed

from regraft.config.schema import load
from regraft.distillation.teachers.cached import Cached
from regraft.distillation.teachers.dense import Dense
from regraft.distillation.teachers.ema import Ema
from regraft.distillation.teachers.several import Several
from regraft.interfaces import Teacher
from regraft.records import Record
from regraft.run import run
from regraft.tasks.union import Union

NEURONS = "pruner/criterion@pruner.parts.neurons.criterion"
COMBINED = ("pruner=combined", "pruner.parts.depth.weight=1", "pruner.parts.depth.most=0.34")
"""Depth loses one layer of three, and leaves something for the widths."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rare")


def finished(cache: Path, folder: Path, *overrides: str, **parts: Any) -> Record:
    config = load(composed(*overrides))
    runtime = dataclasses.replace(config.runtime, cache=str(cache))
    config = dataclasses.replace(config, runtime=runtime, **parts)
    record = run(config, folder, {"seed": 0, "sparsity": config.sparsity}, {}, "rare")
    assert record.status == "finished", record.error
    return record


def pruned(record: Record) -> dict[str, list[int]]:
    """What the last prune stage had removed of each structure in the end."""
    last = [stage for stage in record.stages if stage.stage == "prune"][-1]
    return dict(last.details["removed"])


def test_what_lost_layers_and_widths_is_rewound(cache: Path, tmp_path: Path) -> None:
    ticket = ("pipeline=lottery_ticket", "schedule=rounds", "schedule.fraction=0.2", "sparsity=0.36")
    record = finished(cache, tmp_path, *COMBINED, *ticket)
    removed = pruned(record)
    assert removed["layers"] == [1] and sum(removed["mlp_neurons"]) > 32
    assert [stage.stage for stage in record.stages].count("rewind") == 2
    (parameters,) = [
        r.value for r in record.rows if (r.metric, r.stage_index) == ("parameters", record.stages[-1].index)
    ]
    (last,) = [stage for stage in record.stages if stage.stage == "prune"][-1:]
    assert parameters == last.details["budget"]["reached"], "what was rewound lacks what was pruned"


@pytest.mark.parametrize("criterion", ["movement", "synflow"])
def test_widths_are_scored_again_once_a_layer_is_gone(criterion: str, cache: Path, tmp_path: Path) -> None:
    little = "rounds=2" if criterion == "synflow" else "steps=2"
    own = (f"{NEURONS}={criterion}", f"pruner.parts.neurons.criterion.{little}")
    steps = (
        "schedule=iterative",
        "schedule.steps=2",
        "pruner/budget=units",
        "pruner.parts.depth.weight=1.0",
        "sparsity=0.3",
    )
    removed = pruned(finished(cache, tmp_path, *COMBINED, *own, *steps))
    assert removed["layers"] == [1] and sum(removed["mlp_neurons"]) > 32


@pytest.mark.parametrize("criterion", ["movement", "soft_movement"])
def test_what_trains_while_it_scores_trains_weights_and_no_adapters(
    criterion: str, cache: Path, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    own = (f"pruner/criterion={criterion}", "pruner.criterion.steps=2", "recovery=small_model_lora", "recovery.steps=2")
    assert pruned(finished(cache, tmp_path, *own))["mlp_neurons"] == [16] * 4


@pytest.mark.parametrize("weighting", ["by_task", "confidence"])
def test_several_teachers_of_a_union_of_tasks(weighting: Any, cache: Path, tmp_path: Path) -> None:
    task: Any = load(composed()).task
    other = dataclasses.replace(task, world=dataclasses.replace(task.world, exceptions=0.5))
    teachers: dict[str, Teacher] = {"one": Ema() if weighting == "confidence" else Dense(), "two": Cached()}
    record = finished(
        cache,
        tmp_path,
        "loss=kl",
        task=Union(tasks={"one": task, "two": other}),
        teacher=Several(teachers=teachers, weighting=weighting),
    )
    (stage,) = [stage for stage in record.stages if stage.stage == "recover"]
    told = stage.details["teacher"]
    assert told["teachers"]["two"]["kept"] == "hidden_states"
    assert told["parameters"] == sum(own["parameters"] for own in told["teachers"].values())
