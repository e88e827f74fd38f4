"""Who may teach whom."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from architectures import tiny_model

from regraft.cache import Cache
from regraft.config.ranges import ConfigError
from regraft.distillation.losses.kl import KL
from regraft.distillation.teachers.cached import Cached, Spread
from regraft.distillation.teachers.dense import Dense
from regraft.distillation.teachers.other import Other
from regraft.interfaces import Batch, EncodedQuestion, Head, LanguageModel, Model, ModelOutputs, TeacherContext
from regraft.models.forward import forward
from regraft.tasks.packing import pack


class Words:
    """A tokenizer of so many words."""

    def __init__(self, size: int, first: str = "a") -> None:
        self.vocabulary = {f"{first}{number}": number for number in range(size)}

    def get_vocab(self) -> dict[str, int]:
        return self.vocabulary

    def __len__(self) -> int:
        return len(self.vocabulary)


@dataclass(frozen=True, kw_only=True)
class Given(Model):
    """A model that is at hand."""

    name: str
    model: Any

    def load(self, cache: Cache) -> LanguageModel:
        return self.model

    def identity(self) -> dict[str, Any]:
        return {"name": self.name}


def model(words: Words, **overrides: int) -> LanguageModel:
    return LanguageModel(model=tiny_model("llama", **overrides), tokenizer=words)  # type: ignore[arg-type]


def batch():
    question = EncodedQuestion(id="q", context=(1, 2, 3), choices=((4, 5), (6,)))
    return pack([question], "choices", "answer", 0, labelled=False)


QUESTIONS = [
    EncodedQuestion(
        id=f"q{n}", context=(1, 2, 3 + n % 4)[: 2 + n % 2], choices=((4, 5 + n), (6,), (7, 8, 9)[: 1 + n % 3])
    )
    for n in range(7)
]


def packed(*numbers: int) -> Batch:
    return pack([QUESTIONS[number] for number in numbers], "choices", "answer", 0, labelled=False)


def context(
    cache: Cache, dense: Callable[[], LanguageModel], student: LanguageModel | None = None, **changes: Any
) -> TeacherContext:
    given = {
        "dense": dense,
        "dense_key": "dense",
        "student": student or model(Words(97)),
        "cache": cache,
        "questions": lambda: iter([packed(0, 1, 2), packed(3, 4), packed(5, 6)]),
        "questions_key": "seven",
        "autocast": nullcontext,
        "report": lambda told: None,
    }
    return TeacherContext(**given | changes)  # type: ignore[arg-type]


def unavailable() -> LanguageModel:
    raise AssertionError("the teacher is asked again")


def test_the_dense_teacher_says_what_the_dense_model_says_without_a_graph(cache: Cache) -> None:
    dense = model(Words(97))
    answer = Dense().build(context(cache, lambda: dense))(batch())
    assert not answer.logits.requires_grad
    assert torch.equal(answer.logits, forward(dense.model, batch()).logits)


def test_another_model_of_the_same_vocabulary_may_teach(cache: Cache) -> None:
    other = model(Words(97), seed=1)
    answer = Other(model=Given(name="other", model=other)).build(context(cache, unavailable))
    assert torch.equal(answer(batch()).logits, forward(other.model, batch()).logits)


@pytest.mark.parametrize("teacher", [Other, lambda model: Cached(teacher=Other(model=model))], ids=["live", "cached"])
@pytest.mark.parametrize(
    "words", [lambda: model(Words(101), vocab_size=101), lambda: model(Words(97, first="b"))], ids=["size", "words"]
)
def test_vocabularies_that_differ_are_refused(cache: Cache, words, teacher) -> None:
    given = Given(name="big", model=words())
    with pytest.raises(ValueError, match=r"teacher=big: its vocabulary .* must be the student's .*teacher=dense"):
        (teacher(model=given) if teacher is Other else teacher(given)).build(context(cache, unavailable))


@pytest.mark.parametrize(
    ("architecture", "changes"), [("llama", {}), ("gemma3", {"final_logit_softcapping": 0.1}), ("gpt2", {})]
)
def test_cached_hidden_states_give_the_logits_of_the_live_teacher(cache: Cache, architecture: str, changes) -> None:
    """With batches made up in another way than when the teacher was asked, and no teacher left."""
    dense = LanguageModel(model=tiny_model(architecture, **changes), tokenizer=Words(97))  # type: ignore[arg-type]
    Cached().build(context(cache, lambda: dense, dense))
    answers = Cached().build(context(cache, unavailable, dense))
    for asked in (packed(6, 0), packed(3), packed(1, 2, 4, 5)):
        expected = forward(dense.model, asked).logits
        torch.testing.assert_close(answers(asked).logits, expected, rtol=1e-5, atol=1e-5)
        assert not answers(asked).logits.requires_grad


def test_other_weights_other_questions_and_another_way_of_keeping_are_asked_anew(cache: Cache) -> None:
    asked: list[str] = []

    def dense() -> LanguageModel:
        asked.append("")
        return model(Words(97))

    for keep in ("hidden_states", "top_k"):
        for changes in ({}, {}, {"dense_key": "other"}, {"questions_key": "eight"}):
            Cached(keep=keep).build(context(cache, dense, **changes))
    Cached(keep="top_k", k=3).build(context(cache, dense))
    assert len(asked) == 3 + 3 + 1


def test_top_k_keeps_what_it_says_and_reports_what_it_loses(cache: Cache) -> None:
    dense, reported = model(Words(97)), {}
    # a head that is sharp enough for a top-k to hold most of the mass
    dense.model.get_output_embeddings().weight.data.mul_(20)
    answers = Cached(keep="top_k", k=5).build(context(cache, lambda: dense, report=reported.update))
    divergences, distances = [], []
    for asked in (packed(2, 0, 1), packed(4, 3), packed(6, 5)):
        true = torch.softmax(forward(dense.model, asked).logits.double(), dim=1)
        kept = torch.softmax(answers(asked).logits.double(), dim=1)
        top = true.topk(5, dim=1)
        torch.testing.assert_close(kept.gather(1, top.indices), top.values, rtol=1e-4, atol=1e-7)
        rest = (1 - top.values.sum(1)) / (97 - 5)
        others = kept.scatter(1, top.indices, -1.0)
        for row, value in zip(others, rest, strict=True):
            torch.testing.assert_close(row[row >= 0], value.expand(92), rtol=1e-3, atol=1e-9)
        divergences.append((true * (true.log() - kept.log())).sum(1))
        distances.append((true - kept).abs().sum(1) / 2)
    assert reported["top_k_kl"] == pytest.approx(float(torch.cat(divergences).mean().detach()), rel=1e-3)
    assert reported["top_k_total_variation"] == pytest.approx(float(torch.cat(distances).mean().detach()), rel=1e-3)
    whole = Cached(keep="top_k", k=1000).build(context(cache, lambda: dense))
    true = torch.log_softmax(forward(dense.model, batch := packed(0, 1)).logits, dim=1)
    torch.testing.assert_close(torch.log_softmax(whole(batch).logits, dim=1), true, rtol=1e-4, atol=1e-4)


def test_no_more_than_a_chunk_of_top_k_logits_is_made_asking_or_answering(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regraft.models.likelihood.CHUNK", 2 * 97)
    dense, asked, answered = model(Words(97)), [], []
    product, logits_at = Head.product, Spread.logits_at

    def watched_product(self: Head, states: torch.Tensor) -> torch.Tensor:
        asked.append(len(states))
        return product(self, states)

    def watched_rows(self: Spread, rows: Any) -> torch.Tensor:
        answered.append(len(made := logits_at(self, rows)))
        return made

    monkeypatch.setattr(Head, "product", watched_product)
    monkeypatch.setattr(Spread, "logits_at", watched_rows)
    said = Cached(keep="top_k", k=5).build(context(cache, lambda: dense))(batch := packed(0, 1, 2))
    assert max(asked) == 2 and sum(asked) == sum(len(packed(*each).read) for each in ((0, 1, 2), (3, 4), (5, 6)))
    assert isinstance(said, Spread) and len(said) == len(batch.read) and not answered
    assert torch.equal(said.logits_at(torch.tensor([2, 0])), said.logits[[2, 0]])
    assert torch.equal(said.within(90).logits, said.logits[:, :90])
    student = forward(model(Words(97), seed=3).model, batch)
    whole = KL()(batch, student, ModelOutputs(logits=said.logits)).total
    answered.clear()
    torch.testing.assert_close(KL()(batch, student, said.within(97)).total, whole)
    assert max(answered) == 2 and sum(answered) == len(batch.read)


def test_a_teacher_that_cannot_read_what_it_will_be_asked_is_refused_before(cache: Cache) -> None:
    short = model(Words(97), max_position_embeddings=20)
    Dense().build(context(cache, lambda: short, longest=20))
    for teacher in (Dense(), Cached()):
        with pytest.raises(ConfigError, match="teacher=dense: it would read texts of 21 tokens, and takes 20"):
            teacher.build(context(cache, lambda: short, longest=21))


def test_the_size_of_the_teacher_is_reported_whether_it_is_asked_or_remembered(cache: Cache) -> None:
    dense = model(Words(97))
    for teacher in (Dense(), Cached(), Cached(), Cached(keep="top_k"), Cached(keep="top_k")):
        reported: dict[str, Any] = {}
        teacher.build(context(cache, lambda: dense, report=reported.update))
        assert reported["parameters"] == sum(weight.numel() for weight in dense.model.parameters())
