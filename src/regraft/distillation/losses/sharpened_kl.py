"""KL to a teacher that alone is sharpened: the soft loss of SDMPrune (arXiv 2506.11120, as its code has it).

    L = mean over positions of KL(softmax(z_teacher / T) || softmax(z_student))

Its gradient is zero at z_student = z_teacher only if T = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from regraft.config.ranges import require
from regraft.interfaces import BEGINNING, Batch, Loss, LossNeed, LossValue, ModelOutputs, Moment, Positions, Reads


@dataclass(frozen=True, kw_only=True)
class SharpenedKL(Loss):
    """Match the dense model's next-token distribution, made sharper (T below 1) or softer. Sees no label."""

    temperature: float = 0.2
    """Of the teacher, above 0. SDMPrune's runs have 0.2 to 0.5."""
    reads: Reads = "choices"
    """Text of a batch: as for `KL`."""
    positions: Positions = "answer"
    """Positions that are read: as for `KL`."""

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
        total = summed(student, lambda z, part: forward_kl(z, teacher.logits_at(part).float() / self.temperature))
        return LossValue(total=total, count=len(batch.read))
