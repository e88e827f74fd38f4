"""Attention maps against a literal float64 transcription."""

from __future__ import annotations

import math

import pytest
import torch
from layers import attention, batch, doubled, looks, outputs, same_gradients

from regraft.config.ranges import ConfigError
from regraft.distillation.losses.attention_maps import AttentionMaps


def literal(distance: str, mine: list[torch.Tensor], taught: list[torch.Tensor]) -> torch.Tensor:
    each = []
    for one, other in zip(mine, taught, strict=True):
        for position in range(len(one)):
            total = torch.zeros((), dtype=torch.float64)
            for key in range(one.shape[2]):
                q = sum(one[position, head, key] for head in range(one.shape[1])) / one.shape[1]
                p = sum(other[position, head, key] for head in range(other.shape[1])) / other.shape[1]
                if distance == "mse":
                    total = total + (q - p) ** 2
                elif p > 0:
                    total = total + p * (torch.log(p) - torch.log(q))
            each.append(total)
    return sum(each, torch.zeros(())) / len(each)


@pytest.mark.parametrize("distance", ["kl", "mse"])
def test_value_and_gradient_equal_the_formula_in_float64(distance: str) -> None:
    packed = batch()
    mine, taught = looks(packed, 2, 3, 1), looks(packed, 4, 4, 2)
    student = outputs(packed, attentions=tuple(attention(packed, one) for one in mine))
    teacher = outputs(packed, attentions=tuple(attention(packed, one.detach()) for one in taught))
    value = AttentionMaps(distance=distance)(packed, student, teacher)  # type: ignore[arg-type]
    assert value.count == len(packed.read)
    (value.total / value.count).backward()
    theirs = doubled(mine)
    maps = [attention(packed, one.detach().double()) for one in taught]
    expected = literal(distance, [attention(packed, one) for one in theirs], [maps[1], maps[3]])
    expected.backward()
    assert value.total.item() / value.count == pytest.approx(expected.item(), rel=1e-5)
    same_gradients(mine, theirs)


def test_what_the_student_does_not_see_at_all_gives_a_number() -> None:
    packed = batch(questions=1)
    blind, sees = torch.zeros(2, len(packed.read), 1, packed.input_ids.shape[1])
    blind[:, :, 0], sees[:, :, 1] = 1.0, 1.0
    blind.requires_grad_()
    value = AttentionMaps()(packed, outputs(packed, attentions=(blind,)), outputs(packed, attentions=(sees,)))
    value.total.backward()
    assert math.isfinite(value.total.item()) and value.total.item() > 0
    assert blind.grad is not None and blind.grad.isfinite().all()


def test_a_teacher_that_reads_another_text_is_refused() -> None:
    packed, other = batch(), batch("question")
    student = outputs(packed, attentions=tuple(attention(packed, one) for one in looks(packed, 1, 2, 1)))
    teacher = outputs(other, attentions=tuple(attention(other, one) for one in looks(other, 1, 2, 1)))
    with pytest.raises(ConfigError, match="the teacher reads another text"):
        AttentionMaps()(packed, student, teacher)


def test_the_embedding_looks_nowhere() -> None:
    with pytest.raises(ConfigError, match="each at least 1"):
        AttentionMaps(layers=((0, 0),))
