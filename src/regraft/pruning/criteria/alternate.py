"""Every other layer stays: how DistilBERT (Sanh et al. 2019, arXiv 1910.01108) takes its student from the teacher.

    of L layers n stay: the i-th of them, i = 0 .. n - 1, is layer round(i (L - 1) / (n - 1)), from 0

First and last among them; 12 layers leave 0, 2, 4, 7, 9, 11 for 6, as the paper's code has it. It looks at no weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from regraft.interfaces import Criterion, Kind, LanguageModel, PruningContext, Structure
from regraft.pruning.depth import LAYERS, layers_of, layers_to_go

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Alternate(Criterion):
    """Layers between evenly spread ones go. In a schedule of several steps those that are left are spread anew."""

    kinds: ClassVar[frozenset[Kind]] = LAYERS
    reads_sparsity = True

    def scores(self, model: LanguageModel, structure: Structure, context: PruningContext) -> list[torch.Tensor]:
        import torch

        layers = len(layers_of(model, structure))
        scores = torch.zeros(layers)
        scores[spread(layers, layers - layers_to_go(model, structure, context))] = 1.0
        return [scores]


def spread(layers: int, left: int) -> list[int]:
    """`left` numbers below `layers`, evenly spread from the first to the last; one alone is the first."""
    gaps = max(left - 1, 1)
    # halves are rounded up
    return [(2 * number * (layers - 1) + gaps) // (2 * gaps) for number in range(left)]
