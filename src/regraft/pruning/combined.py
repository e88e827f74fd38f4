"""Several structures under one budget: depth and width together.

Part i with weight w_i loses the share

    s_i = min(most_i, lambda * w_i)

of its dense units. lambda is the one number that is left to choose: the smallest at which the budget holds, found by
halving on the count of what would be left. Counts fall as lambda grows.

Depth goes first, since what is left of the width is to be scored in the model that keeps it; the other parts follow as
they are named. Before each part lambda is found anew for it and those after it, with what is gone already counted as it
is: so what rounding and a part's own allocation left over is made up for by the parts after it, and the last part meets
the budget to within one of its units. Parts that are not yet scored are counted as if each group lost the same share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from regraft.config.ranges import require
from regraft.interfaces import (
    Allocation,
    Budget,
    Component,
    Criterion,
    Group,
    LanguageModel,
    PruningContext,
    Removal,
    Structure,
)
from regraft.pruning import numbering
from regraft.pruning.allocation.layerwise import removed
from regraft.pruning.budgets.parameters import Parameters
from regraft.pruning.pruner import Found, PrunedGroup, Pruner, Pruning, cut, duplicate
from regraft.pruning.shapes import Shapes

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Share(Component):
    """A structure, how its units are scored and shared out, and how much of the burden is its own."""

    criterion: Criterion
    """Scores the units."""
    structure: Structure
    """What goes together."""
    allocation: Allocation
    """How many each group of units loses."""
    weight: float = 1.0
    """How much of its units goes, beside the other parts: only the proportions count, but under a budget of units,
    where the sparsity is multiplied by it."""
    most: float = 0.9
    """The largest share of its units that may go, in (0, 1)."""

    def __post_init__(self) -> None:
        require(self.weight > 0, "weight", self.weight, "above 0")
        require(0 < self.most < 1, "most", self.most, "in (0, 1)")

    @property
    def pruner(self) -> Pruner:
        """The part by itself."""
        return Pruner(criterion=self.criterion, structure=self.structure, allocation=self.allocation)

    def of(self, amount: float) -> float:
        """The share of the units that goes, when `amount` is what all weights are multiplied by."""
        return min(self.most, amount * self.weight)


@dataclass(frozen=True, kw_only=True)
class Combined(Pruning):
    """Several structures, depth first, under one budget."""

    parts: dict[str, Share]
    """Name of each part -> what it is; the names are for people."""
    budget: Budget = field(default_factory=Parameters)
    """Of what the sparsity is the share."""

    def __post_init__(self) -> None:
        require(len(self.parts) > 0, "parts", dict(self.parts), "one part or more")
        names = [part.structure.name for part in self.parts.values()]
        require(len(set(names)) == len(names), "parts", names, "parts of different structures")
        kinds = [part.structure.kind for part in self.parts.values()]
        require(
            "weights" not in kinds,
            "parts",
            names,
            "structures that are cut: single weights are masked in matrices whose shapes the other parts change",
        )

    @property
    def pruners(self) -> tuple[Pruner, ...]:
        return tuple(part.pruner for part in self._ordered)

    @property
    def _ordered(self) -> list[Share]:
        return sorted(self.parts.values(), key=lambda part: part.structure.kind != "layers")

    def prune(
        self, model: LanguageModel, dense: Mapping[str, Sequence[int]], sparsity: float, context: PruningContext
    ) -> list[PrunedGroup]:
        pruned: list[PrunedGroup] = []
        ordered = self._ordered
        told: dict[str, dict[str, Any]] = {}
        for number, part in enumerate(ordered):
            own = told.setdefault(part.structure.name, {})
            # what criterion and allocation tell and keep is of this part; what the budget tells is of the whole
            within = replace(context, sparsity=part.of(sparsity), report=own.update, measured={})
            found = part.pruner.scored(model, dense, within)
            together = Together(part, found, ordered[number + 1 :], dense)
            pruned += found.carry_out(part.of(self.budget.amount(together, sparsity, context)))
        if any(told.values()):
            context.report({"parts": told})
        return pruned


class Together(Removal):
    """A part whose units are scored, and those that come after it.

    Args:
        part: The first.
        found: Its units.
        others: The parts after it.
        dense: Name of each structure -> units of each group of the dense model.
    """

    def __init__(self, part: Share, found: Found, others: Sequence[Share], dense: Mapping[str, Sequence[int]]) -> None:
        self.part, self.found, self.others, self.dense = part, found, others, dense
        self.name = found.name
        self._groups = [other.structure.groups(found.model.model) for other in others]
        self.most = max(one.most / one.weight for one in (part, *others))

    def shapes(self, amount: float) -> Shapes:
        """What would be left of the model."""
        shapes = self.found.shapes(self.part.of(amount))
        for other, groups in zip(self.others, self._groups, strict=True):
            keep = self._alike(other, self.found.model, groups, amount)
            shapes.take(groups, keep)
            shapes.give_biases(other.criterion.biased(groups, keep))
        return shapes

    def parameters(self, amount: float) -> int:
        return self.shapes(amount).parameters()

    def macs(self, amount: float, context: int) -> int:
        return self.shapes(amount).macs(context)

    def candidate(self, amount: float) -> LanguageModel:
        smaller = duplicate(self.found.model)
        own = self.part.structure.groups(smaller.model)
        cut(smaller, self.part.pruner, own, self.found.keep(self.part.of(amount)))
        for other in self.others:
            groups = other.structure.groups(smaller.model)
            cut(smaller, other.pruner, groups, self._alike(other, smaller, groups, amount))
        return smaller

    def _alike(self, part: Share, model: LanguageModel, groups: Sequence[Group], amount: float) -> list[torch.Tensor]:
        """(units,) bool for each group, of which all lose the same share; which of its units is no matter."""
        import torch

        keep = []
        for place, group in zip(numbering.places(model, groups), groups, strict=True):
            dense = self.dense[part.structure.name][place]
            left = max(dense - removed(dense, part.of(amount)), 1)
            keep.append(torch.arange(group.units) < left)
        return keep
