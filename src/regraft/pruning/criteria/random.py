"""No criterion: the baseline without which no other can be judged.

s_j ~ U(0, 1), drawn by the run's seed for every unit of the dense model

A unit keeps its draw while others go. So with one seed, what is removed at a low sparsity is removed at a higher one
too, and a schedule of many steps removes the same units as one shot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regraft.interfaces import Criterion, LanguageModel, PruningContext, Structure
from regraft.pruning import numbering

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Random(Criterion):
    """Units drawn at random go first."""

    uses_seed = True

    def scores(self, model: LanguageModel, structure: Structure, context: PruningContext) -> list[torch.Tensor]:
        import torch

        groups = structure.groups(model.model)
        lost = numbering.removed(model, structure.name, groups)
        at = dict(zip(numbering.places(model, groups), range(len(groups)), strict=True))
        scores = []
        for place in range(numbering.dense_number(model, groups)):
            # a layer that is gone is taken to have been as wide as the first, so that the others keep their draws
            number = at.get(place, place % numbering.groups_a_layer(groups))
            there = torch.ones(groups[number].units + len(lost[number]), dtype=torch.bool)
            there[list(lost[number])] = False
            draws = torch.rand(len(there), generator=context.generator)
            if place in at:
                scores.append(draws[there])
        return scores
