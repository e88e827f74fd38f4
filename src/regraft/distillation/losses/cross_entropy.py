"""Cross-entropy on labels: the loss of L2PFT (arXiv 2505.18166).

    L = - mean over t of log p_student(token_t | question, answer tokens before t)

over the tokens t of the right answer, and with `positions=all` over those of the question too. With label smoothing e
(Szegedy et al. 2016, arXiv 1512.00567) each term is

    (1 - e) * -log p_student(token_t) + e * mean over the vocabulary of -log p_student(v)
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

    label_smoothing: float = 0.0
    """e, the share of the target that is spread over the whole vocabulary, in [0, 1]; 0 is plain cross-entropy."""

    def __post_init__(self) -> None:
        require(0 <= self.label_smoothing <= 1, "label_smoothing", self.label_smoothing, "in [0, 1]")
        there = self.reads in ("gold", "choices")
        require(there, "reads", self.reads, "gold or choices", "The right answer must be in the text.")

    @property
    def needs(self) -> frozenset[LossNeed]:
        return frozenset({"labels"})

    def __call__(
        self, batch: Batch, student: ModelOutputs, teacher: ModelOutputs | None, moment: Moment = BEGINNING
    ) -> LossValue:
        assert batch.answer is not None
        return answer_nll(batch, student, batch.answer, self.label_smoothing)


def answer_nll(batch: Batch, outputs: ModelOutputs, answer: torch.Tensor, label_smoothing: float = 0.0) -> LossValue:
    """Summed negative log-likelihood of the tokens of one choice a question, and of the question's if they are read.

    Args:
        batch: The batch, of which the choices in `answer` must be packed.
        outputs: The student's logits, (reads, vocab).
        answer: (batch,) long; the choice of each question that counts.
        label_smoothing: Share of the target that is spread over the vocabulary.
    """
    import torch
    from torch.nn.functional import cross_entropy

    from regraft.distillation.vocabulary import summed

    chosen = tokens_of(batch, answer)
    reads = torch.cat([batch.token_read[chosen], batch.context_read])
    targets = torch.cat([batch.token_id[chosen], batch.context_token])

    def nll(z: torch.Tensor, part: slice) -> torch.Tensor:
        return cross_entropy(z, targets[part], reduction="none", label_smoothing=label_smoothing)

    total = summed(outputs, nll, reads)
    return LossValue(total=total, count=len(targets))


def tokens_of(batch: Batch, answer: torch.Tensor) -> torch.Tensor:
    """(tokens,) bool; whether each answer token belongs to the choice of its question in `answer`, (batch,) long."""
    counts = batch.option_choice == answer[batch.option_question]
    return counts[batch.token_option]
