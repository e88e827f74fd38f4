"""Language modelling against a literal float64 transcription: every packed token counts, and no other."""

from __future__ import annotations

import pytest
import torch
from layers import QUESTIONS, VOCAB

from regraft.config.ranges import ConfigError
from regraft.distillation.losses.language_modelling import LanguageModelling
from regraft.interfaces import EncodedQuestion, ModelOutputs
from regraft.tasks.packing import pack

WRITTEN = [
    EncodedQuestion(id=str(number), context=one.context, choices=(one.choices[0] + (3, 1),))
    for number, one in enumerate(QUESTIONS)
]
"""Texts that somebody wrote: one choice, and no answer."""


@pytest.mark.parametrize(
    ("reads", "positions", "questions", "first"),
    [
        ("question", "all", QUESTIONS, 1),
        ("choices", "answer", WRITTEN, None),
        ("choices", "all", WRITTEN, 1),
        ("drawn_choice", "answer", WRITTEN, None),
    ],
)
def test_value_and_gradient_equal_the_formula_in_float64(
    reads: str, positions: str, questions: list[EncodedQuestion], first: int | None
) -> None:
    packed = pack(questions, reads, positions, 0, labelled=False)  # type: ignore[arg-type]
    # a bigram model: what a position says depends on its token only
    table = torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = LanguageModelling(reads=reads, positions=positions)  # type: ignore[arg-type]
    value = loss(packed, ModelOutputs(logits=table[packed.input_ids.flatten()[packed.read]]), None)
    (value.total / value.count).backward()
    exact = table.detach().double().requires_grad_()
    each = []
    for question in questions:
        text = question.context if reads == "question" else question.context + question.choices[0]
        for at in range(len(question.context) if first is None else first, len(text)):
            row = exact[text[at - 1]]
            each.append(torch.logsumexp(row, 0) - row[text[at]])
    expected = torch.stack(each).mean()
    expected.backward()
    assert value.count == len(each)
    assert value.total.item() / value.count == pytest.approx(expected.item(), rel=1e-6)
    assert table.grad is not None and exact.grad is not None
    torch.testing.assert_close(table.grad.double(), exact.grad, rtol=1e-4, atol=1e-7)


def test_by_default_no_choice_is_read() -> None:
    loss = LanguageModelling()
    packed = pack(QUESTIONS, loss.reads, loss.positions, 0, labelled=False)
    assert loss.needs == frozenset()
    assert not len(packed.token_id)


def test_texts_in_which_nothing_counts_are_refused() -> None:
    with pytest.raises(ConfigError, match="positions=answer: must be all with reads=question"):
        LanguageModelling(positions="answer")
    with pytest.raises(ConfigError, match="reads=gold: must be question"):
        LanguageModelling(reads="gold")
