"""Forward KL to the teacher's logits: the loss of L2PSD (arXiv 2505.18166), Hinton et al. 2015 (arXiv 1503.02531).

    L = T^2 * mean over positions of KL(softmax(z_teacher / T) || softmax(z_student / T))

T^2 keeps the size of the gradient when T changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from regraft.config.ranges import require
from regraft.interfaces import BEGINNING, Batch, Loss, LossNeed, LossValue, ModelOutputs, Moment, Positions, Reads


@dataclass(frozen=True, kw_only=True)
class KL(Loss):
    """Self-distillation: match the dense model's next-token distribution. Sees no label."""

    temperature: float = 1.0
    """Softens both distributions; Hinton's T, above 0."""
    reads: Reads = "choices"
    """Text of a batch: `choices`, the question with every choice; `question`, alone; `drawn_choice`, with one drawn
    by seed and question."""
    positions: Positions = "answer"
    """`answer`: positions that predict a token of a packed choice; the one that all choices share counts once.
    `all`: the question's positions too."""

    def __post_init__(self) -> None:
        require(0 < self.temperature < math.inf, "temperature", self.temperature, "a finite number above 0")

    @property
    def needs(self) -> frozenset[LossNeed]:
        return frozenset({"teacher_logits"})

    def __call__(
        self, batch: Batch, student: ModelOutputs, teacher: ModelOutputs | None, moment: Moment = BEGINNING
    ) -> LossValue:
        from regraft.distillation.losses.divergence import forward_kl
        from regraft.distillation.vocabulary import summed

        assert teacher is not None
        total = summed(student, lambda z, part: forward_kl(z, teacher.logits_at(part), self.temperature))
        return LossValue(total=self.temperature**2 * total, count=len(batch.read))
