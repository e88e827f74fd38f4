"""Reverse KL: the student is asked to say only what the teacher says (MiniLLM, arXiv 2306.08543, at each position).

    L = T^2 * mean over positions of KL(q || p) = sum_v q_v (log q_v - log p_v),
    p = softmax(z_teacher / T),   q = softmax(z_student / T)

Mode-seeking, where forward KL covers. A token that the teacher holds impossible would make it infinite: log p_v is
bounded below by the logarithm of the smallest float32, -103.3, which still drives the student away from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regraft.distillation.losses.next_token import NextToken
from regraft.interfaces import Moment

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class ReverseKL(NextToken):
    """KL of the student's distribution from the teacher's."""

    def between(self, student: torch.Tensor, teacher: torch.Tensor, moment: Moment) -> torch.Tensor:
        from regraft.distillation.losses.divergence import reverse_kl

        return reverse_kl(student, teacher, self.temperature)
