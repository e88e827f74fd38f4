"""No recovery: the baseline that says what pruning alone costs."""

from __future__ import annotations

from dataclasses import dataclass

from regraft.interfaces import BEGINNING, Batch, Loss, LossNeed, LossValue, ModelOutputs, Moment, Positions, Reads


@dataclass(frozen=True, kw_only=True)
class NoRecovery(Loss):
    """The pruned model is measured as it is."""

    trains = False

    @property
    def needs(self) -> frozenset[LossNeed]:
        return frozenset()

    @property
    def reads(self) -> Reads:
        return "question"

    @property
    def positions(self) -> Positions:
        return "answer"

    def __call__(
        self, batch: Batch, student: ModelOutputs, teacher: ModelOutputs | None, moment: Moment = BEGINNING
    ) -> LossValue:
        raise AssertionError("the recover stage trains nothing with this loss")
