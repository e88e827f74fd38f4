"""No criterion: the baseline without which no other can be judged.

s_j ~ U(0, 1), drawn by the run's seed for every unit of the dense model

A unit keeps its draw while others go. So with one seed, what is removed at a low sparsity is removed at a higher one
too, and a schedule of many steps removes the same units as one shot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regraft.interfaces import Criterion, LanguageModel, PruningContext, Structure

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Random(Criterion):
    """Units drawn at random go first."""

    uses_seed = True

    def scores(self, model: LanguageModel, structure: Structure, context: PruningContext) -> list[torch.Tensor]:
        import torch

        units = structure.units(model.model)
        removed = model.removed.get(structure.name, ((),) * len(units))
        scores = []
        for left, gone in zip(units, removed, strict=True):
            there = torch.ones(left + len(gone), dtype=torch.bool)
            there[list(gone)] = False
            scores.append(torch.rand(len(there), generator=context.generator)[there])
        return scores
