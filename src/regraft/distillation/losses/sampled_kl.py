"""Forward KL estimated from tokens that the teacher draws: random sampling KD (arXiv 2503.16870).

    L = T^2 * mean over positions of  sum_i w_i (log p_{v_i} - log q_{v_i}),   v_1 .. v_N drawn from r,
    w_i = p_{v_i} / (N r_{v_i}),   r_v proportional to p_v^t,
    p = softmax(z_teacher / T),   q = softmax(z_student / T)

Its mean over draws is KL(p || q), and that of its gradient, (sum_i w_i) q - sum_i w_i e_{v_i}, is q - p: nothing is
lost but what averages out, whereas the top k are biased. The paper divides the weights by their sum, which is the same
at t = 1; otherwise it trades a bias for less noise, and is not done here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from regraft.config.ranges import require
from regraft.distillation.losses.next_token import NextToken
from regraft.interfaces import Moment

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class SampledKL(NextToken):
    """Match the teacher's next-token distribution at a few tokens that it draws anew at each step."""

    uses_seed: ClassVar[bool] = True

    samples: int = 50
    """Tokens that are drawn at each position, with replacement: N."""
    exponent: float = 1.0
    """t: 1 draws from the teacher's distribution, less draws rare tokens more often."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.samples >= 1, "samples", self.samples, "at least 1")
        require(0 < self.exponent < math.inf, "exponent", self.exponent, "a finite number above 0")

    def between(self, student: torch.Tensor, teacher: torch.Tensor, moment: Moment) -> torch.Tensor:
        import torch

        from regraft.distillation.losses.divergence import log_probabilities

        log_p, log_q = log_probabilities(teacher, self.temperature), log_probabilities(student, self.temperature)
        log_r = torch.log_softmax(self.exponent * log_p, dim=1)
        # in float64, so that no draw falls beyond the last token that is possible
        below = log_r.double().exp().cumsum(dim=1)
        drawn = torch.rand(len(log_p), self.samples, generator=moment.drawing, dtype=torch.float64)
        tokens = torch.searchsorted(below, drawn.to(below.device) * below[:, -1:], right=True)
        log_p, log_q, log_r = (each.gather(1, tokens) for each in (log_p, log_q, log_r))
        return ((log_p - log_r).exp() * (log_p - log_q)).mean(dim=1)
