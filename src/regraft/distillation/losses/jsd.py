"""Generalised Jensen-Shannon divergence of GKD (Agarwal et al. 2023, arXiv 2306.13649, eq. 3).

    L = T^2 * mean over positions of  beta KL(p || m) + (1 - beta) KL(q || m),   m = beta p + (1 - beta) q,
    p = softmax(z_teacher / T),   q = softmax(z_student / T)

beta = 0 is forward KL and beta = 1 reverse KL, as in TRL. They are no limits of the formula, which vanishes at both
ends: near 0 it is about beta KL(p || q). TRL has no T^2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regraft.config.ranges import require
from regraft.distillation.losses.next_token import NextToken
from regraft.interfaces import Moment

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class JSD(NextToken):
    """What lies between forward and reverse KL."""

    beta: float = 0.5
    """The teacher's share of the mixture, in [0, 1]: 0 is forward KL, 1 reverse KL."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.beta <= 1, "beta", self.beta, "in [0, 1]")

    def between(self, student: torch.Tensor, teacher: torch.Tensor, moment: Moment) -> torch.Tensor:
        from regraft.distillation.losses.divergence import forward_kl, kl, log_mixture, log_probabilities, reverse_kl

        if self.beta in (0, 1):
            return (reverse_kl if self.beta else forward_kl)(student, teacher, self.temperature)
        log_p, log_q = log_probabilities(teacher, self.temperature), log_probabilities(student, self.temperature)
        log_m = log_mixture(log_p, log_q, self.beta)
        return self.beta * kl(log_p, log_m) + (1 - self.beta) * kl(log_q, log_m)
