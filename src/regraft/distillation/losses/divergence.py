"""Forward KL divergence with an analytic gradient, in chunks.

    KL(p || q) = sum_v p_v (log p_v - log q_v),   p = softmax(z_teacher / T),  q = softmax(z_student / T)
    d KL / d z_student = (q - p) / T

The gradient is formed with the value, chunk by chunk, so no more than one chunk of float32 probabilities over the
vocabulary is alive at a time.
"""

from __future__ import annotations

from typing import Any

import torch

CHUNK = 256
"""Positions a chunk: 256 x 100,352 float32 are 103 MB."""


class ForwardKL(torch.autograd.Function):
    """Sum over positions of KL(teacher || student), in float32 whatever the dtype of the logits."""

    @staticmethod
    def forward(ctx: Any, student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        """Args are (positions, vocab), (positions, vocab) and a number; returns ()."""
        total = student.new_zeros((), dtype=torch.float32)
        gradient = torch.empty_like(student)
        for start in range(0, len(student), CHUNK):
            part = slice(start, start + CHUNK)
            log_q = torch.log_softmax(student[part].float() / temperature, dim=-1)
            log_p = torch.log_softmax(teacher[part].float() / temperature, dim=-1)
            p = log_p.exp()
            # 0 * -inf is nan, but the limit of p log p at 0 is 0
            total += torch.where(p > 0, p * (log_p - log_q), 0.0).sum()
            gradient[part] = ((log_q.exp() - p) / temperature).to(gradient.dtype)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_outputs[0].to(gradient.dtype), None, None
