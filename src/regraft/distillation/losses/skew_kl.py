"""Skewed KL of DistiLLM (Ko et al. 2024, arXiv 2402.03898, eq. 4).

    L = T^2 * mean over positions of KL(p || alpha p + (1 - alpha) q),
    p = softmax(z_teacher / T),   q = softmax(z_student / T)

At most -log(alpha), however wrong the student is, so that its gradient stays bounded. Its code leaves out the teacher's
entropy, which no gradient sees; here the value is the divergence. The code has no temperature.
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
class SkewKL(NextToken):
    """Forward KL to a mixture of the student with a little of the teacher."""

    alpha: float = 0.1
    """The teacher's share of the mixture, in [0, 1); 0 is forward KL."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.alpha < 1, "alpha", self.alpha, "in [0, 1)")

    def between(self, student: torch.Tensor, teacher: torch.Tensor, moment: Moment) -> torch.Tensor:
        from regraft.distillation.losses.divergence import forward_kl, kl, log_mixture, log_probabilities

        if self.alpha == 0:
            return forward_kl(student, teacher, self.temperature)
        log_p, log_q = log_probabilities(teacher, self.temperature), log_probabilities(student, self.temperature)
        return kl(log_p, log_mixture(log_p, log_q, self.alpha))
