"""Of every loss that can be chosen and is about answers: which positions move it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from architectures import tiny_model
from combinations import components

from regraft.interfaces import Batch, EncodedQuestion, Loss, LossValue, Moment
from regraft.models.forward import forward
from regraft.tasks.packing import pack

QUESTIONS = [
    EncodedQuestion(id="a", context=(11, 12, 13), choices=((14, 15), (16,), (17, 18, 19)), answer=2),
    EncodedQuestion(id="b", context=(21, 22, 23, 24, 25, 26), choices=((27, 28, 29), (30, 31)), answer=0),
    EncodedQuestion(id="c", context=(41, 42), choices=((43, 44), (45, 46)), answer=1),
]
PAD = 0


LOSSES = {name: loss for name, loss in components("loss").items() if loss.trains and loss.positions == "answer"}


@pytest.fixture(scope="module")
def models() -> tuple[Any, Any]:
    return tiny_model("llama", seed=0), tiny_model("llama", seed=1)


def packed(loss: Loss) -> Batch:
    return pack(QUESTIONS, loss.reads, loss.positions, PAD, labelled="labels" in loss.needs)


def said(loss: Loss, batch: Batch, models: tuple[Any, Any]) -> tuple[LossValue, torch.Tensor]:
    """The loss of the first model, taught by the second, and its gradient at (batch, seq) outputs of the last layer."""
    student, teacher = models
    kept: list[torch.Tensor] = []

    def keep(module: Any, given: Any, output: Any) -> None:
        output.retain_grad()
        kept.append(output)

    hook = student.model.norm.register_forward_hook(keep)
    try:
        outputs = forward(student, batch, loss.needs)
    finally:
        hook.remove()
    taught = None
    if "teacher_logits" in loss.needs:
        with torch.no_grad():
            taught = forward(teacher, batch, loss.needs)
    torch.manual_seed(0)
    learned = loss.learns(outputs, taught) if loss.learning else None
    value = loss(batch, outputs, taught, Moment(generator=torch.Generator().manual_seed(0), learned=learned))
    value.total.backward()
    student.zero_grad()
    (states,) = kept
    return value, torch.zeros_like(states) if states.grad is None else states.grad


@pytest.mark.parametrize("name", LOSSES)
def test_padding_says_nothing(name: str, models: tuple[Any, Any]) -> None:
    loss = LOSSES[name]
    batch = packed(loss)
    padding = ~batch.visible[:, 0].diagonal(dim1=1, dim2=2)
    assert padding.any()
    scrambled = replace(batch, input_ids=batch.input_ids.masked_fill(padding, 77))
    (value, gradient), (other, same) = said(loss, batch, models), said(loss, scrambled, models)
    assert value.total.item() == other.total.item()
    assert value.count == other.count
    assert torch.equal(gradient, same)


@pytest.mark.parametrize("name", LOSSES)
def test_neither_padding_nor_the_question_enters_the_mean(name: str, models: tuple[Any, Any]) -> None:
    loss = LOSSES[name]
    batch = packed(loss)
    _, gradient = said(loss, batch, models)
    for row, question in enumerate(QUESTIONS):
        told = {"gold": [question.choices[question.answer or 0]], "choices": question.choices, "question": ()}
        first = len(question.context) - 1  # predicts the first token of each choice
        read = 1 + sum(len(choice) - 1 for choice in told[loss.reads])
        moved = gradient[row].abs().sum(dim=1)
        assert not moved[:first].any(), "the question"
        assert not moved[first + read :].any(), "padding"
        assert moved[first].any() or not loss.needs <= {"labels", "teacher_logits"}
