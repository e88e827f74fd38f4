"""What losses share that compare two next-token distributions at each position on its own.

    L = T^a * mean over positions of D(softmax(z_teacher / T), softmax(z_student / T))

The gradient of softmax(z / T) brings a factor 1 / T, and where D is of second order in the difference of the two,
which shrinks as 1 / T as well, another one: T^2 keeps the size of the gradient when T changes (Hinton et al. 2015).
Where D is of first order, T does.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from regraft.config.ranges import require
from regraft.interfaces import BEGINNING, Batch, Loss, LossNeed, LossValue, ModelOutputs, Moment, Positions, Reads

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class NextToken(Loss):
    """A distance between the next-token distributions of student and teacher. Sees no label."""

    order: ClassVar[int] = 2
    """a, the power of T that keeps the gradient level."""

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

    @property
    def rests(self) -> bool:
        return True

    @abstractmethod
    def between(self, student: torch.Tensor, teacher: torch.Tensor, moment: Moment) -> torch.Tensor:
        """(n,): the distance at each position.

        Args:
            student: (n, vocab) logits in float32, with graph.
            teacher: (n, vocab) logits of any dtype, without; -inf where a token is impossible.
            moment: When in the training.
        """

    def __call__(
        self, batch: Batch, student: ModelOutputs, teacher: ModelOutputs | None, moment: Moment = BEGINNING
    ) -> LossValue:
        from regraft.distillation.vocabulary import summed

        assert teacher is not None
        total = summed(student, lambda z, part: self.between(z, teacher.logits_at(part), moment))
        return LossValue(total=self.temperature**self.order * total, count=len(batch.read))
