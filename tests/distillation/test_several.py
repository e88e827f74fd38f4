"""The mean of several teachers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from test_teachers import QUESTIONS, Given, Words, context, model, packed, unavailable

from regraft.cache import Cache
from regraft.config.ranges import ConfigError
from regraft.distillation.losses.kl import KL
from regraft.distillation.teachers.cached import Cached
from regraft.distillation.teachers.ema import Ema
from regraft.distillation.teachers.other import Other
from regraft.distillation.teachers.previous import Previous
from regraft.distillation.teachers.several import Mean, Several
from regraft.interfaces import Batch, EncodedQuestion, LanguageModel, Model, ModelOutputs
from regraft.models.forward import forward
from regraft.tasks.packing import pack

SEEDS = {"a": 1, "b": 2, "c": 3}


def other(seed: int) -> Other:
    made = model(Words(97), seed=seed)
    made.model.get_output_embeddings().weight.data.mul_(6)  # sure enough for confidences to differ
    return Other(model=Given(name=f"model{seed}", model=made))


@dataclass(frozen=True, kw_only=True)
class Gone(Model):
    """A model that nobody may load."""

    name: str

    def load(self, cache: Cache) -> LanguageModel:
        return unavailable()

    def identity(self) -> dict[str, Any]:
        return {"name": self.name}


TEACHERS = {name: other(seed) for name, seed in SEEDS.items()}


def logits(name: str, batch: Batch) -> list[list[float]]:
    return forward(TEACHERS[name].model.load(None).model, batch).logits.double().tolist()  # type: ignore[arg-type]


def softmax(values: list[float]) -> list[float]:
    exponentials = [math.exp(value - max(values)) for value in values]
    return [each / sum(exponentials) for each in exponentials]


def expected(teacher: Several, batch: Batch) -> list[list[float]]:
    """The formulas, number by number."""
    said = {name: logits(name, batch) for name in teacher.teachers}
    rows = []
    for read in range(len(batch.read)):
        p = {name: softmax(said[name][read]) for name in said}
        weights = {name: teacher.weights.get(name, 1.0) for name in said}
        if teacher.weighting == "confidence":
            entropy = {name: -sum(value * math.log(value) for value in p[name]) for name in said}
            weights = {name: weights[name] * math.exp(-teacher.sharpness * entropy[name]) for name in said}
        whole = sum(weights.values())
        weights = {name: weight / whole for name, weight in weights.items()}
        if teacher.mean == "arithmetic":
            row = [sum(weights[name] * p[name][token] for name in said) for token in range(97)]
        else:
            row = [math.prod(p[name][token] ** weights[name] for name in said) for token in range(97)]
        rows.append([value / sum(row) for value in row])
    return rows


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
@pytest.mark.parametrize(
    ("weighting", "weights", "sharpness"),
    [("fixed", {}, 1.0), ("fixed", {"a": 3.0, "c": 0.0}, 1.0), ("confidence", {}, 1.0), ("confidence", {"b": 5}, 2.5)],
)
def test_it_is_what_the_formula_says(cache: Cache, mean, weighting, weights, sharpness) -> None:
    teacher = Several(teachers=TEACHERS, mean=mean, weighting=weighting, weights=weights, sharpness=sharpness)
    batch = packed(0, 2, 5)
    said = teacher.build(context(cache, unavailable))(batch)
    assert isinstance(said, Mean) and len(said) == len(batch.read)
    # log-probabilities: a loss softens them as they are
    assert torch.allclose(said.logits.exp().sum(dim=1), torch.ones(len(said)), atol=1e-5)
    torch.testing.assert_close(
        said.logits.double().exp(), torch.tensor(expected(teacher, batch)).double(), rtol=1e-3, atol=1e-7
    )
    some = torch.tensor([3, 0, 3])
    torch.testing.assert_close(said.logits_at(some), said.logits[some])
    torch.testing.assert_close(said.logits_at(slice(1, 4)), said.logits[1:4])
    fewer = said.within(90).logits
    assert fewer.shape[1] == 90
    torch.testing.assert_close(fewer.exp().sum(dim=1), torch.ones(len(said)))


@pytest.mark.parametrize("weights", [{}, {"a": 3.0, "b": 0.2}])
@pytest.mark.parametrize("weighting", ["fixed", "confidence"])
def test_weights_sum_to_one_at_each_position(cache: Cache, weighting, weights) -> None:
    teacher = Several(teachers=TEACHERS, weighting=weighting, weights=weights)
    said = teacher.build(context(cache, unavailable))(packed(0, 1))
    log_p = torch.stack([torch.log_softmax(each.logits, dim=1) for each in said.said])
    given = said.weigh(log_p, slice(None))
    torch.testing.assert_close(given.sum(dim=0), torch.ones(log_p.shape[1]))
    sure = -torch.special.entr(log_p.exp()).sum(dim=2)
    alike = weighting == "confidence" and not weights
    assert not alike or torch.equal(given.argmax(dim=0), sure.argmax(dim=0)), "the surest weighs most"


def test_one_teacher_alone_is_itself(cache: Cache) -> None:
    batch = packed(1, 4)
    alone = torch.log_softmax(torch.tensor(logits("a", batch)), dim=1).float()
    for weights in ({"b": 0.0, "c": 0.0}, {}):
        for mean in ("arithmetic", "geometric"):
            teachers = TEACHERS if weights else {"a": TEACHERS["a"]}
            said = Several(teachers=teachers, mean=mean, weights=weights).build(context(cache, unavailable))(batch)  # type: ignore[arg-type]
            torch.testing.assert_close(said.logits, alone, rtol=1e-4, atol=1e-4)


def of_tasks(*names: str) -> Batch:
    asked = [
        EncodedQuestion(id=f"{name}:{n}", context=QUESTIONS[n].context, choices=QUESTIONS[n].choices)
        for n, name in enumerate(names)
    ]
    return pack(asked, "choices", "answer", 0, labelled=False)


def test_each_task_has_its_own_teacher(cache: Cache) -> None:
    answers = Several(teachers=TEACHERS, weighting="by_task").build(context(cache, unavailable))
    batch = of_tasks("c", "a", "c", "a")
    said = answers(batch)
    for row, question in enumerate(batch.read_question.tolist()):
        one = torch.tensor(logits("ca"[question % 2], batch)[row])
        torch.testing.assert_close(
            said.logits[row].double(), torch.log_softmax(one.double(), dim=0), rtol=1e-4, atol=1e-4
        )
    with pytest.raises(ConfigError, match=r"question d:0 is of no task that a teacher is named after \(a, b, c\)"):
        answers(of_tasks("d"))


def test_no_more_than_a_chunk_of_logits_is_made(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regraft.models.likelihood.CHUNK", 2 * 97)
    batch = packed(0, 1, 2, 3)
    said = Several(teachers=TEACHERS, weighting="confidence").build(context(cache, unavailable))(batch)
    whole = ModelOutputs(logits=said.logits)
    student = forward(model(Words(97)).model, batch)
    sizes: list[int] = []
    real = Mean.logits_at

    def watched(self: Mean, rows: slice) -> torch.Tensor:
        made = real(self, rows)
        sizes.append(len(made))
        return made

    monkeypatch.setattr(Mean, "logits_at", watched)
    value = KL(temperature=2.0)(batch, student, said)
    assert max(sizes) == 2 and sum(sizes) == len(batch.read)
    torch.testing.assert_close(value.total, KL(temperature=2.0)(batch, student, whole).total)


def test_each_of_them_may_be_kept_in_the_cache(cache: Cache) -> None:
    """Of every one its hidden states, so that none is in memory; the mean is that of the live ones."""
    live = Several(teachers=TEACHERS)
    kept = Several(teachers={name: Cached(teacher=teacher) for name, teacher in TEACHERS.items()})
    reported: dict = {}
    batch = packed(6, 0)
    said = kept.build(context(cache, unavailable, report=reported.update))(batch)
    torch.testing.assert_close(said.logits, live.build(context(cache, unavailable))(batch).logits, rtol=1e-4, atol=1e-4)
    size = sum(weight.numel() for weight in TEACHERS["a"].model.load(cache).model.parameters())
    assert reported["parameters"] == 3 * size and reported["teachers"]["b"]["kept"] == "hidden_states"
    # part of the training's cost, so the stage looks for it beside the teachers
    for key in ("asked_tokens", "asked_flops"):
        assert reported[key] == sum(own[key] for own in reported["teachers"].values()) > reported["teachers"]["a"][key]
    fewer: dict = {}
    silent = Several(teachers={**TEACHERS, "d": Other(model=Gone(name="gone"))}, weights={"d": 0.0})
    said = silent.build(context(cache, unavailable, report=fewer.update))(batch)
    torch.testing.assert_close(said.logits, live.build(context(cache, unavailable))(batch).logits)
    assert list(fewer["teachers"]) == ["a", "b", "c"] and "asked_tokens" not in fewer, "who weighs nothing is not asked"
    assert {type(member).__name__ for member in kept.members()} == {"Several", "Cached", "Other"}
    with pytest.raises(ConfigError, match="teacher=Several: must be one model .* choose teacher=several with cached"):
        Cached(teacher=live)
    with pytest.raises(ConfigError, match="teacher=Ema: must be one model whose weights are known before the training"):
        Cached(teacher=Ema())


def test_the_previous_model_teaches_live_and_from_the_cache(cache: Cache) -> None:
    batch, loaded = packed(3), []

    def previous():
        loaded.append("")
        return model(Words(97), seed=8)

    told = {"previous": previous, "previous_key": "step 2"}
    true = forward(model(Words(97), seed=8).model, batch).logits
    assert torch.equal(Previous().build(context(cache, unavailable, **told))(batch).logits, true)
    for _ in range(2):
        answers = Cached(teacher=Previous()).build(context(cache, unavailable, **told))
        torch.testing.assert_close(answers(batch).logits, true, rtol=1e-5, atol=1e-5)
    assert len(loaded) == 2
    Cached(teacher=Previous()).build(context(cache, unavailable, **told | {"previous_key": "step 3"}))
    assert len(loaded) == 3, "another step's model is asked anew"
    with pytest.raises(ValueError, match="teacher=previous: its vocabulary"):
        strange = {"previous": lambda: model(Words(101), vocab_size=101), "previous_key": "x"}
        Previous().build(context(cache, unavailable, **strange))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"teachers": {}}, "must be at least one teacher"),
        ({"weights": {"z": 1.0}}, r"weights=z: must be a name of a teacher \(a, b, c\)"),
        ({"weights": {"a": -1.0}}, r"weights\.a=-1\.0: must be a finite number of at least 0"),
        ({"weights": dict.fromkeys("abc", 0.0)}, "above 0 for one teacher"),
        ({"weighting": "by_task", "weights": {"a": 2.0}}, "empty with weighting=by_task"),
        ({"sharpness": 0.0}, r"sharpness=0\.0"),
    ],
)
def test_what_is_no_mean_is_refused(fields: dict, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Several(**{"teachers": TEACHERS} | fields)
