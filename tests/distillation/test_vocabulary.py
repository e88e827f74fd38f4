"""Sums over positions by chunks, against all logits at once."""

from __future__ import annotations

import pytest
import torch

from regraft.distillation.vocabulary import summed
from regraft.interfaces import Head, ModelOutputs

READS, HIDDEN, VOCAB = 7, 4, 11


def tensors(dtype: torch.dtype, bias: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(dtype).requires_grad_()

    return drawn(READS, HIDDEN), drawn(VOCAB, HIDDEN), drawn(VOCAB) if bias else None


def powers(logits: torch.Tensor, part: slice) -> torch.Tensor:
    """Something that neither a constant nor a shift of all logits leaves as it is."""
    return (torch.log_softmax(logits, dim=-1) * torch.arange(VOCAB)).sum(dim=-1) + logits.square().mean(dim=-1)


@pytest.mark.parametrize("rows", [None, torch.tensor([6, 0, 0, 3])], ids=["all", "some"])
@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_chunks_give_the_value_and_the_gradients_of_all_logits_at_once(
    monkeypatch: pytest.MonkeyPatch, chunk: int, bias: bool, softcap: float | None, rows: torch.Tensor | None
) -> None:
    monkeypatch.setattr("regraft.models.likelihood.CHUNK", chunk * VOCAB)
    states, weight, offset = tensors(torch.float32, bias)
    head = Head(weight=weight, bias=offset, softcap=softcap, dtype=torch.float32)
    (3 * summed(ModelOutputs(states=states, head=head), powers, rows)).backward()

    wide = [None if each is None else each.detach().double().requires_grad_() for each in (states, weight, offset)]
    logits = wide[0] @ wide[1].T  # type: ignore[operator, union-attr]
    if wide[2] is not None:
        logits = logits + wide[2]
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    expected = 3 * powers(logits if rows is None else logits[rows], slice(None)).sum()
    expected.backward()
    for mine, its in zip((states, weight, offset), wide, strict=True):
        if mine is not None and its is not None:
            assert mine.grad is not None and its.grad is not None
            torch.testing.assert_close(mine.grad.double(), its.grad, rtol=1e-4, atol=1e-5)


def test_the_part_says_which_positions_a_chunk_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regraft.models.likelihood.CHUNK", 2 * VOCAB)
    states, weight, _ = tensors(torch.float32, False)
    student = ModelOutputs(states=states, head=Head(weight=weight, bias=None, softcap=None, dtype=torch.float32))
    rows, seen = torch.tensor([5, 1, 1, 6, 2]), []

    def look(logits: torch.Tensor, part: slice) -> torch.Tensor:
        torch.testing.assert_close(logits, (states @ weight.T)[rows[part]])
        seen.extend(range(len(rows))[part])
        return logits.sum(dim=-1)

    summed(student, look, rows)
    assert seen == list(range(5))


def test_bfloat16_logits_are_summed_in_float32_and_give_gradients_in_each_dtype() -> None:
    states, weight, bias = tensors(torch.float32, True)
    head = Head(weight=weight, bias=bias, softcap=None, dtype=torch.bfloat16)
    total = summed(ModelOutputs(states=states, head=head), powers)
    total.backward()
    plain = powers((states.bfloat16() @ weight.bfloat16().T + bias.bfloat16()).float(), slice(None)).sum()
    assert total.dtype == torch.float32
    assert total.item() == pytest.approx(plain.item(), rel=1e-2)
    expected = torch.autograd.grad(plain, (states, weight, bias))
    for mine, its in zip((states, weight, bias), expected, strict=True):
        assert mine is not None and mine.grad is not None and mine.grad.dtype == torch.float32
        torch.testing.assert_close(mine.grad, its, rtol=0.05, atol=0.3)


def test_without_a_wish_for_gradients_none_are_made() -> None:
    states, weight, _ = tensors(torch.float32, False)
    student = ModelOutputs(states=states, head=Head(weight=weight, bias=None, softcap=None, dtype=torch.float32))
    with torch.no_grad():
        quiet = summed(student, lambda logits, part: _graphless(logits))
    assert not quiet.requires_grad


def _graphless(logits: torch.Tensor) -> torch.Tensor:
    assert not logits.requires_grad
    return logits.sum(dim=-1)
