"""The smallest amount that brings a cost down to where it shall be.

Costs fall as more units go, in steps. So the amount is found by halving an interval at whose lower end the model still
costs too much and at whose upper end it does not.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from regraft.config.ranges import ConfigError, require
from regraft.interfaces import Budget, PruningContext, Removal

STEPS = 32
"""Halvings where a cost is a formula: far below the share of one unit."""


@dataclass(frozen=True, kw_only=True)
class Cost(Budget):
    """What the model costs: `sparsity` is the share of it that goes, unless `at_most` says what may be left."""

    halvings: ClassVar[int] = STEPS
    unit: ClassVar[str]
    """Of what is counted, in the plural."""

    at_most: float | None = None
    """What the pruned model may cost; then `sparsity` is the highest amount of units that may go for it, and 0 leaves
    the dense model. Null: what may be left is 1 - `sparsity` of what the dense model costs."""

    def __post_init__(self) -> None:
        require(self.at_most is None or self.at_most > 0, "at_most", self.at_most, "null or above 0")

    @abstractmethod
    def cost(self, removal: Removal, amount: float, context: PruningContext) -> float:
        """Of the model from which `amount` is gone.

        Raises:
            ConfigError: So much cannot go.
        """

    @abstractmethod
    def dense(self, context: PruningContext) -> float:
        """Of the dense model."""

    def amount(self, removal: Removal, sparsity: float, context: PruningContext) -> float:
        dense = self.dense(context)
        allowed = (1 - sparsity) * dense if self.at_most is None else self.at_most
        ceiling = removal.most if self.at_most is None else min(sparsity, removal.most)
        known: dict[float, float] = {}

        def cost(amount: float) -> float:
            if amount not in known:
                known[amount] = self.cost(removal, amount, context)
            return known[amount]

        highest = _highest(removal, ceiling)
        found = highest
        # a share that was meant as 0.3 of ten million must not fail by the last bit of a float
        fits = allowed * (1 + 1e-12)
        if cost(highest) <= fits:
            found = lowest(lambda amount: cost(amount) <= fits, highest, self.halvings)
        elif self.at_most is None or context.is_last:
            self._refuse(sparsity, cost(highest), dense)
        context.report(
            {
                "budget": {
                    "of": self.unit,
                    "dense": dense,
                    "allowed": allowed,
                    "reached": cost(found),
                    "amount": found,
                }
            }
        )
        return found

    def _refuse(self, sparsity: float, least: float, dense: float) -> None:
        if self.at_most is None:
            share = math.floor(1e4 * (1 - least / dense)) / 1e4
            raise ConfigError(
                f"sparsity={sparsity}: must be reachable with pruner.budget: of {_told(dense)} {self.unit} at least "
                f"{_told(least)} stay when the structure loses all that it may. Choose at most {share}, or prune "
                "another pruner/structure as well (pruner=combined)."
            )
        raise ConfigError(
            f"pruner.budget.at_most={_told(self.at_most)}: must be reachable: at sparsity={sparsity} {_told(least)} "
            f"{self.unit} are left of {_told(dense)}. Raise it to that, or raise sparsity."
        )


def _told(cost: float) -> str:
    """Rounded up, so that what is told is enough."""
    return f"{math.ceil(cost)}" if cost >= 1000 else f"{math.ceil(1000 * cost) / 1000:g}"


def lowest(fits: Callable[[float], bool], upper: float, halvings: int) -> float:
    """The lowest amount in [0, `upper`] at which `fits` holds, which it does at `upper`, to within the halvings."""
    if fits(0.0):
        return 0.0
    lower = 0.0
    for _ in range(halvings):
        middle = (lower + upper) / 2
        if fits(middle):
            upper = middle
        else:
            lower = middle
    return upper


def _highest(removal: Removal, ceiling: float) -> float:
    """The largest amount up to `ceiling` that may go."""

    def refused(amount: float) -> bool:
        try:
            removal.parameters(amount)
        except ConfigError:
            return True
        return False

    if not refused(ceiling):
        return ceiling
    lower, upper = 0.0, ceiling
    for _ in range(STEPS):
        middle = (lower + upper) / 2
        if refused(middle):
            upper = middle
        else:
            lower = middle
    return lower
