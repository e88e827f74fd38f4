"""A weighted sum of losses on one batch, such as Hinton's soft and hard targets.

L = sum over i of w_i * L_i,   each L_i the mean over what counts in it, each w_i a number or a course over the recovery
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from regraft.config.ranges import ConfigError, require
from regraft.distillation.weight_schedule import WeightSchedule
from regraft.interfaces import BEGINNING, Batch, Loss, LossNeed, LossValue, ModelOutputs, Moment, Positions, Reads

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class WeightedSum(Loss):
    """Several losses on the same text. Each is divided by its own count, so weights compare means.

    With `recovery.accumulation` above 1 that is the count of a part: the parts' means are averaged by their questions.
    """

    terms: Mapping[str, Loss]
    """The losses by name; all must read the same text and positions."""
    weights: Mapping[str, float | WeightSchedule] = field(default_factory=dict)
    """Weight of each loss, a number of at least 0 or a schedule; a loss that is not named weighs 1."""

    def __post_init__(self) -> None:
        require(len(self.terms) > 0, "terms", dict(self.terms), "at least one loss")
        for name, weight in self.weights.items():
            require(name in self.terms, "weights", name, f"a name of a term ({', '.join(self.terms)})")
            if not isinstance(weight, WeightSchedule):
                require(0 <= weight < math.inf, f"weights.{name}", weight, "a finite number of at least 0")
        require(bool(self._weighing), "weights", dict(self.weights), "above 0 for one term at least")
        for key in ("reads", "positions"):
            values = {name: getattr(loss, key) for name, loss in self.terms.items()}
            if len(set(values.values())) > 1:
                told = ", ".join(f"terms.{name}.{key}={value}" for name, value in values.items())
                raise ConfigError(f"terms: all must share one value of {key}, but {told}. Set them alike.")

    @property
    def needs(self) -> frozenset[LossNeed]:
        return frozenset().union(*(loss.needs for loss in self.terms.values()))

    @property
    def asks_teacher(self) -> frozenset[LossNeed]:
        return frozenset().union(*(loss.asks_teacher for loss in self.terms.values()))

    @property
    def compares_questions(self) -> int:
        return max(loss.compares_questions for loss in self.terms.values())

    @property
    def ends_with_question(self) -> bool:
        return all(loss.ends_with_question for loss in self.terms.values())

    @property
    def rests(self) -> bool:
        return all(loss.rests for loss in self._weighing)

    @property
    def learning(self) -> bool:
        return any(loss.learning for loss in self.terms.values())

    @property
    def same_width(self) -> bool:
        return any(loss.same_width for loss in self.terms.values())

    @property
    def reads(self) -> Reads:
        return next(iter(self.terms.values())).reads

    @property
    def positions(self) -> Positions:
        return next(iter(self.terms.values())).positions

    def __call__(
        self, batch: Batch, student: ModelOutputs, teacher: ModelOutputs | None, moment: Moment = BEGINNING
    ) -> LossValue:
        import torch

        learned = moment.learned
        assert learned is None or isinstance(learned, torch.nn.ModuleDict)
        means = []
        for name, loss in self.terms.items():
            own = learned[name] if learned is not None and name in learned else None
            value = loss(batch, student, teacher, replace(moment, learned=own))
            means.append(self._weight(name, moment) * value.total / value.count)
        return LossValue(total=torch.stack(means).sum() * len(batch.ids), count=len(batch.ids))

    def learns(self, student: ModelOutputs, teacher: ModelOutputs | None) -> nn.Module | None:
        from torch import nn

        made = {name: loss.learns(student, teacher) for name, loss in self.terms.items()}
        learned = {name: module for name, module in made.items() if module is not None}
        return nn.ModuleDict(learned) if learned else None

    @property
    def _weighing(self) -> list[Loss]:
        """The losses whose weight is not 0 throughout."""
        weights = {name: self.weights.get(name, 1.0) for name in self.terms}
        highest = {
            name: max(weight.start, weight.end) if isinstance(weight, WeightSchedule) else weight
            for name, weight in weights.items()
        }
        return [loss for name, loss in self.terms.items() if highest[name] > 0]

    def _weight(self, name: str, moment: Moment) -> float:
        weight = self.weights.get(name, 1.0)
        return weight.at(moment.share) if isinstance(weight, WeightSchedule) else weight
