"""Weights by what they are fed: Wanda (Sun et al. 2023, arXiv 2306.11695).

s_j = sum over columns c of j, over outputs i, of |W[i, c]| ||x_c||_2

for units whose channels the columns c of a linear map take up ("Wanda-sp" of An et al. 2023, arXiv 2312.11983), with
||x_c||_2 over all tokens of the calibration questions; summed over the maps that read the unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from regraft.interfaces import Criterion, Kind, LanguageModel, PruningContext, PruningNeed, Structure
from regraft.pruning.activations import columns, input_statistics, of_units

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Wanda(Criterion):
    """Units whose outgoing weights are small where they are active go first."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"neurons", "heads", "hidden"})

    @property
    def needs(self) -> frozenset[PruningNeed]:
        return frozenset({"calibration"})

    def scores(self, model: LanguageModel, structure: Structure, context: PruningContext) -> list[torch.Tensor]:
        import torch

        groups = structure.groups(model.model)
        modules = [part.module for group in groups for part in group.readers]
        statistics = iter(input_statistics(model, context.calibration, modules))
        scores = []
        for group in groups:
            each = [
                torch.linalg.vector_norm(columns(part), ord=1, dim=2, dtype=torch.float64)
                * of_units(part, next(statistics).norm)
                for part in group.readers
            ]
            scores.append(torch.stack([reader.sum(dim=1) for reader in each]).sum(dim=0))
        return scores
