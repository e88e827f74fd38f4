"""RKD against a literal float64 transcription, and what must not move it."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from layers import batch, doubled, outputs, same_gradients, states

from regraft.config.ranges import ConfigError
from regraft.distillation.losses.relational import Relational, question_ends
from regraft.interfaces import Batch, EncodedQuestion
from regraft.tasks.packing import pack

Points = list[torch.Tensor]


def length(way: torch.Tensor) -> torch.Tensor:
    return sum((channel**2 for channel in way), torch.zeros(())).sqrt()


def huber(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a - b) ** 2 / 2 if abs(a - b) <= 1 else abs(a - b) - 0.5


def literal(xs: Points, ys: Points, distance: float, angle: float) -> torch.Tensor:
    number = range(len(xs))
    pairs = list(itertools.permutations(number, 2))
    triples = list(itertools.permutations(number, 3))

    def relative(points: Points) -> dict[tuple[int, int], torch.Tensor]:
        lengths = {pair: length(points[pair[0]] - points[pair[1]]) for pair in pairs}
        mean = sum(lengths.values(), torch.zeros(())) / len(pairs)
        return {pair: far / mean for pair, far in lengths.items()}

    def cosine(points: Points, i: int, j: int, k: int) -> torch.Tensor:
        one, other = points[i] - points[j], points[k] - points[j]
        return sum((a * b for a, b in zip(one, other, strict=True)), torch.zeros(())) / (length(one) * length(other))

    mine, taught = relative(xs), relative(ys)
    distances = sum((huber(mine[pair], taught[pair]) for pair in pairs), torch.zeros(())) / len(pairs)
    angles = sum((huber(cosine(xs, *one), cosine(ys, *one)) for one in triples), torch.zeros(())) / len(triples)
    return distance * distances + angle * angles


def many(number: int) -> Batch:
    questions = [
        EncodedQuestion(id=str(one), context=(1, 2, 3)[: 1 + one % 3], choices=((4, 5), (6,)), answer=0)
        for one in range(number)
    ]
    return pack(questions, "choices", "all", 0, labelled=False)


def test_value_and_gradient_equal_the_formula_in_float64() -> None:
    packed = many(6)
    mine, taught = states(packed, 2, 3, 1), states(packed, 4, 5, 2)
    teacher = outputs(packed, hidden_states=tuple(one.detach() for one in taught))
    value = Relational(distance=1.5, angle=2.5)(packed, outputs(packed, hidden_states=mine), teacher)
    assert value.count == 6
    (value.total / value.count).backward()
    # of each row the last position of the question: its tokens, then one for the longer choice
    ends, at = [], 0
    for number in range(6):
        ends.append(at + number % 3)
        at += number % 3 + 2
    assert at == len(packed.read)
    theirs = doubled(mine)
    expected = literal([theirs[-1][end] for end in ends], [taught[-1][end].detach().double() for end in ends], 1.5, 2.5)
    expected.backward()
    assert value.total.item() / value.count == pytest.approx(expected.item(), rel=1e-5)
    same_gradients(mine, theirs)


@pytest.mark.parametrize("reads", ["question", "choices"])
@pytest.mark.parametrize("positions", ["answer", "all"])
def test_the_end_of_a_question_is_found_whatever_is_read(reads: str, positions: str) -> None:
    packed = batch(reads, positions)
    at = packed.read[question_ends(packed)]
    seq = packed.input_ids.shape[1]
    assert at.tolist() == [2, seq + 1, 2 * seq]  # questions of three, two and one token


def test_neither_rotation_nor_scale_nor_place_of_either_space_counts() -> None:
    packed = many(6)
    (mine,) = states(packed, 0, 4, 1)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(3))).Q
    other = (7.0 * mine.detach() @ turn + 2.0).requires_grad_()
    for one, taught in ((mine, other.detach()), (other, mine.detach())):
        value = Relational()(packed, outputs(packed, hidden_states=(one,)), outputs(packed, hidden_states=(taught,)))
        value.total.backward()
        assert value.total.item() < 1e-10
        assert one.grad is not None and float(one.grad.abs().max()) < 1e-5
    moved = mine.detach() + torch.tensor([5.0, 0, 0, 0]) * (torch.arange(len(mine)) % 2)[:, None]
    value = Relational()(packed, outputs(packed, hidden_states=(mine,)), outputs(packed, hidden_states=(moved,)))
    assert value.total.item() > 0.1


def test_the_same_space_is_exactly_0() -> None:
    packed = many(6)
    (mine,) = states(packed, 0, 4, 1)
    for scale in (1.0, 8.0):
        taught = outputs(packed, hidden_states=(scale * mine.detach(),))
        assert Relational()(packed, outputs(packed, hidden_states=(mine,)), taught).total.item() == 0


@pytest.mark.parametrize("questions", [1, 2, 6])
@pytest.mark.parametrize("alike", ["student", "teacher", "both", "two of the student"])
def test_points_that_coincide_give_numbers(questions: int, alike: str) -> None:
    packed = many(questions)
    (mine,), (taught,) = states(packed, 0, 4, 1), states(packed, 0, 4, 2)
    with torch.no_grad():
        if alike in ("student", "both"):
            mine[:] = mine[0].clone()
        if alike in ("teacher", "both"):
            taught[:] = taught[0].clone()
        if alike == "two of the student":
            mine[: len(mine) // 2] = mine[0].clone()
    value = Relational()(
        packed, outputs(packed, hidden_states=(mine,)), outputs(packed, hidden_states=(taught.detach(),))
    )
    value.total.backward()
    assert math.isfinite(value.total.item())
    assert mine.grad is not None and mine.grad.isfinite().all() and float(mine.grad.abs().max()) < 1e3
    if alike == "both" or questions == 1:
        assert value.total.item() == 0


def test_what_is_no_weight_and_no_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match="angle=-1"):
        Relational(angle=-1)
    with pytest.raises(ConfigError, match="distance=0: must be above 0 where angle=0"):
        Relational(distance=0, angle=0)
    packed = many(2)
    said = outputs(packed, hidden_states=states(packed, 2, 4, 1))
    with pytest.raises(ConfigError, match="layer=3: must be at most 2"):
        Relational(layer=3)(packed, said, said)
