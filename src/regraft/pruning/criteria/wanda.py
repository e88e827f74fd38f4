"""Weights by what they are fed: Wanda (Sun et al. 2023, arXiv 2306.11695).

s_ij = |W[i, j]| ||x_j||_2                                                   of a single weight
s_u = sum over columns c of u, over outputs i, of |W[i, c]| ||x_c||_2        of a unit

A unit's columns are those of the linear maps that take its channels up ("Wanda-sp" of An et al. 2023, arXiv
2312.11983), summed over these maps; a head that is tied to the embedding is not among them. ||x_c||_2 is over all
tokens of the calibration questions. The paper compares single weights of one output
(`pruner.structure.compare=output`), layer by layer.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from regraft.interfaces import Criterion, Kind, LanguageModel, Part, PruningContext, PruningNeed, Structure
from regraft.pruning.activations import columns, input_statistics, of_units

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Wanda(Criterion):
    """Weights that are small for what they are fed go first, and units whose outgoing weights are."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"neurons", "heads", "hidden", "weights"})

    sequential: bool = True
    """Whether a layer's single weights are scored by what layers that are pruned already feed it, as in the paper; else
    by what the whole model does. Units are always scored by the whole model."""

    @property
    def needs(self) -> frozenset[PruningNeed]:
        return frozenset({"calibration"})

    @property
    def in_turn(self) -> bool:
        return self.sequential

    def scores(self, model: LanguageModel, structure: Structure, context: PruningContext) -> list[torch.Tensor]:
        import torch

        groups = structure.groups(model.model)
        modules = [part.module for group in groups for part in group.readers]
        statistics = iter(input_statistics(model, context.calibration, modules))
        return [
            functools.reduce(torch.add, [_of_map(part, next(statistics).norm) for part in group.readers])
            for group in groups
        ]


def _of_map(part: Part, norm: torch.Tensor) -> torch.Tensor:
    """(units,) of one linear map, which is fed (channels,) `norm`."""
    import torch

    weight = part.parameter.detach()
    if part.index is None:
        return (weight.movedim(part.dimension, 0).float().abs() * norm.float()).flatten()
    outgoing = torch.linalg.vector_norm(columns(part), ord=1, dim=2, dtype=torch.float64)
    return (outgoing * of_units(part, norm)).sum(dim=1)
