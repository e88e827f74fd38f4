"""Forward KL divergence with an analytic gradient.

    KL(p || q) = sum_v p_v (log p_v - log q_v),   p = softmax(z_teacher / T),  q = softmax(z_student / T)
    d KL / d z_student = (q - p) / T

The gradient is formed with the value: no graph over the vocabulary is kept.
"""

from __future__ import annotations

from typing import Any

import torch


def forward_kl(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """(n,): KL(teacher || student) at each position, in float32 whatever the dtype of the logits.

    Args:
        student: (n, vocab) logits, with graph.
        teacher: (n, vocab) logits, without.
        temperature: T, above 0.
    """
    divergence: torch.Tensor = _ForwardKL.apply(student, teacher, temperature)
    return divergence


class _ForwardKL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        log_q = torch.log_softmax(student.float() / temperature, dim=-1)
        log_p = torch.log_softmax(teacher.float() / temperature, dim=-1)
        p = log_p.exp()
        # 0 * -inf is nan, but the limit of p log p at 0 is 0
        divergence = torch.where(p > 0, p * (log_p - log_q), 0.0).sum(dim=-1)
        ctx.save_for_backward(((log_q.exp() - p) / temperature).to(student.dtype))
        return divergence

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_outputs[0][:, None].to(gradient.dtype), None, None
