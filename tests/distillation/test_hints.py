"""Hidden states as hints against a literal float64 transcription."""

from __future__ import annotations

import pytest
import torch
from layers import QUESTIONS, batch, doubled, outputs, same_gradients, states

from regraft.config.ranges import ConfigError
from regraft.distillation.layer_map import LayerMap, pairs
from regraft.distillation.losses.hints import Hints
from regraft.distillation.losses.kl import KL
from regraft.distillation.losses.weighted_sum import WeightedSum
from regraft.interfaces import ModelOutputs, Moment

Leaves = tuple[torch.Tensor, ...]


def far(distance: str, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Of one position, channel by channel."""
    size = len(one)
    if distance == "mse":
        return sum(((one[c] - other[c]) ** 2 for c in range(size)), torch.zeros(())) / size
    dot = sum((one[c] * other[c] for c in range(size)), torch.zeros(()))
    lengths = [sum((x[c] ** 2 for c in range(size)), torch.zeros(())).sqrt() for x in (one, other)]
    return 1 - dot / (lengths[0] * lengths[1])


def literal(distance: str, mine: Leaves, taught: Leaves, chosen: list[tuple[int, int]]) -> torch.Tensor:
    each = [
        far(distance, mine[one][position], taught[other][position])
        for position in range(len(mine[0]))
        for one, other in chosen
    ]
    return sum(each, torch.zeros(())) / len(each)


@pytest.mark.parametrize("distance", ["mse", "cosine"])
@pytest.mark.parametrize(
    ("layers", "chosen"),
    [("uniform", [(1, 2), (2, 4)]), (1, [(2, 4)]), (((0, 0), (2, 1)), [(0, 0), (2, 1)])],
)
def test_value_and_gradient_equal_the_formula_in_float64(
    distance: str, layers: LayerMap, chosen: list[tuple[int, int]]
) -> None:
    packed = batch(positions="all")
    mine, taught = states(packed, 2, 5, 1), states(packed, 4, 5, 2)
    loss = Hints(distance=distance, layers=layers, positions="all")  # type: ignore[arg-type]
    with torch.no_grad():
        teacher = outputs(packed, hidden_states=tuple(tensor.detach() for tensor in taught))
    value = loss(packed, outputs(packed, hidden_states=mine), teacher)
    assert value.count == len(packed.read)
    (value.total / value.count).backward()
    theirs = doubled(mine)
    expected = literal(distance, theirs, doubled(taught), chosen)
    expected.backward()
    assert value.total.item() / value.count == pytest.approx(expected.item(), rel=1e-5)
    same_gradients(mine, theirs)


def test_a_learned_projection_makes_up_for_widths_and_is_trained() -> None:
    packed = batch()
    mine, taught = states(packed, 2, 3, 1), states(packed, 2, 5, 2)
    student, teacher = outputs(packed, hidden_states=mine), outputs(packed, hidden_states=taught)
    loss = Hints(projection="learned")
    learned = loss.learns(student, teacher)
    assert loss.learning and learned is not None
    assert [tuple(one.shape) for one in learned.parameters()] == [(5, 3), (5,)] * 2
    value = loss(packed, student, teacher, Moment(learned=learned))
    (value.total / value.count).backward()
    theirs = doubled(mine)
    weights = [parameter.detach().double().requires_grad_() for parameter in learned.parameters()]
    projected = tuple(
        torch.stack(
            [
                torch.stack([weight[c] @ row + bias[c] for c in range(5)])
                for row in (theirs[1] if number == 0 else theirs[2])
            ]
        )
        for number, (weight, bias) in enumerate([(weights[0], weights[1]), (weights[2], weights[3])])
    )
    expected = literal("mse", (projected[0], *projected), doubled(taught), [(1, 1), (2, 2)])
    expected.backward()
    assert value.total.item() / value.count == pytest.approx(expected.item(), rel=1e-5)
    same_gradients(mine, theirs)
    same_gradients(tuple(learned.parameters()), tuple(weights))


def test_unlike_widths_need_a_learned_projection() -> None:
    packed = batch()
    student = outputs(packed, hidden_states=states(packed, 2, 3, 1))
    teacher = outputs(packed, hidden_states=states(packed, 2, 5, 2))
    with pytest.raises(ConfigError, match=r"hidden size 3 must be the teacher's, 5. Choose projection=learned"):
        Hints()(packed, student, teacher)


def test_hints_are_0_for_the_teacher_itself_with_zero_gradient() -> None:
    packed = batch()
    mine = states(packed, 3, 5, 1)
    taught = outputs(packed, hidden_states=tuple(tensor.detach() for tensor in mine))
    value = Hints()(packed, outputs(packed, hidden_states=mine), taught)
    value.total.backward()
    assert value.total.item() == 0
    assert all(not one.grad.any() for one in mine[1:] if one.grad is not None)


@pytest.mark.parametrize(
    ("layers", "student", "teacher", "expected"),
    [
        ("uniform", 3, 3, [(1, 1), (2, 2), (3, 3)]),
        ("uniform", 6, 12, [(1, 2), (2, 4), (3, 6), (4, 8), (5, 10), (6, 12)]),
        ("uniform", 4, 6, [(1, 2), (2, 3), (3, 5), (4, 6)]),
        ("uniform", 3, 1, [(1, 1), (2, 1), (3, 1)]),
        (2, 3, 5, [(2, 4), (3, 5)]),
        (((2, 5), (1, 1)), 2, 5, [(2, 5), (1, 1)]),
    ],
)
def test_the_map_of_layers(layers: LayerMap, student: int, teacher: int, expected: list[tuple[int, int]]) -> None:
    assert pairs(layers, student, teacher) == expected


@pytest.mark.parametrize("layers", [3, ((1, 1), (3, 2)), ((1, 5),)])
def test_a_layer_that_is_not_there_is_refused(layers: LayerMap) -> None:
    with pytest.raises(ConfigError, match=r"the student has 2 layers and the teacher 4. Choose"):
        pairs(layers, 2, 4)


@pytest.mark.parametrize("layers", [0, (), ((-1, 1),)])
def test_a_map_that_fits_no_model_is_refused(layers: LayerMap) -> None:
    with pytest.raises(ConfigError, match="layers="):
        Hints(layers=layers)


def test_a_weighted_sum_hands_each_term_what_it_learns() -> None:
    packed = batch()
    mine, taught = states(packed, 2, 3, 1), states(packed, 2, 5, 2)
    logits = torch.randn(2, len(packed.read), 11, generator=torch.Generator().manual_seed(0))
    student = ModelOutputs(logits=logits[0], hidden_states=mine)
    teacher = ModelOutputs(logits=logits[1], hidden_states=taught)
    first, last = Hints(projection="learned", layers=((1, 1),)), Hints(projection="learned", layers=1)
    loss = WeightedSum(terms={"kl": KL(), "first": first, "last": last}, weights={"last": 3.0})
    learned = loss.learns(student, teacher)
    assert loss.learning and isinstance(learned, torch.nn.ModuleDict) and list(learned) == ["first", "last"]
    assert loss.needs == {"teacher_logits", "hidden_states"}
    value = loss(packed, student, teacher, Moment(learned=learned))
    alone = [
        (weight, term(packed, student, teacher, Moment(learned=own)))
        for weight, term, own in ((1, KL(), None), (1, first, learned["first"]), (3, last, learned["last"]))
    ]
    expected = sum(weight * one.total.item() / one.count for weight, one in alone)
    assert value.total.item() / value.count == pytest.approx(expected, rel=1e-6)
    assert WeightedSum(terms={"kl": KL(), "hints": Hints()}).learns(student, student) is None


def test_the_questions_differ_in_length() -> None:
    assert len({one.length for one in QUESTIONS}) == len(QUESTIONS)
