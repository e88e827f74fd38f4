"""Forward KL to the teacher's logits: the loss of L2PSD (arXiv 2505.18166), Hinton et al. 2015 (arXiv 1503.02531).

    L = T^2 * mean over positions of KL(softmax(z_teacher / T) || softmax(z_student / T))

T^2 keeps the size of the gradient when T changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regraft.distillation.losses.next_token import NextToken
from regraft.interfaces import Moment

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class KL(NextToken):
    """Self-distillation: match the dense model's next-token distribution. Sees no label."""

    def between(self, student: torch.Tensor, teacher: torch.Tensor, moment: Moment) -> torch.Tensor:
        from regraft.distillation.losses.divergence import forward_kl

        return forward_kl(student, teacher, self.temperature)
