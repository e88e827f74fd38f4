"""Language modelling: the likelihood of a text as it stands.

    L = - mean over t of log p_student(token_t | tokens before t)

over the tokens of the packed choices, and with `positions=all` over those of the question but its first. Which texts
they are, the batches say: of texts that a teacher wrote this is sequence-level distillation (Kim and Rush 2016, arXiv
1606.07947), with `reads=choices`, since a written text is a question with one choice.
"""

from __future__ import annotations

from dataclasses import dataclass

from regraft.config.ranges import require
from regraft.interfaces import BEGINNING, Batch, Loss, LossNeed, LossValue, ModelOutputs, Moment, Positions, Reads


@dataclass(frozen=True, kw_only=True)
class LanguageModelling(Loss):
    """Negative log-likelihood of every token that is packed. Knows of no answer: neither labels nor a teacher."""

    reads: Reads = "question"
    """Text of a batch. `question`: the question alone, so that of the task's questions no wrong choice is learned;
    `choices`: with each choice, and `drawn_choice`: with one drawn, for batches whose choices are worth learning."""
    positions: Positions = "all"
    """`all`: the question's tokens count. `answer`: those of the packed choices alone."""

    def __post_init__(self) -> None:
        require(self.reads != "gold", "reads", self.reads, "question, choices or drawn_choice", "For gold choose ce.")
        something = self.reads != "question" or self.positions == "all"
        require(something, "positions", self.positions, "all with reads=question, where nothing else is said")

    @property
    def needs(self) -> frozenset[LossNeed]:
        return frozenset()

    def __call__(
        self, batch: Batch, student: ModelOutputs, teacher: ModelOutputs | None, moment: Moment = BEGINNING
    ) -> LossValue:
        import torch
        from torch.nn.functional import cross_entropy

        from regraft.distillation.vocabulary import summed

        reads = torch.cat([batch.token_read, batch.context_read])
        targets = torch.cat([batch.token_id, batch.context_token])
        total = summed(student, lambda z, part: cross_entropy(z, targets[part], reduction="none"), reads)
        return LossValue(total=total, count=len(targets))
