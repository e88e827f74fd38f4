"""Sums over positions of what is computed from logits over the vocabulary, a few positions at a time.

Where a model's outputs hold what enters the head in place of the logits, a chunk's logits are made, used and dropped,
and their gradient is taken at once into that of the states and of the head. So no more than one chunk of logits is
alive at a time, whatever is computed of them, and nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from regraft.interfaces import Head, ModelOutputs
from regraft.models.likelihood import chunk

Pointwise = Callable[[torch.Tensor, slice], torch.Tensor]
"""Of logits (n, vocab) in float32 with graph, and the place of their positions among those that count: (n,) values."""


def summed(student: ModelOutputs, pointwise: Pointwise, rows: torch.Tensor | None = None) -> torch.Tensor:
    """(): the sum over positions of what `pointwise` makes of the student's logits there, in float32.

    A gradient flows back once, and where there are no logits at hand it cannot be differentiated again.

    Args:
        student: With graph, if a gradient is wanted.
        pointwise: What is computed of the logits, at each position on its own.
        rows: (n,) long; the read positions that count, each perhaps more than once. None: all, once.
    """
    if not student.lazy:
        return pointwise(student.logits_at(slice(None) if rows is None else rows).float(), slice(None)).sum()
    assert student.head is not None and student.states is not None
    head = student.head
    states = student.states if rows is None else student.states[rows]
    # the head says in which precision
    with torch.autocast(states.device.type, enabled=False):
        total: torch.Tensor = _Summed.apply(states, head.weight, head.bias, head, pointwise, torch.is_grad_enabled())
    return total


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        head: Head,
        pointwise: Pointwise,
        flows: bool,
    ) -> torch.Tensor:
        wanted = [flows and needed for needed in ctx.needs_input_grad[:3]]
        of_states, of_weight, of_bias = (
            torch.zeros_like(tensor) if want and tensor is not None else None
            for want, tensor in zip(wanted, (states, weight, bias), strict=True)
        )
        total = states.new_zeros((), dtype=torch.float32)
        size = chunk(len(weight))
        for start in range(0, len(states), size):
            part = slice(start, min(start + size, len(states)))
            logits = head.product(states[part]).requires_grad_(any(wanted))
            with torch.set_grad_enabled(any(wanted)):
                value = pointwise(head.capped(logits).float(), part).sum()
            total += value.detach()
            if not any(wanted):
                continue
            (gradient,) = torch.autograd.grad(value, logits)
            entered = states[part].to(gradient.dtype)
            if of_states is not None:
                of_states[part] = (gradient @ weight.to(gradient.dtype)).to(of_states.dtype)
            if of_weight is not None and of_weight.dtype == gradient.dtype:
                of_weight.addmm_(gradient.T, entered)
            elif of_weight is not None:
                of_weight += gradient.T @ entered
            if of_bias is not None:
                of_bias += gradient.sum(dim=0)
        ctx.gradients = (of_states, of_weight, of_bias)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if torch.is_grad_enabled():
            # autograd would take the gradient for a constant, and say nothing
            raise RuntimeError("a sum over the vocabulary can be differentiated again only where logits are at hand")
        assert ctx.gradients is not None, "the gradient has flowed back already"
        # as large as the head: scaled in place, and given away
        gradients, ctx.gradients = ctx.gradients, None
        scaled = [None if each is None else each.mul_(grad_outputs[0].to(each.dtype)) for each in gradients]
        return (*scaled, None, None, None)
