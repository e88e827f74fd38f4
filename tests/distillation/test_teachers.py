"""Who may teach whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from architectures import tiny_model

from regraft.cache import Cache
from regraft.distillation.teachers.dense import Dense
from regraft.distillation.teachers.other import Other
from regraft.interfaces import EncodedQuestion, LanguageModel, Model
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


def test_the_dense_teacher_says_what_the_dense_model_says_without_a_graph(cache: Cache) -> None:
    dense = model(Words(97))
    answer = Dense().build(lambda: dense, model(Words(97)), cache)(batch())
    assert not answer.logits.requires_grad
    assert torch.equal(answer.logits, forward(dense.model, batch()).logits)


def test_another_model_of_the_same_vocabulary_may_teach(cache: Cache) -> None:
    other = model(Words(97), seed=1)
    answer = Other(model=Given(name="other", model=other)).build(lambda: other, model(Words(97)), cache)
    assert torch.equal(answer(batch()).logits, forward(other.model, batch()).logits)


@pytest.mark.parametrize(
    "teacher", [lambda: model(Words(101), vocab_size=101), lambda: model(Words(97, first="b"))], ids=["size", "words"]
)
def test_vocabularies_that_differ_are_refused(cache: Cache, teacher) -> None:
    with pytest.raises(ValueError, match=r"teacher=big: its vocabulary .* must be the student's .*teacher=dense"):
        Other(model=Given(name="big", model=teacher())).build(lambda: None, model(Words(97)), cache)  # type: ignore[arg-type,return-value]
