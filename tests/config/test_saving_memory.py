"""Refusals that no YAML file of the repository asks for yet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
from combinations import base, composed

from regraft.config.ranges import Incompatible
from regraft.config.schema import load
from regraft.distillation.losses.kl import KL
from regraft.interfaces import BatchContext, Batches, BatchSource, LossNeed
from regraft.stages.plan import run_id


@dataclass(frozen=True, kw_only=True)
class Looks(KL):
    @property
    def needs(self) -> frozenset[LossNeed]:
        return frozenset({"teacher_logits", "attentions"})


@dataclass(frozen=True, kw_only=True)
class Written(Batches):
    known: ClassVar[bool] = False

    def source(self, context: BatchContext) -> BatchSource:
        raise NotImplementedError


def test_what_is_computed_again_cannot_be_looked_at() -> None:
    config = base()
    saving = replace(config.recovery, gradient_checkpointing=True)
    replace(config, recovery=saving, loss=KL())
    with pytest.raises(Incompatible, match="gradient_checkpointing=true: must be false with loss=Looks"):
        replace(config, recovery=saving, loss=Looks())


def test_a_budget_needs_texts_that_are_known() -> None:
    config = base()
    bounded = replace(config.recovery, steps=None, tokens=1000)
    replace(config, recovery=bounded)
    with pytest.raises(
        Incompatible, match=r"recovery\.tokens=1000: must be null with batches=Written.*recovery\.steps"
    ):
        replace(config, recovery=bounded, batches=Written())


def test_what_decides_a_training_decides_its_name_and_defaults_do_not() -> None:
    plain = run_id(load(composed()))
    neutral = (
        *("recovery.tokens=null", "recovery.flops=null", "recovery.frozen=[]", "recovery.optimizer=adamw"),
        *("recovery.gradient_checkpointing=false", "teacher.precision=as_stored"),
    )
    assert run_id(load(composed(*neutral))) == plain
    others = [
        *(["recovery.steps=null", "recovery.tokens=1000"], ["recovery.steps=null", "recovery.tokens=2000"]),
        *(["recovery.steps=null", "recovery.flops=1e9"], ["recovery.frozen=[embeddings]"]),
        *(["recovery.optimizer=adamw_8bit"], ["teacher.precision=bfloat16"]),
    ]
    assert len({plain, *(run_id(load(composed(*other))) for other in others)}) == 1 + len(others)
