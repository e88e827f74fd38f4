"""Of every loss that can be chosen: what it declares of itself is so, whatever precision it is called in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from combinations import components
from layers import attention, looks, states

from regraft.distillation.losses.attention_maps import AttentionMaps
from regraft.distillation.losses.compare import Compare
from regraft.distillation.losses.exits import Exits
from regraft.distillation.losses.hints import Hints
from regraft.distillation.losses.kl import KL
from regraft.distillation.losses.relational import Relational
from regraft.distillation.losses.top_k_kl import TopKKL
from regraft.distillation.losses.weighted_sum import WeightedSum
from regraft.distillation.weight_schedule import WeightSchedule
from regraft.interfaces import Batch, EncodedQuestion, Head, Loss, LossValue, ModelOutputs, Moment
from regraft.pruning.criteria.grasp import Grasp, Tempered
from regraft.tasks.packing import pack

VOCAB, HIDDEN, LAYERS = 70, 8, 4
QUESTIONS = [
    EncodedQuestion(id="a", context=(11, 12, 13), choices=((14, 15), (16,), (17, 18, 19)), answer=2),
    EncodedQuestion(id="b", context=(21, 22, 23, 24), choices=((27, 28, 29), (30, 31)), answer=0),
    EncodedQuestion(id="c", context=(41, 42), choices=((43, 44), (45, 46)), answer=1),
]
LOSSES = {name: loss for name, loss in components("loss").items() if loss.trains}
MORE: dict[str, Loss] = {
    "compare over the vocabulary": Compare(over="vocabulary"),
    "compare with the teacher's choice": Compare(target="teacher"),
    "compare with the right choice": Compare(target="gold"),
    "top k": TopKKL(k=3),
    "other layers": Hints(layers=((1, 2),)),
    "its own layers": Hints(layers=((1, 1),)),
    "maps of other layers": AttentionMaps(layers=((2, 1),)),
    "learned": Hints(projection="learned"),
    "both at rest": WeightedSum(terms={"kl": KL(), "hints": Hints()}),
    "one is off": WeightedSum(terms={"kl": KL(), "exits": Exits()}, weights={"exits": 0}),
    "one goes off": WeightedSum(
        terms={"kl": KL(), "exits": Exits()}, weights={"exits": WeightSchedule(start=1, end=0)}
    ),
}
EVERY = LOSSES | MORE
OF_LOGITS = {name: loss for name, loss in EVERY.items() if not loss.needs - Grasp.takes and loss.drawn_with is None}


def batch(loss: Loss) -> Batch:
    questions = QUESTIONS
    if loss.drawn_with is not None:  # what somebody wrote: one choice
        questions = [replace(one, choices=one.choices[:1], answer=None) for one in QUESTIONS]
    return pack(questions, loss.reads, loss.positions, 0, labelled="labels" in loss.needs)


def leaves(of: Batch, seed: int) -> tuple[torch.Tensor, ...]:
    """Hidden states, a head, and attention scores, in float32 and with gradient."""
    drawn = torch.Generator().manual_seed(seed)
    head = (torch.randn(VOCAB, HIDDEN, generator=drawn) / 2).requires_grad_()
    return (*states(of, LAYERS, HIDDEN, seed), head, *looks(of, LAYERS, 2, seed))


def outputs(of: Batch, tensors: Sequence[torch.Tensor]) -> ModelOutputs:
    hidden, weight, scores = tensors[: LAYERS + 1], tensors[LAYERS + 1], tensors[LAYERS + 2 :]
    return ModelOutputs(
        states=hidden[-1],
        head=Head(weight=weight, bias=None, softcap=None, dtype=torch.float32),
        hidden_states=tuple(hidden),
        attentions=tuple(attention(of, each) for each in scores),
        norm=torch.nn.functional.normalize,
    )


def value(loss: Loss, of: Batch, mine: Sequence[torch.Tensor], taught: Sequence[torch.Tensor]) -> LossValue:
    student = outputs(of, mine)
    teacher = outputs(of, [each.detach() for each in taught]) if "teacher_logits" in loss.needs else None
    torch.manual_seed(0)
    learned = loss.learns(student, teacher) if loss.learning else None
    return loss(of, student, teacher, Moment(generator=torch.Generator().manual_seed(0), learned=learned))


@pytest.mark.parametrize("name", EVERY)
def test_autocast_moves_nothing_that_is_computed_of_the_same_outputs(name: str) -> None:
    loss = EVERY[name]
    of = batch(loss)
    found: list[Any] = []
    for narrow in (False, True):
        mine, taught = leaves(of, 1), leaves(of, 2)
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            said = value(loss, of, mine, taught)
        (said.total / said.count).backward()
        found.append([said.total.detach(), *(each.grad for each in mine if each.grad is not None)])
    plain, narrowed = found
    assert len(plain) == len(narrowed) > 1
    for one, other in zip(plain, narrowed, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", sorted(set(EVERY) - {"sampled_kl"}))
def test_a_loss_is_at_rest_where_the_student_is_its_teacher_if_it_says_so(name: str) -> None:
    loss = EVERY[name]
    of = batch(loss)
    mine = leaves(of, 1)
    value(loss, of, mine, mine).total.backward()
    largest = max(float(each.grad.abs().max()) for each in mine if each.grad is not None)
    assert largest < 1e-4 if loss.rests else largest > 1e-3


@pytest.mark.parametrize("name", OF_LOGITS)
def test_second_derivatives_of_logits_are_those_of_the_gradient(name: str) -> None:
    """By a difference of gradients, of a loss as GraSP differentiates it."""
    loss = Tempered(loss=OF_LOGITS[name], temperature=2.0)
    of = batch(loss)
    teacher = outputs(of, leaves(of, 2))
    generator = torch.Generator().manual_seed(3)
    at, way = (torch.randn(len(of.read), VOCAB, generator=generator) for _ in range(2))

    def gradient(logits: torch.Tensor, **graph: bool) -> torch.Tensor:
        taught = ModelOutputs(logits=teacher.logits.detach()) if "teacher_logits" in loss.needs else None
        said = loss(of, ModelOutputs(logits=logits), taught, Moment(generator=torch.Generator().manual_seed(0)))
        return torch.autograd.grad(said.total, logits, **graph)[0]

    here = at.clone().requires_grad_()
    (curved,) = torch.autograd.grad((gradient(here, create_graph=True) * way).sum(), here)
    ahead, behind = (gradient((at + sign * 1e-3 * way).requires_grad_()) for sign in (1, -1))
    expected = (ahead - behind) / 2e-3
    torch.testing.assert_close(curved, expected, rtol=0.02, atol=2e-3 * max(float(expected.abs().max()), 1e-3))


def test_a_gradient_that_cannot_be_differentiated_again_says_so() -> None:
    of = batch(KL())
    mine = leaves(of, 1)
    said = value(KL(), of, mine, leaves(of, 2))
    with pytest.raises(RuntimeError, match="only where logits are at hand"):
        torch.autograd.grad(said.total, mine[LAYERS], create_graph=True)


def test_the_teacher_is_asked_for_no_more_than_is_compared() -> None:
    both = WeightedSum(terms={"kl": KL(), "exits": Exits()})
    assert both.needs == {"teacher_logits", "hidden_states"} and both.asks_teacher == {"teacher_logits"}
    assert Exits().asks_teacher == frozenset()
    assert Relational().asks_teacher == {"teacher_logits", "hidden_states"}
    assert WeightedSum(terms={"kl": KL(), "rkd": Relational(reads="choices")}).compares_questions == 3
    assert Relational(angle=0).compares_questions == 2
