"""A pruner: criterion x structure x allocation, under a budget."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from regraft.interfaces import (
    Allocation,
    Budget,
    Component,
    Criterion,
    Group,
    LanguageModel,
    PruningContext,
    PruningNeed,
    Removal,
    Scored,
    Structure,
)
from regraft.pruning import numbering
from regraft.pruning.budgets.units import Units
from regraft.pruning.in_turn import in_turn
from regraft.pruning.shapes import Shapes

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class PrunedGroup:
    """What a pruner saw of a group, and did."""

    structure: str
    number: int
    """Of the group, among those of the dense model."""
    scores: torch.Tensor
    """(units,) float of the units that were there; minus infinity where one was masked."""
    keep: torch.Tensor
    """(units,) bool; which of them are kept."""


class Pruning(Component, ABC):
    """Takes units out of a model."""

    budget: Budget

    @property
    @abstractmethod
    def pruners(self) -> tuple[Pruner, ...]:
        """One for each structure."""

    @property
    def structures(self) -> tuple[Structure, ...]:
        """What is removed, in this order."""
        return tuple(pruner.structure for pruner in self.pruners)

    @property
    def needs(self) -> frozenset[PruningNeed]:
        """What scoring and sharing out ask of the context."""
        return frozenset().union(*(pruner.criterion.needs | pruner.allocation.needs for pruner in self.pruners))

    @property
    def uses_seed(self) -> bool:
        """Whether the run's seed moves what is removed."""
        return any(pruner.criterion.uses_seed or pruner.allocation.uses_seed for pruner in self.pruners)

    def left(self, model: LanguageModel) -> dict[str, list[int]]:
        """Name of each structure -> how many units of each of the dense model's groups are there."""
        found = {}
        for pruner in self.pruners:
            groups = pruner.structure.groups(model.model)
            there = [0] * numbering.dense_number(model, groups)
            for place, units in zip(numbering.places(model, groups), pruner.structure.left(model), strict=True):
                there[place] = units
            found[pruner.structure.name] = there
        return found

    @abstractmethod
    def prune(
        self, model: LanguageModel, dense: Mapping[str, Sequence[int]], sparsity: float, context: PruningContext
    ) -> list[PrunedGroup]:
        """Remove units of `model`, in place, until `sparsity` of what the budget counts are gone.

        Args:
            model: The model, which may have lost units before.
            dense: What `left` says of the dense model.
            sparsity: Share of the dense model's units, or of what the budget counts, that shall be gone in the end.
            context: What criteria, allocations and budgets may use.

        Returns:
            For each group that was there its scores, and which of its units are kept.

        Raises:
            ConfigError: A group would lose all its units, or the budget cannot be met.
            ValueError: A score is not finite.
        """


@dataclass(frozen=True, kw_only=True)
class Pruner(Pruning):
    """What is removed, by which score, and how much where."""

    criterion: Criterion
    """Scores the units."""
    structure: Structure
    """What goes together."""
    allocation: Allocation
    """How many each group of units loses."""
    budget: Budget = field(default_factory=Units)
    """Of what the sparsity is the share: of the units, or of what the model costs."""

    shuffled: bool = False
    """The control of Frankle et al. 2021 (arXiv 2009.08576): each group loses as many units as it would, but drawn by
    the run's seed. What such a run loses against one that is not shuffled is what the choice of units is worth, apart
    from how many go where."""

    @property
    def pruners(self) -> tuple[Pruner, ...]:
        return (self,)

    @property
    def uses_seed(self) -> bool:
        return self.shuffled or super().uses_seed

    def prune(
        self, model: LanguageModel, dense: Mapping[str, Sequence[int]], sparsity: float, context: PruningContext
    ) -> list[PrunedGroup]:
        if self.in_turn:
            return self._prune_in_turn(model, dense[self.structure.name], sparsity, context)
        found = self.scored(model, dense, context)
        return found.carry_out(self.budget.amount(found, sparsity, context))

    @property
    def in_turn(self) -> bool:
        """Whether one decoder layer is scored and pruned after the other."""
        return self.criterion.in_turn and self.structure.by_layer

    def scored(self, model: LanguageModel, dense: Mapping[str, Sequence[int]], context: PruningContext) -> Found:
        """The units of `model` with their scores, from which none is gone yet.

        Raises:
            ValueError: A score is not finite.
        """
        return Found(self, model, dense[self.structure.name], self._scores(model, context), context)

    def _prune_in_turn(
        self, model: LanguageModel, dense: Sequence[int], sparsity: float, context: PruningContext
    ) -> list[PrunedGroup]:
        groups = self.structure.groups(model.model)
        # how much goes is known before anything is scored: such allocations and budgets only are let through
        losses = Found(self, model, dense, (), context).losses(sparsity)
        pruned: list[PrunedGroup] = []
        for layer, seen in in_turn(model, context.calibration):
            numbers = [number for number, group in enumerate(groups) if group.layer == layer]
            if not numbers:
                continue
            part = replace(self, structure=self.structure.of_layer(layer))
            within = replace(context, data=seen, measured={})
            found = Found(part, model, [dense[number] for number in numbers], part._scores(model, within), within)
            taken = found.take(found.choose([losses[number] for number in numbers]))
            pruned += [replace(group, number=number) for group, number in zip(taken, numbers, strict=True)]
        return pruned

    def _scores(self, model: LanguageModel, context: PruningContext) -> list[torch.Tensor]:
        """(units,) float of each group; of units that are gone already minus infinity."""
        scores = self.criterion.scores(model, self.structure, context)
        for group, score in zip(self.structure.groups(model.model), scores, strict=True):
            if not score.isfinite().all():
                raise ValueError(
                    f"{type(self.criterion).__name__}: a score in {group.name} is not finite. Look for infinite or "
                    "NaN weights in the model, or choose another pruner/criterion."
                )
        there = self.structure.there(model)
        if there is None:
            return scores
        gone = float("-inf")
        return [score.masked_fill(~mask.to(score.device), gone) for score, mask in zip(scores, there, strict=True)]


class Found(Removal):
    """The units of one structure with their scores.

    Args:
        pruner: Which found them.
        model: In which they are.
        dense: Units of each group of the dense model.
        scores: (units,) for each group that is there.
        context: Of the pruning.
    """

    most = 1.0

    def __init__(
        self,
        pruner: Pruner,
        model: LanguageModel,
        dense: Sequence[int],
        scores: Sequence[torch.Tensor],
        context: PruningContext,
    ) -> None:
        self.pruner, self.model, self.context = pruner, model, context
        self.name = pruner.structure.name
        self.groups: list[Group] = pruner.structure.groups(model.model)
        self.dense = [dense[place] for place in numbering.places(model, self.groups)]
        self.scored = Scored(
            model=model, structure=pruner.structure, scores=scores, dense_units=self.dense, context=context
        )
        self._deciding = [shuffled(score, context) for score in scores] if pruner.shuffled else scores

    def keep(self, share: float) -> list[torch.Tensor]:
        """(units,) bool for each group, when `share` of the dense units is gone.

        Raises:
            ConfigError: A group would lose more than it may.
        """
        return self.choose(self.losses(share))

    def losses(self, share: float) -> list[int]:
        """How many of its dense units each group has lost, when `share` of all is gone.

        Raises:
            ConfigError: A group would lose more than it may.
        """
        return self.pruner.allocation.losses(self.scored, share)

    def choose(self, losses: Sequence[int]) -> list[torch.Tensor]:
        """(units,) bool for each group, which of its units stay when so many of the dense ones are gone."""
        return [
            self.pruner.structure.select(group, score, units - lost)
            for group, score, units, lost in zip(self.groups, self._deciding, self.dense, losses, strict=True)
        ]

    @cached_property
    def _whole(self) -> Shapes:
        return Shapes(self.model)

    def shapes(self, share: float) -> Shapes:
        """What would be left."""
        shapes, keep = self._whole.copy(), self.keep(share)
        shapes.take(self.groups, keep)
        shapes.give_biases(self.pruner.criterion.biased(self.groups, keep))
        return shapes

    def parameters(self, amount: float) -> int:
        return self.shapes(amount).parameters()

    def macs(self, amount: float, context: int) -> int:
        return self.shapes(amount).macs(context)

    def candidate(self, amount: float) -> LanguageModel:
        smaller = duplicate(self.model)
        cut(smaller, self.pruner, self.pruner.structure.groups(smaller.model), self.keep(amount))
        return smaller

    def carry_out(self, share: float) -> list[PrunedGroup]:
        """Remove so many, and say what was kept of each group."""
        return self.take(self.keep(share))

    def take(self, keep: list[torch.Tensor]) -> list[PrunedGroup]:
        """Remove the units that are not of `keep`."""
        structure = self.pruner.structure
        keep = self.pruner.criterion.adjust(self.model, structure, keep, self.context)
        places = numbering.places(self.model, self.groups)
        structure.remove(self.model, keep)
        return [
            PrunedGroup(structure=structure.name, number=place, scores=score, keep=kept)
            for place, score, kept in zip(places, self.scored.scores, keep, strict=True)
        ]


def shuffled(scores: torch.Tensor, context: PruningContext) -> torch.Tensor:
    """The scores of a group, shuffled among the units that are there."""
    import torch

    there = scores.isfinite().nonzero().flatten()
    moved = there[torch.randperm(len(there), generator=context.generator).to(there.device)]
    return scores.index_copy(0, there, scores[moved])


def cut(model: LanguageModel, pruner: Pruner, groups: Sequence[Group], keep: list[torch.Tensor]) -> None:
    """Remove units of a model that is only to be weighed: with zeros for biases that would make up for them."""
    from regraft.models.surgery import give_biases

    give_biases(model.model, pruner.criterion.biased(groups, keep))
    pruner.structure.remove(model, keep)


def duplicate(model: LanguageModel) -> LanguageModel:
    """A copy whose weights may be changed."""
    return LanguageModel(
        model=copy.deepcopy(model.model),
        tokenizer=model.tokenizer,
        removed=dict(model.removed),
        masks=dict(model.masks),
    )
