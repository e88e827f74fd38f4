"""The same share of every layer: the allocation of L2PFT and L2PSD (arXiv 2505.18166)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regraft.config.ranges import ConfigError
from regraft.interfaces import Allocation

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Layerwise(Allocation):
    """Each layer loses its units of lowest score."""

    def keep(self, scores: Sequence[torch.Tensor], dense_units: Sequence[int], sparsity: float) -> list[torch.Tensor]:
        kept = []
        for layer, (score, dense) in enumerate(zip(scores, dense_units, strict=True)):
            number = dense - math.floor(sparsity * dense + 0.5)
            if number < 1:
                raise ConfigError(
                    f"sparsity={sparsity}: must leave at least one of the {dense} units of layer {layer}. "
                    f"The highest that does is {1 - 1 / dense:.4f}."
                )
            # stable, so that of equal scores the lower number goes first on every machine
            order = score.argsort(stable=True)
            kept.append(order[max(len(score) - number, 0) :].sort().values)
        return kept
