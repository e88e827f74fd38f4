"""Cross-entropy on labels: the loss of L2PFT (arXiv 2505.18166).

    L = - mean over t of log p_student(token_t | question, answer tokens before t)

over the tokens t of the right answer, and with `positions=all` over those of the question too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regraft.config.ranges import require
from regraft.interfaces import BEGINNING, Batch, Loss, LossNeed, LossValue, ModelOutputs, Moment, Positions, Reads

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(Loss):
    """Negative log-likelihood of the right answer's tokens."""

    positions: Positions = "answer"
    """`answer`: the answer's tokens count. `all`: the question's tokens count too."""
    reads: Reads = "gold"
    """Text of a batch. `gold`: the question with the right choice; `choices`: with all, and the right one counts."""

    def __post_init__(self) -> None:
        there = self.reads in ("gold", "choices")
        require(there, "reads", self.reads, "gold or choices", "The right answer must be in the text.")

    @property
    def needs(self) -> frozenset[LossNeed]:
        return frozenset({"labels"})

    def __call__(
        self, batch: Batch, student: ModelOutputs, teacher: ModelOutputs | None, moment: Moment = BEGINNING
    ) -> LossValue:
        assert batch.answer is not None
        return answer_nll(batch, student, batch.answer)


def answer_nll(batch: Batch, outputs: ModelOutputs, answer: torch.Tensor) -> LossValue:
    """Summed negative log-likelihood of the tokens of one choice a question, and of the question's if they are read.

    Args:
        batch: The batch, of which the choices in `answer` must be packed.
        outputs: The student's logits, (reads, vocab).
        answer: (batch,) long; the choice of each question that counts.
    """
    import torch
    from torch.nn.functional import cross_entropy

    from regraft.distillation.vocabulary import summed

    chosen = tokens_of(batch, answer)
    reads = torch.cat([batch.token_read[chosen], batch.context_read])
    targets = torch.cat([batch.token_id[chosen], batch.context_token])
    total = summed(outputs, lambda z, part: cross_entropy(z, targets[part], reduction="none"), reads)
    return LossValue(total=total, count=len(targets))


def tokens_of(batch: Batch, answer: torch.Tensor) -> torch.Tensor:
    """(tokens,) bool; whether each answer token belongs to the choice of its question in `answer`, (batch,) long."""
    counts = batch.option_choice == answer[batch.option_question]
    return counts[batch.token_option]
