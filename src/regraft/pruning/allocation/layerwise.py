"""The same share of every layer: the allocation of L2PFT and L2PSD (arXiv 2505.18166).

A layer of n dense units loses round(sparsity * n) of them, halves up.
"""

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
    """Each layer loses its units of lowest score; of equal scores the lower number goes first."""

    def keep(self, scores: Sequence[torch.Tensor], dense_units: Sequence[int], sparsity: float) -> list[torch.Tensor]:
        """Sorted indices, into the units that are still there, of those to keep.

        Raises:
            ConfigError: A layer would lose all its units.
        """
        kept = []
        for layer, (score, dense) in enumerate(zip(scores, dense_units, strict=True)):
            left = dense - removed(dense, sparsity)
            if left < 1:
                raise ConfigError(
                    f"sparsity={sparsity}: must leave at least one of the {dense} units of layer {layer}. "
                    f"Choose at most {math.floor(10_000 * (1 - 1 / dense)) / 10_000}."
                )
            order = score.argsort(stable=True)
            kept.append(order[max(len(score) - left, 0) :].sort().values)
        return kept


def removed(units: int, sparsity: float) -> int:
    """How many of `units` are gone at `sparsity`: rounded, halves up."""
    # 0.145 * 100 is 14.499999999999998: the inner rounding takes it for the half that the user wrote
    return math.floor(round(sparsity * units, 9) + 0.5)
