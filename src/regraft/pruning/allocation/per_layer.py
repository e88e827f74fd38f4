"""Shares of the layers in given proportions, at an exact total.

Of layers with n_l dense units and weights w_l, layer l loses

    x_l = min(n_l - 1, round(lambda * w_l * n_l)),   lambda such that   sum x_l = round(sparsity * sum n_l).

So `sparsity` is met to the unit whatever the weights, and a layer that would lose all keeps one unit while the others
make up for it. This is Webster's method of apportionment (Sainte-Lague): units go one by one, the k-th of a layer with
priority w_l * n_l / (2 k - 1). It is monotone in the total, so the steps of an iterative schedule never give back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from regraft.config.ranges import ConfigError, require
from regraft.interfaces import Allocation, Scored
from regraft.pruning import numbering
from regraft.pruning.allocation.layerwise import removed


@dataclass(frozen=True, kw_only=True)
class PerLayer(Allocation):
    """Each layer loses its units of lowest score; of equal scores the lower number goes first.

    A uniform choice differs from `layerwise` only in rounding: there each layer is rounded, here the total.
    """

    compares_scores: ClassVar[bool] = False

    weights: dict[int, float] = field(default_factory=dict)
    """Number of the layer in the dense model, from 0 -> weight of the share that it loses, at least 0; a layer that is
    not named has 1. Only their proportions count: 0 leaves a layer whole, 2 takes twice the share of 1."""

    def __post_init__(self) -> None:
        for layer, weight in self.weights.items():
            require(layer >= 0, "weights", layer, "layer numbers, which count from 0")
            require(math.isfinite(weight) and weight >= 0, f"weights.{layer}", weight, "a finite number of at least 0")

    def losses(self, scored: Scored, sparsity: float) -> list[int]:
        """How many units each layer has lost in the end.

        Raises:
            ConfigError: A weight names no layer, or the layers with a weight above 0 have too few units.
        """
        import torch

        dense_units = scored.dense_units
        groups = scored.structure.groups(scored.model.model)
        number = numbering.dense_number(scored.model, groups)
        for layer in self.weights:
            if layer >= number:
                raise ConfigError(
                    f"pruner.allocation.weights.{layer}={self.weights[layer]}: must name a layer of the model, "
                    f"0 to {number - 1}."
                )
        total = removed(sum(dense_units), sparsity)
        weights = [self.weights.get(layer, 1.0) for layer in numbering.places(scored.model, groups)]
        spare = [units - 1 if weight > 0 else 0 for units, weight in zip(dense_units, weights, strict=True)]
        if total > sum(spare):
            highest = math.floor(10_000 * sum(spare) / sum(dense_units)) / 10_000
            raise ConfigError(
                f"sparsity={sparsity}: must leave one unit in each layer, and layers with "
                f"pruner.allocation.weights of 0 whole: at most {highest}. Lower it, or raise weights that are 0."
            )
        layers = torch.repeat_interleave(torch.arange(len(spare)), torch.tensor(spare))
        priorities = torch.cat(
            [
                # two tensors: a number by a tensor is its product with a rounded inverse, which breaks ties
                torch.tensor(weight * units, dtype=torch.float64) / (2 * torch.arange(most, dtype=torch.float64) + 1)
                for units, weight, most in zip(dense_units, weights, spare, strict=True)
            ]
        )
        # stable: of equal priorities the lower layer goes first
        first = priorities.argsort(descending=True, stable=True)[:total]
        return torch.bincount(layers[first], minlength=len(spare)).tolist()
