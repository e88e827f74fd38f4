"""A pruner: criterion x structure x allocation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regraft.interfaces import Allocation, Component, Criterion, LanguageModel, PruningContext, Structure

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
    """How many each layer loses."""

    def prune(
        self, model: LanguageModel, dense_units: Sequence[int], sparsity: float, context: PruningContext
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Remove units of `model`, in place, until `sparsity` of `dense_units` are gone.

        Args:
            model: The model, which may have lost units before.
            dense_units: Units of each layer of the dense model.
            sparsity: Share of the dense model's units that shall be gone in the end.
            context: What the criterion may use.

        Returns:
            For each layer the scores of the units that were there, and which of them are kept, sorted.

        Raises:
            ConfigError: A layer would lose all its units.
            ValueError: A score is not finite.
        """
        scores = self.criterion.scores(model, self.structure, context)
        for layer, score in enumerate(scores):
            if not score.isfinite().all():
                raise ValueError(
                    f"{type(self.criterion).__name__}: a score in layer {layer} is not finite. Look for infinite or "
                    "NaN weights in the model, or choose another pruner/criterion."
                )
        keep = self.allocation.keep(scores, dense_units, sparsity)
        gone = model.removed.get(self.structure.name, ((),) * len(dense_units))
        removed = []
        for dense, before, kept in zip(dense_units, gone, keep, strict=True):
            left = sorted(set(range(dense)) - set(before))
            remain = {left[index] for index in kept.tolist()}
            removed.append(tuple(unit for unit in range(dense) if unit not in remain))
        self.structure.remove(model.model, keep)
        model.removed[self.structure.name] = tuple(removed)
        return list(zip(scores, keep, strict=True))
