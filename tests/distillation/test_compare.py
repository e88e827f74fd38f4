"""Targets by spaces: each cell against loops in float64, and against the losses that it is known as."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from architectures import tiny_model

from regraft.config.components import Allowed, build
from regraft.config.ranges import ConfigError, Incompatible
from regraft.distillation.losses.compare import Compare
from regraft.distillation.losses.cross_entropy import CrossEntropy
from regraft.distillation.losses.kl import KL
from regraft.distillation.losses.pseudo_label import PseudoLabel
from regraft.interfaces import Batch, EncodedQuestion, Loss, ModelOutputs
from regraft.models.forward import forward
from regraft.tasks.packing import pack

QUESTIONS = [
    EncodedQuestion(id="a", context=(1, 2, 3), choices=((4, 5), (6,), (7, 8, 9)), characters=(3, 5, 2), answer=2),
    EncodedQuestion(id="b", context=(2, 1), choices=((5,), (6, 4)), characters=(1, 6), answer=0),
    EncodedQuestion(id="c", context=(9,), choices=((8, 3), (7, 7), (1, 5), (2,)), characters=(4, 4, 9, 1), answer=1),
]
VOCAB = 11
CELLS = [
    *(("gold", "vocabulary", "right_choice"), ("gold", "choices", "every_choice")),
    *product(("teacher", "soft"), ("vocabulary",), ("right_choice", "preferred", "every_choice")),
    *product(("teacher", "soft"), ("choices",), ("every_choice",)),
]
REFUSED = sorted(
    set(product(("gold", "teacher", "soft"), ("vocabulary", "choices"), ("right_choice", "preferred", "every_choice")))
    - set(CELLS)
)


def batch(labelled: bool = True) -> Batch:
    return pack(QUESTIONS, "choices", "answer", 0, labelled=labelled)


def logits(seed: int) -> torch.Tensor:
    return 3 * torch.randn(len(batch().read), VOCAB, generator=torch.Generator().manual_seed(seed))


def row(question: int, choice: int, position: int) -> int:
    """Where the logits of a token of a choice are: first the end of the question, which its choices share, then
    what is inside each choice."""
    before = sum(1 + sum(len(each) - 1 for each in other.choices) for other in QUESTIONS[:question])
    if position == 0:
        return before
    return before + sum(len(each) - 1 for each in QUESTIONS[question].choices[:choice]) + position


def log_p(z: torch.Tensor, token: int) -> torch.Tensor:
    return z[token] - sum(each.exp() for each in z).log()  # type: ignore[union-attr]


def score(z: torch.Tensor, question: int, choice: int, normalisation: str) -> torch.Tensor:
    tokens = QUESTIONS[question].choices[choice]
    found = sum(log_p(z[row(question, choice, at)], token) for at, token in enumerate(tokens))
    assert isinstance(found, torch.Tensor)
    return found / QUESTIONS[question].characters[choice] if normalisation == "character" else found


def best(z: torch.Tensor, question: int, normalisation: str) -> int:
    found = [float(score(z, question, choice, normalisation)) for choice in range(len(QUESTIONS[question].choices))]
    return found.index(max(found))


def divergence(teacher: list[torch.Tensor], student: list[torch.Tensor], temperature: float) -> torch.Tensor:
    p, q = ([(each / temperature).exp() for each in side] for side in (teacher, student))
    terms = [a / sum(p) * ((a / sum(p)).log() - (b / sum(q)).log()) for a, b in zip(p, q, strict=True)]
    return temperature**2 * sum(terms)  # type: ignore[return-value]


def literal(loss: Compare, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    values = []
    for number, question in enumerate(QUESTIONS):
        if loss.over == "choices":
            said, taught = (
                [score(z, number, choice, loss.normalisation) for choice in range(len(question.choices))]
                for z in (student, teacher)
            )
            if loss.target == "soft":
                values.append(divergence(taught, said, loss.temperature))
            else:
                right = question.answer if loss.target == "gold" else best(teacher, number, loss.normalisation)
                values.append(-log_p(torch.stack(said), right))  # type: ignore[arg-type]
            continue
        chosen = {
            "right_choice": [question.answer],
            "preferred": [best(teacher, number, loss.normalisation)],
            "every_choice": range(len(question.choices)),
        }[loss.at]
        seen = set()
        for choice in chosen:
            for at, token in enumerate(question.choices[choice]):  # type: ignore[index]
                place = row(number, choice, at)  # type: ignore[arg-type]
                if place in seen:
                    continue
                seen.add(place)
                own = loss.target == "gold" or loss.at == "preferred"
                if loss.target == "soft":
                    values.append(divergence(list(teacher[place]), list(student[place]), loss.temperature))
                else:
                    values.append(-log_p(student[place], token if own else int(teacher[place].argmax())))
    return sum(values) / len(values)  # type: ignore[return-value]


@pytest.mark.parametrize(("target", "over", "at"), CELLS)
@pytest.mark.parametrize("normalisation", ["sum", "character"])
def test_each_cell_and_its_gradient_equal_loops_in_float64(
    target: str, over: str, at: str, normalisation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regraft.models.likelihood.CHUNK", 4 * VOCAB)  # several parts
    loss = Compare(
        target=target,  # type: ignore[arg-type]
        over=over,  # type: ignore[arg-type]
        at=at,  # type: ignore[arg-type]
        normalisation=normalisation,  # type: ignore[arg-type]
        temperature=2.5 if target == "soft" else 1.0,
    )
    packed = batch("labels" in loss.needs)
    student, teacher = logits(1).requires_grad_(), logits(2)
    value = loss(packed, ModelOutputs(logits=student), ModelOutputs(logits=teacher))
    (value.total / value.count).backward()
    exact = student.detach().double().requires_grad_()
    expected = literal(loss, exact, teacher.double())
    expected.backward()
    assert value.total.item() / value.count == pytest.approx(expected.item(), rel=1e-5)
    assert student.grad is not None and exact.grad is not None
    torch.testing.assert_close(student.grad.double(), exact.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("target", "over", "at", "other"),
    [
        ("gold", "vocabulary", "right_choice", CrossEntropy(reads="choices")),
        ("teacher", "vocabulary", "preferred", PseudoLabel(normalisation="character")),
        ("soft", "vocabulary", "every_choice", KL(temperature=2.0)),
    ],
)
def test_cells_that_have_names_are_these_losses(target: str, over: str, at: str, other: Loss) -> None:
    temperature = 2.0 if target == "soft" else 1.0
    cell = Compare(target=target, over=over, at=at, normalisation="character", temperature=temperature)  # type: ignore[arg-type]
    assert (cell.needs, cell.reads, cell.positions) == (other.needs, other.reads, other.positions)
    found = []
    for loss in (cell, other):
        student = logits(1).requires_grad_()
        value = loss(batch(), ModelOutputs(logits=student), ModelOutputs(logits=logits(2)))
        value.total.backward()
        found.append((value.count, value.total.item(), student.grad))
    assert found[0][0] == found[1][0] and found[0][1] == pytest.approx(found[1][1], rel=1e-6)
    torch.testing.assert_close(found[0][2], found[1][2])


@pytest.mark.parametrize("target", ["gold", "teacher", "soft"])
def test_a_models_weights_get_the_gradient_of_the_loops(target: str) -> None:
    """Through states and head, where no logits are kept."""
    loss = Compare(target=target)  # type: ignore[arg-type]
    model, packed = tiny_model("llama", layers=1), batch()
    with torch.no_grad():
        taught = forward(tiny_model("llama", layers=1, seed=1), packed)
    value = loss(packed, forward(model, packed), taught)
    (value.total / value.count).backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    expected = literal(loss, forward(model, packed).logits, taught.logits)
    expected.backward()
    assert value.total.item() / value.count == pytest.approx(expected.item(), rel=1e-4)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-5)


def test_only_the_target_differs_at_the_right_choice() -> None:
    """Teacher and gold count the same positions: a teacher that is sure of the right tokens is the gold."""
    packed = batch()
    sure = torch.full((len(packed.read), VOCAB), -50.0)
    right = [(row(n, q.answer, at), t) for n, q in enumerate(QUESTIONS) for at, t in enumerate(q.choices[q.answer])]  # type: ignore[arg-type,index]
    for place, token in right:
        sure[place, token] = 50.0
    found = []
    for target in ("gold", "teacher", "soft"):
        loss = Compare(target=target, over="vocabulary", at="right_choice")  # type: ignore[arg-type]
        assert "labels" in loss.needs
        value = loss(packed, ModelOutputs(logits=logits(1)), ModelOutputs(logits=sure))
        found.append((value.count, value.total.item()))
    assert found[0][0] == len(right)
    assert found == [(found[0][0], pytest.approx(found[0][1], rel=1e-5))] * 3


@pytest.mark.parametrize(("target", "over", "at"), CELLS)
def test_permuted_answers_move_what_needs_labels_and_nothing_else(target: str, over: str, at: str) -> None:
    loss = Compare(target=target, over=over, at=at)  # type: ignore[arg-type]
    labelled = "labels" in loss.needs
    moved = [replace(q, answer=(q.answer + 1) % len(q.choices)) for q in QUESTIONS]  # type: ignore[operator]
    said, taught = ModelOutputs(logits=logits(1)), ModelOutputs(logits=logits(2))
    # labelled batches in both: what needs no labels must not look
    one, other = (
        float(loss(pack(q, "choices", "answer", 0, labelled=True), said, taught).total) for q in (QUESTIONS, moved)
    )
    assert (one != other) == labelled


def test_softmax_over_choices_that_are_alike_teaches_nothing() -> None:
    student = logits(1).requires_grad_()
    value = Compare(temperature=3.0)(batch(), ModelOutputs(logits=student), ModelOutputs(logits=student.detach()))
    value.total.backward()
    assert value.total.item() == pytest.approx(0, abs=1e-6) and value.count == len(QUESTIONS)
    assert student.grad is not None and float(student.grad.abs().max()) < 1e-6
    assert math.isfinite(value.total.item())


@pytest.mark.parametrize(("target", "over", "at"), REFUSED)
def test_cells_that_cannot_be_are_refused_with_the_reason(target: str, over: str, at: str) -> None:
    with pytest.raises(Incompatible, match=rf"at={at}: must be \w+ with .*: at the other|which compares all") as told:
        Compare(target=target, over=over, at=at)  # type: ignore[arg-type]
    assert "Choose at=" in str(told.value)


def test_a_temperature_is_for_what_is_soft() -> None:
    with pytest.raises(Incompatible, match="temperature=2.0: must be 1 with target=teacher"):
        Compare(target="teacher", temperature=2.0)
    with pytest.raises(ConfigError, match="temperature=0.0: must be a finite number above 0"):
        Compare(temperature=0.0)


def test_a_grid_can_leave_refused_cells_out() -> None:
    """What a component refuses as incompatible stays that through the config."""
    node = {"_target_": "regraft.distillation.losses.compare.Compare", "target": "gold", "over": "vocabulary"}
    with pytest.raises(Incompatible, match=r"loss\.at=every_choice: must be right_choice"):
        build(node, "loss", Allowed())
