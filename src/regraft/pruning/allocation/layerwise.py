"""The same share of every layer: the allocation of L2PFT and L2PSD (arXiv 2505.18166).

A layer of n dense units loses round(sparsity * n) of them, halves up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from regraft.config.ranges import ConfigError
from regraft.interfaces import Allocation, Scored


@dataclass(frozen=True, kw_only=True)
class Layerwise(Allocation):
    """Each group of units (a layer's neurons, a matrix's weights) loses the same share."""

    even: ClassVar[bool] = True
    compares_scores: ClassVar[bool] = False

    def losses(self, scored: Scored, sparsity: float) -> list[int]:
        losses = [removed(units, sparsity) for units in scored.dense_units]
        for layer, (units, lost) in enumerate(zip(scored.dense_units, losses, strict=True)):
            if lost >= units:
                raise ConfigError(
                    f"sparsity={sparsity}: must leave at least one of the {units} units of layer {layer}. "
                    f"Choose at most {math.floor(10_000 * (1 - 1 / units)) / 10_000}."
                )
        return losses


def removed(units: int, sparsity: float) -> int:
    """How many of `units` are gone at `sparsity`: rounded, halves up."""
    # 0.145 * 100 is 14.499999999999998: the inner rounding takes it for the half that the user wrote
    return math.floor(round(sparsity * units, 9) + 0.5)
