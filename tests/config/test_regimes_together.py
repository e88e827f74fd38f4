"""Regimes with losses, teachers, adapters and schedules: refused with the reason, or a whole run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest
from combinations import base

from regraft.cache import Cache
from regraft.config.ranges import Incompatible
from regraft.config.schema import RunConfig
from regraft.distillation.losses.compare import Compare
from regraft.distillation.losses.cross_entropy import CrossEntropy
from regraft.distillation.losses.kl import KL
from regraft.distillation.losses.language_modelling import LanguageModelling
from regraft.distillation.losses.minillm import MiniLLM
from regraft.distillation.losses.pseudo_label import PseudoLabel
from regraft.distillation.losses.weighted_sum import WeightedSum
from regraft.distillation.teachers.cached import Cached
from regraft.distillation.teachers.dense import Dense
from regraft.distillation.teachers.several import Several
from regraft.interfaces import BEGINNING, Batch, Batches, LossNeed, LossValue, ModelOutputs, Moment
from regraft.pruning.schedules.iterative import Iterative
from regraft.records import StageRecord
from regraft.recovery.lora import Lora
from regraft.recovery.sources.asked import Asked
from regraft.recovery.sources.data_free import DataFree
from regraft.recovery.sources.in_context import InContext
from regraft.recovery.sources.more_questions import MoreQuestions
from regraft.recovery.sources.on_policy import OnPolicy
from regraft.recovery.sources.teacher_written import TeacherWritten
from regraft.run import run
from regraft.stages.plan import run_id
from regraft.tasks.facts import Facts, World
from regraft.tasks.union import Union

MIXED = OnPolicy(share=1.0, temperature=1.0, teacher_mixed=0.2)
OTHERS = Facts(world=World(seed=1, entities=12, types=4, relations=4), test_relations=1)
MORE = MoreQuestions(extra=OTHERS, number=3)
BY_TASK = Several(teachers={"a": Dense()}, weighting="by_task")
BOTH = {"reads": "choices"}


class WhereItLooks(KL):
    """A loss that compares attention."""

    @property
    def needs(self) -> frozenset[LossNeed]:
        return frozenset({"teacher_logits", "attentions"})

    def __call__(
        self, batch: Batch, student: ModelOutputs, teacher: ModelOutputs | None, moment: Moment = BEGINNING
    ) -> LossValue:
        raise NotImplementedError


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    config = base()
    runtime = replace(config.runtime, cache=str(tmp_path_factory.mktemp("regimes")))
    return replace(config, recovery=replace(config.recovery, steps=2), runtime=runtime)


def small(**fields: int) -> Facts:
    return Facts(world=World(entities=12, types=4, relations=4), test_relations=1, **fields)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        *(
            ({"batches": batches, "loss": KL(reads="question")}, "loss.reads=question: must be choices with batches=")
            for batches in (TeacherWritten(), OnPolicy(), DataFree())
        ),
        *(
            ({"batches": batches, "loss": CrossEntropy()}, f"batches={type(batches).__name__} hold no right answers")
            for batches in (TeacherWritten(), OnPolicy(), DataFree(), MORE)
        ),
        ({"batches": TeacherWritten(), "loss": PseudoLabel()}, "loss=PseudoLabel compares the choices of a question"),
        ({"batches": DataFree(), "loss": Compare()}, "loss=Compare compares the choices of a question"),
        ({"batches": TeacherWritten(), "loss": LanguageModelling()}, "Choose loss.reads=choices"),
        (
            {"batches": OnPolicy(), "loss": WeightedSum(terms={"one": KL(), "two": PseudoLabel()})},
            "loss.terms.two=PseudoLabel compares",
        ),
        ({"loss": MiniLLM()}, "with alpha=0.2 it must be given texts that are all drawn at temperature 1"),
        ({"loss": MiniLLM(), "batches": replace(MIXED, share=0.5)}, "Choose batches=minillm"),
        ({"loss": MiniLLM(), "batches": replace(MIXED, temperature=0.9)}, "Choose batches=minillm"),
        ({"loss": MiniLLM(alpha=0.0), "batches": MIXED}, "with batches.teacher_mixed=0.0"),
        ({"loss": WeightedSum(terms={"one": MiniLLM()})}, "loss.terms.one=MiniLLM: with alpha=0.2"),
        ({"batches": OnPolicy(), "teacher": Cached()}, "teacher=Cached is asked before the training"),
        ({"batches": InContext(), "loss": CrossEntropy()}, "batches=InContext show the teacher examples, and loss="),
        ({"batches": InContext(), "loss": WhereItLooks()}, "loss=WhereItLooks compares where they look"),
        ({"batches": InContext(), "task": small(preparation_size=3)}, "take 4 examples from the preparation questions"),
        (
            {"batches": OnPolicy(data=InContext()), "task": small(preparation_size=3)},
            "batches=OnPolicy take 4 examples from the preparation questions, of which task facts keeps 3",
        ),
        ({"batches": InContext(), "task": small(disjoint=False)}, "task.disjoint=false: must be true with batches="),
        (
            {"batches": OnPolicy(data=InContext()), "task": Union(tasks={"a": small(), "b": small(disjoint=False)})},
            "task.disjoint=false: must be true with batches=OnPolicy",
        ),
        *(
            ({"batches": batches, "teacher": BY_TASK, "task": Union(tasks={"a": small()})}, "hold texts of none of")
            for batches in (MORE, OnPolicy(data=MORE))
        ),
    ],
)
def test_what_does_not_go_together_is_refused(whole: RunConfig, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(Incompatible) as refused:
        replace(whole, **changes)
    assert reason in str(refused.value) and "Choose " in str(refused.value)


def test_who_answers_by_task_may_be_asked_what_its_students_write(whole: RunConfig) -> None:
    replace(whole, batches=OnPolicy(), teacher=BY_TASK, task=Union(tasks={"a": small()}))


def test_a_divided_student_does_not_write(whole: RunConfig) -> None:
    divided = replace(whole.runtime, shard=True)
    with pytest.raises(Incompatible, match=r"runtime\.shard=true: must be false with batches=OnPolicy"):
        replace(whole, batches=OnPolicy(), runtime=divided)
    replace(whole, batches=TeacherWritten(), runtime=divided)


def recovered(config: RunConfig, folder: Path) -> list[StageRecord]:
    folder.mkdir()
    record = run(config, folder, {"seed": 0}, {}, "regimes")
    assert record.status == "finished", record.error
    return [stage for stage in record.stages if stage.stage == "recover"]


@pytest.mark.parametrize(
    ("changes", "written"),
    [
        ({"batches": InContext(shots=2), "loss": WeightedSum(terms={"ce": CrossEntropy(**BOTH), "kl": KL()})}, "shown"),  # type: ignore[arg-type]
        ({"batches": DataFree(number=6, tokens=5), "teacher": Cached()}, "texts"),
        ({"batches": MIXED, "loss": MiniLLM(), "lora": Lora()}, "student_steps"),
        (
            {
                "batches": TeacherWritten(tokens=3),
                "schedule": Iterative(steps=2),
                "loss": LanguageModelling(reads="choices", positions="answer"),
            },
            "texts",
        ),
        ({"batches": MORE, "teacher": Cached()}, "extra"),
        ({"batches": OnPolicy(share=1.0, data=InContext(shots=2))}, "shown"),
    ],
)
def test_a_run_says_what_was_written(whole: RunConfig, changes: dict[str, Any], written: str, tmp_path: Path) -> None:
    own = {key: value for key, value in changes.items() if key != "lora"}
    recovery = replace(whole.recovery, lora=changes.get("lora"))
    for stage in recovered(replace(whole, recovery=recovery, **own), tmp_path / "run"):
        assert written in stage.details["written"]
        # of an epoch: with data_free those that are written, and no question of the recovery
        questions = len(whole.task.load(Cache(whole.runtime.cache)).recovery)
        texts = {"DataFree": 6, "MoreQuestions": questions + 3}
        assert stage.details["texts"] == texts.get(type(changes["batches"]).__name__, questions)


def test_right_answers_that_a_teacher_is_shown_are_labels_in_the_record(whole: RunConfig, tmp_path: Path) -> None:
    needs = {}
    for answers in ("teacher", "gold"):
        (stage,) = recovered(replace(whole, batches=InContext(shots=2, answers=answers)), tmp_path / answers)  # type: ignore[arg-type]
        needs[answers] = stage.details["needs"]
    assert needs == {"teacher": ["teacher_logits"], "gold": ["labels", "teacher_logits"]}


def test_a_cached_teacher_is_shown_the_examples_too(whole: RunConfig, tmp_path: Path) -> None:
    """What is cached of long texts says what the live teacher says of them."""
    losses = []
    config = replace(whole, batches=InContext(shots=2), loss=KL(positions="all"))
    for name, teacher in (("live", whole.teacher), ("cached", Cached())):
        recovered(replace(config, teacher=teacher), tmp_path / name)
        losses.append(pandas.read_parquet(tmp_path / name / "training.parquet")["loss"].tolist())
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_a_regime_is_part_of_a_runs_identity_with_the_questions_that_it_adds(whole: RunConfig) -> None:
    regimes: list[Batches] = [
        Asked(),
        OnPolicy(),
        OnPolicy(share=0.4),
        OnPolicy(data=TeacherWritten()),
        MORE,
        replace(MORE, extra=replace(OTHERS, world=replace(OTHERS.world, seed=2))),
        OnPolicy(share=1.0, temperature=1.0),
    ]
    assert len({run_id(replace(whole, batches=batches)) for batches in regimes}) == len(regimes)
