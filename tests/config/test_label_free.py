"""No label-free loss, regime or teacher sees an answer: with other right answers it leaves the same, to the bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from combinations import MICRO, choices, composed
from pyarrow.parquet import read_table

from regraft.cache import Cache
from regraft.config.schema import RunConfig, load
from regraft.interfaces import AnyQuestion, Component, LabelledQuestion, Splits, Task
from regraft.records import CHECKPOINT, PREDICTIONS, TRAINING
from regraft.run import run

GROUPS = ("loss", "batches", "teacher")
"""What decides how accuracy is grafted back: each YAML of these groups is run, also one that was added yesterday."""
NEEDED: Mapping[str, tuple[str, ...]] = {
    # KL alone would be at rest
    "teacher=ema": ("loss=pseudo_label",),
    "loss=minillm": ("batches=minillm",),
    "batches=minillm": ("loss=minillm",),
    "teacher=several": ("+teacher@teacher.teachers.a=dense", "+teacher@teacher.teachers.b=previous"),
    "teacher=other": (
        "model@teacher.model=tiny_olmo2",
        *(f"teacher.{override}" for override in MICRO if override.startswith("model.")),
    ),
    "pipeline=prompt_distillation": ("loss=none", "pruner/structure=layers", "pipeline.instructions.examples=2"),
}
"""What a choice cannot be composed or run without, in a run of two steps."""
CHOICES = [f"{group}={choice}" for group in GROUPS for choice in choices(group)] + ["pipeline=prompt_distillation"]


@dataclass(frozen=True, kw_only=True)
class Rotated(Task):
    """The questions of another task; in those that are learned from, other choices are right."""

    of: Task
    by: int
    """0 leaves them as they are."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.of, name)

    @property
    def labelled(self) -> bool:
        return self.of.labelled

    def load(self, cache: Cache) -> Splits:
        splits = self.of.load(cache)
        learned = {name: tuple(map(self._moved, getattr(splits, name))) for name in ("preparation", "recovery")}
        return dataclasses.replace(splits, **learned)

    def _moved(self, question: AnyQuestion) -> AnyQuestion:
        if not isinstance(question, LabelledQuestion):
            return question
        # not all by the same, or what counts right answers by their place would not notice
        step = self.by * (1 + sum(map(ord, question.id)) % 2)
        return dataclasses.replace(question, answer=(question.answer + step) % len(question.choices))

    def prompt(self, question: AnyQuestion) -> tuple[str, tuple[str, ...]]:
        return self.of.prompt(question)

    def identity(self, split: Literal["preparation", "recovery", "evaluation"]) -> dict[str, Any]:
        return self.of.identity(split)


def rotated(value: Any, by: int) -> Any:
    """The same with every task in it rotated: a regime may have one of its own."""
    if isinstance(value, Task):
        return Rotated(of=value, by=by)
    if isinstance(value, Mapping):
        return {key: rotated(item, by) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(rotated(item, by) for item in value)
    if isinstance(value, Component | RunConfig):
        own = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
        moved = {name: rotated(item, by) for name, item in own.items()}
        return dataclasses.replace(value, **{name: item for name, item in moved.items() if item != own[name]})
    return value


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One for the answers as they are, one for others: nothing that a run left is found by one with other answers."""
    return tmp_path_factory.mktemp("as_is"), tmp_path_factory.mktemp("permuted")


def leaves(config: RunConfig, folder: Path) -> dict[str, Any]:
    """What a run leaves, but for what is said of the recovery's questions: there accuracy is counted by the answers."""
    folder.mkdir()
    record = run(config, folder, {"seed": 0, "sparsity": config.sparsity}, {}, "label_free")
    assert record.status == "finished", record.error
    return {
        "stages": [(stage.stage, stage.fingerprints) for stage in record.stages],
        "prompts": [stage.details["candidates"] for stage in record.stages if stage.stage == "instruct"],
        "rows": [
            (row.stage_index, row.metric, row.value, row.ci_low)
            for row in record.rows
            if row.deterministic and row.split in ("", "test")
        ],
        "predictions": [line for line in read_table(folder / PREDICTIONS).to_pylist() if line["split"] == "test"],
        "training": read_table(folder / TRAINING).to_pylist() if config.loss.trains else [],
        "weights": (folder / CHECKPOINT / "model.safetensors").read_bytes(),
    }


@pytest.mark.parametrize("choice", CHOICES)
def test_permuting_the_answers_moves_what_needs_labels_and_nothing_else(
    choice: str, caches: tuple[Path, Path], tmp_path: Path
) -> None:
    config = load(composed(choice, *NEEDED.get(choice, ()), "save_model=true"))
    found = []
    for by, cache in enumerate(caches):
        own = dataclasses.replace(config, runtime=dataclasses.replace(config.runtime, cache=str(cache)))
        found.append(leaves(rotated(own, by), tmp_path / str(by)))
    as_is, permuted = found
    if "labels" in config.loss.needs:
        assert as_is["training"] != permuted["training"], "it declares labels and uses none"
        assert as_is["weights"] != permuted["weights"]
    else:
        for name, left in as_is.items():
            assert left == permuted[name], f"{name} differ: {choice} saw an answer"


def test_every_choice_is_found() -> None:
    assert {"loss=ce", "loss=kl", "batches=questions", "teacher=dense"} <= set(CHOICES)
    assert set(NEEDED) <= set(CHOICES)
