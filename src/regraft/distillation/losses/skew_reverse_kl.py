"""Skewed reverse KL of DistiLLM (Ko et al. 2024, arXiv 2402.03898).

    L = T^2 * mean over positions of KL(q || (1 - alpha) p + alpha q),
    p = softmax(z_teacher / T),   q = softmax(z_student / T)

At most -log(alpha), also where the teacher holds a token impossible. The code has no temperature.
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
class SkewReverseKL(NextToken):
    """Reverse KL to a mixture of the teacher with a little of the student."""

    alpha: float = 0.1
    """The student's share of the mixture, in [0, 1); 0 is reverse KL."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.alpha < 1, "alpha", self.alpha, "in [0, 1)")

    def between(self, student: torch.Tensor, teacher: torch.Tensor, moment: Moment) -> torch.Tensor:
        from regraft.distillation.losses.divergence import kl, log_mixture, log_probabilities, reverse_kl

        if self.alpha == 0:
            return reverse_kl(student, teacher, self.temperature)
        log_p, log_q = log_probabilities(teacher, self.temperature), log_probabilities(student, self.temperature)
        return kl(log_q, log_mixture(log_q, log_p, self.alpha))
