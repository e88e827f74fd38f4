"""Going back to earlier weights: what masks and those who move them are told there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from architectures import tiny_model
from combinations import composed
from transformers import PreTrainedModel

from regraft.config.schema import load
from regraft.interfaces import LanguageModel, Seams, Structure
from regraft.pruning.schedules.sparse_evolution import SparseEvolution
from regraft.pruning.structures.weights import Weights
from regraft.run import run
from regraft.stages import rewind
from regraft.stages.context import Lineage


@dataclass(frozen=True, kw_only=True)
class Noted(SparseEvolution):
    """Moves nothing, and notes the steps that it is told."""

    trainings: ClassVar[list[tuple[int, list[int], list[int]]]] = []

    def seams(self, student: LanguageModel, structure: Structure, steps: int, seed: int) -> Seams:
        before: list[int] = []
        after: list[int] = []
        self.trainings.append((steps, before, after))

        def look(network: PreTrainedModel, step: int) -> None:
            before.append(step)

        def move(network: PreTrainedModel, step: int) -> None:
            after.append(step)

        return Seams(on_gradients=(look,), after_step=(move,))


def test_who_moves_masks_counts_the_steps_of_the_stage(tmp_path: Path) -> None:
    ticket = ("pipeline=lottery_ticket", "pipeline.rewind_to=0.4", "schedule=set", "pruner=weights", "loss=ce")
    config = load(composed(*ticket, "recovery.steps=5", f"runtime.cache={tmp_path / 'cache'}"))
    Noted.trainings.clear()
    record = run(replace(config, schedule=Noted()), tmp_path, {}, {}, "rewound")
    assert record.status == "finished", record.error
    # what is made again was kept at its end, and takes no step
    took = [training for training in Noted.trainings if training[2]]
    assert took == [(2, [1, 2], [1, 2]), *2 * [(3, [1, 2, 3], [1, 2, 3])]]


def test_where_nothing_is_missing_going_back_masks_nothing() -> None:
    def model() -> LanguageModel:
        return LanguageModel(model=tiny_model("llama"), tokenizer=None)  # type: ignore[arg-type]

    def back(later: LanguageModel) -> None:
        config = SimpleNamespace(pruner=SimpleNamespace(structures=(Weights(),)))
        context: Any = SimpleNamespace(anchors={"early": Lineage("early", model)}, config=config)
        stage: Any = SimpleNamespace(anchor="early")
        rewind.run(stage, later, context)

    whole = model()
    back(whole)
    assert not whole.masks
    sparse = model()
    keep = [torch.ones(units, dtype=torch.bool) for units in Weights().units(sparse.model)]
    keep[0][3] = False
    Weights().remove(sparse, keep)
    back(sparse)
    assert Weights().left(sparse) == [int(kept.sum()) for kept in keep]
