"""Outlier-weighed layer-wise sparsity (OWL, Yin et al. 2023, arXiv 2310.05175): layers rich in outliers stay denser.

    A_ij = |W_ij| * ||x_j||_2                              of each weight of layer l, as Wanda scores it
    D_l  = share of the A_ij of layer l above M * mean of its A_ij
    d_l  = 2 * lambda * (D_l - min D) / (max D - min D)
    density of layer l = (1 - sparsity) + d_l - mean d

as in the authors' code (the abstract's wording says the opposite). The weights of a layer are those of all matrices in
which its units own something, so the ratio is the paper's for every structure; inside a layer every group loses the
same share. Where rounding, unlike layers or the floor move the total, all densities are shifted alike until it is met
to the unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from regraft.config.ranges import require
from regraft.interfaces import Allocation, Part, PruningNeed, Scored
from regraft.pruning import numbering
from regraft.pruning.allocation.shares import require_floor, room, share_out

if TYPE_CHECKING:
    import torch

RATIOS = "outlier_ratios"
"""Under which name the ratios are told, and kept, since a budget asks about many amounts."""


@dataclass(frozen=True, kw_only=True)
class Owl(Allocation):
    """The share that a layer loses falls with its ratio of outliers, by 2 * lambda from the poorest to the richest."""

    compares_scores: ClassVar[bool] = False

    outlier: float = 5.0
    """M: how many times the mean of its layer a weight's score must exceed to be an outlier."""
    spread: float = 0.08
    """lambda: half the distance between the highest and the lowest density."""
    floor: float = 0.05
    """Share of each group's dense units that stays at least; one unit stays anyway."""

    def __post_init__(self) -> None:
        require(math.isfinite(self.outlier) and self.outlier > 0, "outlier", self.outlier, "a finite number above 0")
        require(0 <= self.spread <= 0.5, "spread", self.spread, "a number in [0, 0.5]")
        require_floor(self.floor)

    @property
    def needs(self) -> frozenset[PruningNeed]:
        return frozenset({"calibration"})

    def losses(self, scored: Scored, sparsity: float) -> list[int]:
        layers = [group.layer for group in scored.structure.groups(scored.model.model)]
        measured = scored.context.measured
        if RATIOS not in measured:
            measured[RATIOS] = self.ratios(scored)
        ratios: dict[int, float] = measured[RATIOS]
        told = {str(numbering.dense_layer(scored.model, layer)): ratio for layer, ratio in ratios.items()}
        scored.context.report({RATIOS: told})
        density = densities(ratios, self.spread)
        # what lies in no layer, such as the head, loses what the layers lose on average
        offsets = [0.0 if layer is None else density[layer] for layer in layers]
        return share_out(room(scored, sparsity, self.floor), offsets=offsets)

    def ratios(self, scored: Scored) -> dict[int, float]:
        """Number of each layer -> D, the share of its weights that are outliers."""
        from regraft.pruning.activations import input_statistics

        parts: dict[int, list[Part]] = {}
        for group in scored.structure.groups(scored.model.model):
            if group.layer is None:
                continue
            among = parts.setdefault(group.layer, [])
            for part in group.matrices:
                # a fused matrix is named once for each part of it
                if all(part.module is not other.module for other in among):
                    among.append(part)
        modules = [part.module for of_layer in parts.values() for part in of_layer]
        norms = iter(input_statistics(scored.model, scored.context.calibration, modules))
        return {
            layer: outlier_ratio([_wanda(part, next(norms).norm) for part in of_layer], self.outlier)
            for layer, of_layer in parts.items()
        }


def densities(ratios: Mapping[int, float], spread: float) -> dict[int, float]:
    """Number of each layer -> how much denser than the mean it stays."""
    low, high = min(ratios.values()), max(ratios.values())
    stretched = {
        layer: 2 * spread * (ratio - low) / (high - low) if high > low else 0.0 for layer, ratio in ratios.items()
    }
    mean = sum(stretched.values()) / len(stretched)
    return {layer: each - mean for layer, each in stretched.items()}


def _wanda(part: Part, norm: torch.Tensor) -> torch.Tensor:
    """|W_ij| * ||x_j||_2, of the weight's shape."""
    weight = part.parameter.detach().abs().float()
    reads = part.side == "reads" and part.index is not None
    inputs = part.dimension if reads else 1 - part.dimension
    return weight * norm.to(weight).unsqueeze(1 - inputs)


def outlier_ratio(scores: Sequence[torch.Tensor], outlier: float) -> float:
    """Share of the numbers of all `scores` above `outlier` times their mean."""
    number = sum(score.numel() for score in scores)
    mean = sum(float(score.double().sum()) for score in scores) / number
    return sum(int((score > outlier * mean).sum()) for score in scores) / number
