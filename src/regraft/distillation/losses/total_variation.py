"""Total variation distance (f-DISTILL, Wen et al. 2023, arXiv 2307.15190).

    L = T * mean over positions of 1/2 sum_v |p_v - q_v|,
    p = softmax(z_teacher / T),   q = softmax(z_student / T)

Of first order in p - q, so that T and not T^2 keeps the size of the gradient when T changes. Between 0 and T. Its
gradient does not shrink as the student comes near its teacher, and is 0 where they are equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regraft.distillation.losses.next_token import NextToken
from regraft.interfaces import Moment

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class TotalVariation(NextToken):
    """The probability that the best coupling of both distributions says two different tokens."""

    order = 1

    def between(self, student: torch.Tensor, teacher: torch.Tensor, moment: Moment) -> torch.Tensor:
        from regraft.distillation.losses.divergence import log_probabilities

        p, q = (log_probabilities(logits, self.temperature).exp() for logits in (teacher, student))
        return (p - q).abs().sum(dim=-1) / 2
