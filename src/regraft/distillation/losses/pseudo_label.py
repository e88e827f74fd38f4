"""Cross-entropy on the teacher's own answer: no labels, and nothing soft.

    L = - mean over t of log p_student(token_t),   t in the tokens of the choice that the teacher scores highest

The control that separates "soft targets" from "no labels" when KL and cross-entropy differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from regraft.distillation.losses.cross_entropy import answer_nll
from regraft.interfaces import BEGINNING, Batch, Loss, LossNeed, LossValue, ModelOutputs, Moment, Positions, Reads


@dataclass(frozen=True, kw_only=True)
class PseudoLabel(Loss):
    """Negative log-likelihood of the tokens of the choice that the teacher prefers."""

    normalisation: Literal["sum", "character"] = "sum"
    """How the teacher's score of a choice is formed: the sum of its tokens' log-likelihoods, or that divided by its
    characters. Best the one by which the teacher is evaluated: `evaluation.normalisation`."""
    positions: Positions = "answer"
    """`answer`: the answer's tokens count. `all`: the question's tokens count too."""

    @property
    def reads(self) -> Reads:
        return "choices"

    @property
    def needs(self) -> frozenset[LossNeed]:
        return frozenset({"teacher_logits"})

    def __call__(
        self, batch: Batch, student: ModelOutputs, teacher: ModelOutputs | None, moment: Moment = BEGINNING
    ) -> LossValue:
        from regraft.distillation.choices import preferred

        assert teacher is not None
        return answer_nll(batch, student, preferred(teacher, batch, self.normalisation))
