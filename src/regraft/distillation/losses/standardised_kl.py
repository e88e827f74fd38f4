"""KL between standardised logits (Sun et al. 2024, arXiv 2403.01427).

    L = T^2 * mean over positions of KL(softmax(Z(z_teacher) / T) || softmax(Z(z_student) / T)),
    Z(z) = (z - mean(z)) / std(z),   mean and std over the vocabulary

The student may say the same with smaller or larger logits: only their order and relative distances are compared, so
that neither its likelihoods nor its calibration are asked to be the teacher's. The paper's std divides by the size of
the vocabulary, as here; its code by one less, and adds 1e-7. Tokens that are impossible (-inf) enter neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regraft.distillation.losses.next_token import NextToken
from regraft.interfaces import Moment

if TYPE_CHECKING:
    import torch

LEAST_VARIANCE = 1e-14
"""Keeps logits that are all equal from a division by 0: the square of the code's 1e-7."""


@dataclass(frozen=True, kw_only=True)
class StandardisedKL(NextToken):
    """Match the shape of the teacher's logits, not their size."""

    temperature: float = 2.0
    """T, of logits in units of their standard deviation, above 0. The paper's base temperature is 2."""

    def between(self, student: torch.Tensor, teacher: torch.Tensor, moment: Moment) -> torch.Tensor:
        from regraft.distillation.losses.divergence import forward_kl

        return forward_kl(_standardised(student), _standardised(teacher.float()), self.temperature)


def _standardised(logits: torch.Tensor) -> torch.Tensor:
    """(n, vocab) -> (n, vocab), of mean 0 and variance 1 over the tokens that are possible."""
    import torch

    possible = logits.isfinite()
    count = possible.sum(dim=1, keepdim=True)
    known = torch.where(possible, logits, 0.0)
    centred = torch.where(possible, logits - known.sum(dim=1, keepdim=True) / count, 0.0)
    variance = centred.square().sum(dim=1, keepdim=True) / count
    return torch.where(possible, centred / (variance + LEAST_VARIANCE).sqrt(), -torch.inf)
