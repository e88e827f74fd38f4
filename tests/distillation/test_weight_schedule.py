"""Weights of losses that move while the recovery trains."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from architectures import tiny_model
from combinations import composed

from regraft.config.components import Allowed, build
from regraft.config.ranges import ConfigError
from regraft.config.schema import load
from regraft.distillation.losses.cross_entropy import CrossEntropy
from regraft.distillation.losses.kl import KL
from regraft.distillation.losses.weighted_sum import WeightedSum
from regraft.distillation.teachers.answers import Live
from regraft.distillation.weight_schedule import WeightSchedule
from regraft.interfaces import Batch, BatchSource, EncodedQuestion, LanguageModel
from regraft.models.forward import forward
from regraft.recovery.loop import Trainer
from regraft.recovery.training import Training
from regraft.tasks.packing import pack

QUESTIONS = [
    EncodedQuestion(id="a", context=(1, 2, 3), choices=((4, 5), (6,)), answer=1),
    EncodedQuestion(id="b", context=(2, 1), choices=((5,), (6, 4), (9,)), answer=0),
]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (WeightSchedule(start=1, end=0), (1.0, 0.75, 0.5, 0.0)),
        (WeightSchedule(start=1, end=0, shape="cosine"), (1.0, (1 + math.sqrt(0.5)) / 2, 0.5, 0.0)),
        (WeightSchedule(start=0.2, end=3, from_share=0.5, to_share=0.5), (0.2, 0.2, 3.0, 3.0)),
        (WeightSchedule(start=0, end=4, from_share=0.25, to_share=0.75), (0.0, 0.0, 2.0, 4.0)),
    ],
)
def test_the_weight_at_shares(schedule: WeightSchedule, expected: tuple[float, ...]) -> None:
    assert tuple(map(schedule.at, (0, 0.25, 0.5, 1))) == pytest.approx(expected)


def test_numbers_and_schedules_are_weights() -> None:
    loss = load(composed("loss=ce_to_kl", "loss.weights.kl=2", "loss.weights.ce.from_share=0.5")).loss
    assert isinstance(loss, WeightedSum)
    assert loss.weights == {"ce": WeightSchedule(start=1.0, end=0.0, from_share=0.5), "kl": 2.0}
    assert isinstance(loss.weights["kl"], float)


def test_the_last_step_is_one_before_the_end() -> None:
    """At step t of T the share (t - 1) / T is done: who wants the end itself says when it has come."""
    steps = [step / 10 for step in range(10)]
    assert WeightSchedule(start=1, end=0).at(steps[-1]) == pytest.approx(0.1)
    assert WeightSchedule(start=1, end=0, to_share=0.9).at(steps[-1]) == 0


@pytest.mark.parametrize(
    "weights", [{"ce": 0.0, "kl": WeightSchedule(start=0, end=0)}, {"ce": math.inf}, {"kl": math.nan}]
)
def test_weights_that_say_nothing_are_refused(weights: dict[str, float | WeightSchedule]) -> None:
    with pytest.raises(ConfigError, match=r"weights.*: must be (above 0 for one term|a finite number)"):
        WeightedSum(terms={"ce": CrossEntropy(reads="choices"), "kl": KL()}, weights=weights)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ({"start": 0, "end": -1}, r"loss\.weights\.kl\.end=-1\.0: must be a finite number of at least 0"),
        ({"start": 0, "end": 1, "from_share": 2}, r"loss\.weights\.kl\.from_share=2\.0: must be in \[0, 1\]"),
        (
            {"start": 0, "end": 1, "from_share": 0.5, "to_share": 0.25},
            r"loss\.weights\.kl\.to_share=0\.25: must be from from_share \(0\.5\) to 1",
        ),
        ("often", r"loss\.weights\.kl=often: .* valid number.* Or give a WeightSchedule"),
        (-1, r"loss\.weights\.kl=-1\.0: must be a finite number of at least 0"),
    ],
)
def test_what_is_no_weight_is_refused(weight: Any, message: str) -> None:
    schedule = "regraft.distillation.weight_schedule.WeightSchedule"
    plain = {
        "_target_": "regraft.distillation.losses.weighted_sum.WeightedSum",
        "terms": {"kl": {"_target_": "regraft.distillation.losses.kl.KL"}},
        "weights": {"kl": weight | {"_target_": schedule} if isinstance(weight, dict) else weight},
    }
    with pytest.raises(ConfigError, match=message):
        build(plain, "loss", Allowed())


class _OneBatch(BatchSource):
    def step(self, number: int, student: LanguageModel) -> Iterator[tuple[Batch, int]]:
        yield pack(QUESTIONS, "choices", "answer", 0, labelled=True), len(QUESTIONS)

    def fingerprint(self) -> str:
        return "one"


def test_a_training_follows_the_schedule() -> None:
    """The loss that each step reports, and the weights in the end, are those of the literal sum."""
    steps, rate = 4, 0.05
    loss = WeightedSum(
        terms={"ce": CrossEntropy(reads="choices"), "kl": KL()},
        weights={"ce": WeightSchedule(start=1, end=0), "kl": WeightSchedule(start=0, end=2, from_share=0.5)},
    )
    student, teacher = (
        LanguageModel(model=tiny_model("llama", layers=1, seed=seed), tokenizer=None)  # type: ignore[arg-type]
        for seed in (0, 1)
    )
    lines: list[dict[str, float]] = []
    training = Training(learning_rate=rate, warmup=0.0, decay="constant", max_grad_norm=None, precision="float32")
    Trainer(student, _OneBatch(), loss, training, steps, teacher=Live(teacher.model), observe=lines.append).run()

    model, batch = tiny_model("llama", layers=1, seed=0), pack(QUESTIONS, "choices", "answer", 0, labelled=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=training.betas, weight_decay=0.0)
    with torch.no_grad():
        taught = torch.log_softmax(forward(teacher.model, batch).logits, -1)
    for line, (ce, kl) in zip(lines, [(1.0, 0.0), (0.75, 0.0), (0.5, 0.0), (0.25, 1.0)], strict=True):
        said = torch.log_softmax(forward(model, batch).logits, -1)
        # the tokens of the right choices: (6,) at the end of the first question, (5,) at that of the second
        first, second = 0, 2
        right = -(said[first, 6] + said[second, 5]) / 2
        apart = (taught.exp() * (taught - said)).sum(-1).mean()
        value = ce * right + kl * apart
        assert line["loss"] == pytest.approx(value.item(), rel=1e-4)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    for one, other in zip(student.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
