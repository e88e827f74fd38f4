"""How much a layer turns the hidden states: the block influence of ShortGPT (Men et al. 2024, arXiv 2403.03853).

BI_l = 1 - E over tokens of cos(x_l, x_{l+1})

with x_l what enters layer l and x_{l+1} what leaves it, over all tokens of the calibration questions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from regraft.interfaces import Batch, Criterion, Kind, LanguageModel, PruningContext, PruningNeed, Structure
from regraft.pruning.activations import tokens
from regraft.pruning.depth import LAYERS, layers_of, watch_layers

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class BlockInfluence(Criterion):
    """Layers that hardly turn what passes through them go first."""

    kinds: ClassVar[frozenset[Kind]] = LAYERS

    @property
    def needs(self) -> frozenset[PruningNeed]:
        return frozenset({"calibration"})

    def scores(self, model: LanguageModel, structure: Structure, context: PruningContext) -> list[torch.Tensor]:
        import torch

        layers = layers_of(model, structure)
        sums = torch.zeros(len(layers), dtype=torch.float64, device=model.model.device)
        counts = torch.zeros_like(sums)

        def see(layer: int, before: torch.Tensor, after: torch.Tensor, batch: Batch) -> None:
            there = tokens(batch)
            sums[layer] += torch.cosine_similarity(before[there].double(), after[there].double(), dim=-1).sum()
            counts[layer] += there.sum()

        watch_layers(model, context.calibration, layers, see)
        return [1 - sums / counts]
