"""Divergences between next-token distributions, in float32; forward KL with an analytic gradient.

    KL(p || q) = sum_v p_v (log p_v - log q_v),   p = softmax(z_teacher / T),  q = softmax(z_student / T)
    d KL / d z_student = (q - p) / T

The gradient of forward KL is formed with the value: no graph over the vocabulary is kept. Who differentiates that
gradient again has q made again from the logits.
"""

from __future__ import annotations

import math
from typing import Any

import torch

LEAST = math.log(2.0**-149)
"""Of the smallest positive float32: what the logarithm of a probability of 0 counts as, where it must be finite."""


def forward_kl(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """(n,): KL(teacher || student) at each position, in float32 whatever the dtype of the logits.

    Args:
        student: (n, vocab) logits, with graph.
        teacher: (n, vocab) logits, without.
        temperature: T, above 0.
    """
    divergence: torch.Tensor = _ForwardKL.apply(student, teacher, temperature)
    return divergence


def reverse_kl(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """(n,): KL(student || teacher) at each position; arguments as for `forward_kl`."""
    return kl(log_probabilities(student, temperature), log_probabilities(teacher, temperature).clamp(min=LEAST))


def log_probabilities(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """(n, vocab) in float32."""
    return torch.log_softmax(_divided(logits.float(), temperature), dim=-1)


def _divided(tensor: torch.Tensor, temperature: float) -> torch.Tensor:
    """By the temperature; itself where that changes nothing."""
    return tensor if temperature == 1 else tensor / temperature


def log_mixture(log_p: torch.Tensor, log_q: torch.Tensor, share: float) -> torch.Tensor:
    """(n, vocab): log(share p + (1 - share) q); `share` is in (0, 1)."""
    return torch.logaddexp(log_p + math.log(share), log_q + math.log1p(-share))


def kl(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """(n,): KL(p || q) of log-probabilities (n, tokens)."""
    p = log_p.exp()
    # 0 * -inf is nan, but the limit of p log p at 0 is 0
    return torch.where(p > 0, p * (log_p - log_q), 0.0).sum(dim=-1)


class _ForwardKL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        log_q, log_p = log_probabilities(student, temperature), log_probabilities(teacher, temperature)
        p = log_p.exp()
        # in place: each tensor is as large as the logits; and 0 * -inf is nan, but the limit of p log p at 0 is 0
        divergence = log_p.sub_(log_q).mul_(p).masked_fill_(p == 0, 0.0).sum(dim=-1)
        ctx.save_for_backward(_divided(log_q.exp_().sub_(p), temperature).to(student.dtype), student)
        ctx.temperature = temperature
        return divergence

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, None, None]:
        gradient, student = ctx.saved_tensors
        if torch.is_grad_enabled():
            q = log_probabilities(student, ctx.temperature).exp()
            gradient = gradient + _divided(q - q.detach(), ctx.temperature).to(gradient.dtype)
        return gradient * grad_outputs[0][:, None].to(gradient.dtype), None, None
