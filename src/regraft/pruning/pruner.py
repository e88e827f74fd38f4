"""A pruner: criterion x structure x allocation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from regraft.interfaces import (
    Allocation,
    Component,
    Criterion,
    LanguageModel,
    PruningContext,
    PruningNeed,
    Scored,
    Structure,
)
from regraft.pruning.in_turn import in_turn

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Pruner(Component):
    """What is removed, by which score, and how much where."""

    criterion: Criterion
    """Scores the units."""
    structure: Structure
    """What goes together."""
    allocation: Allocation
    """How many each group of units loses."""

    @property
    def needs(self) -> frozenset[PruningNeed]:
        """What scoring and sharing out ask of the context."""
        return self.criterion.needs | self.allocation.needs

    @property
    def uses_seed(self) -> bool:
        """Whether the run's seed moves what is removed."""
        return self.criterion.uses_seed or self.allocation.uses_seed

    def left(self, model: LanguageModel) -> dict[str, list[int]]:
        """Name of the structure -> how many units of each group are there."""
        return {self.structure.name: self.structure.left(model)}

    def prune(
        self, model: LanguageModel, dense: Mapping[str, Sequence[int]], sparsity: float, context: PruningContext
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Remove units of `model`, in place, until `sparsity` of `dense` are gone.

        Args:
            model: The model, which may have lost units before.
            dense: What `left` says of the dense model.
            sparsity: Share of the dense model's units that shall be gone in the end.
            context: What the criterion and the allocation may use.

        Returns:
            For each group the scores of the units that were there, (units,) float, and which of them are kept, bool.

        Raises:
            ConfigError: A group would lose all its units.
            ValueError: A score is not finite.
        """
        scores = () if self.in_turn else self.scores(model, self.structure, context)
        dense_units = dense[self.structure.name]
        scored = Scored(model=model, structure=self.structure, scores=scores, dense_units=dense_units, context=context)
        losses = self.allocation.losses(scored, sparsity)
        left = [units - lost for units, lost in zip(dense_units, losses, strict=True)]
        if not self.in_turn:
            return self._take(model, self.structure, scores, left, context)
        layers = [group.layer for group in self.structure.groups(model.model)]
        taken = []
        for layer, seen in in_turn(model, context.calibration):
            if layer in layers:
                part = self.structure.of_layer(layer)
                within = replace(context, data=seen, measured={})
                chosen = [units for units, of in zip(left, layers, strict=True) if of == layer]
                taken += self._take(model, part, self.scores(model, part, within), chosen, within)
        return taken

    @property
    def in_turn(self) -> bool:
        """Whether one decoder layer is scored and pruned after the other."""
        return self.criterion.in_turn and self.structure.by_layer

    def _take(
        self,
        model: LanguageModel,
        structure: Structure,
        scores: Sequence[torch.Tensor],
        left: Sequence[int],
        context: PruningContext,
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Leave `left` units of each group of `structure`."""
        groups = structure.groups(model.model)
        keep = [structure.select(*each) for each in zip(groups, scores, left, strict=True)]
        keep = self.criterion.adjust(model, structure, keep, context)
        structure.remove(model, keep)
        return list(zip(scores, keep, strict=True))

    def scores(self, model: LanguageModel, structure: Structure, context: PruningContext) -> list[torch.Tensor]:
        """(units,) float of each group of `structure`; of units that are gone already minus infinity.

        Raises:
            ValueError: A score is not finite.
        """
        scores = self.criterion.scores(model, structure, context)
        for group, score in zip(structure.groups(model.model), scores, strict=True):
            if not score.isfinite().all():
                raise ValueError(
                    f"{type(self.criterion).__name__}: a score in {group.name} is not finite. Look for infinite or "
                    "NaN weights in the model, or choose another pruner/criterion."
                )
        there = structure.there(model)
        if there is None:
            return scores
        gone = float("-inf")
        return [score.masked_fill(~mask.to(score.device), gone) for score, mask in zip(scores, there, strict=True)]
