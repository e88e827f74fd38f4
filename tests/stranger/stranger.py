"""What somebody else's project may look like: three classes, three YAML files, no edit in regraft."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regraft.interfaces import (
    BEGINNING,
    Batch,
    Criterion,
    LabelledQuestion,
    LanguageModel,
    Loss,
    LossNeed,
    LossValue,
    ModelOutputs,
    Moment,
    Positions,
    PruningContext,
    Reads,
    Structure,
)
from regraft.tasks.base import MultipleChoice

if TYPE_CHECKING:
    import torch

    from regraft.cache import Cache


@dataclass(frozen=True, kw_only=True)
class FirstGo(Criterion):
    """The units of the lowest number go first."""

    def scores(self, model: LanguageModel, structure: Structure, context: PruningContext) -> list[torch.Tensor]:
        import torch

        return [torch.arange(float(units)) for units in structure.units(model.model)]


@dataclass(frozen=True, kw_only=True)
class Confidence(Loss):
    """Entropy of the student: it needs nobody."""

    positions: Positions = "answer"
    reads: Reads = "question"

    @property
    def needs(self) -> frozenset[LossNeed]:
        return frozenset()

    def __call__(
        self, batch: Batch, student: ModelOutputs, teacher: ModelOutputs | None, moment: Moment = BEGINNING
    ) -> LossValue:
        import torch

        log_p = torch.log_softmax(student.logits.float(), dim=-1)
        return LossValue(total=-(log_p.exp() * log_p).sum(), count=len(batch.read))


@dataclass(frozen=True, kw_only=True)
class Sums(MultipleChoice):
    """Sums of two digits."""

    name: str = "sums"

    def read(self, cache: Cache) -> tuple[Sequence[LabelledQuestion], Sequence[LabelledQuestion]]:
        questions = [
            LabelledQuestion(
                id=f"{one}+{other}",
                question=f"{one} + {other}?",
                choices=tuple(str(one + other + shift) for shift in range(3)),
                answer=0,
            )
            for one in range(10)
            for other in range(10)
        ]
        return questions[:80], questions[80:]
