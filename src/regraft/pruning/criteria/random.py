"""No criterion: the baseline without which no other can be judged.

s_j ~ U(0, 1), drawn anew by the run's seed
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

        return [torch.rand(units, generator=context.generator) for units in structure.units(model.model)]
