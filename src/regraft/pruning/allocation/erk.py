"""Densities by the shapes of the matrices: Erdos-Renyi-Kernel.

Evci et al. 2020, arXiv 1911.11134; for plain matrices Mocanu et al. 2018, arXiv 1707.04780:

density of a matrix (out, in) = epsilon * (out + in) / (out * in), at most 1

with epsilon such that the densities make the run's sparsity: large matrices lose more. Matrices that would be more than
dense stay whole, and the others make up for it. The total is met to the weight; the rest of rounding goes by largest
remainder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from regraft.config.ranges import ConfigError
from regraft.interfaces import Allocation, Kind, Scored
from regraft.pruning.allocation.layerwise import removed


@dataclass(frozen=True, kw_only=True)
class Erk(Allocation):
    """Matrices with many weights for their rows and columns lose most."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"weights"})
    compares_scores: ClassVar[bool] = False

    def losses(self, scored: Scored, sparsity: float) -> list[int]:
        units = list(scored.dense_units)
        kept = sum(units) - removed(sum(units), sparsity)
        if kept < len(units):
            raise ConfigError(
                f"sparsity={sparsity}: must leave at least one weight of each of the {len(units)} matrices. Lower it."
            )
        raw = []
        for group in scored.structure.groups(scored.model.model):
            (part,) = group.parts
            out, into = part.parameter.shape
            raw.append((out + into) / (out * into))
        return [whole - left for whole, left in zip(units, _shares(units, raw, kept), strict=True)]


def _shares(units: list[int], raw: list[float], kept: int) -> list[int]:
    """How many units of each group stay: in proportion to raw * units, from 1 to all of them, `kept` in sum."""
    fixed: dict[int, int] = {}
    while True:
        free = [number for number in range(len(units)) if number not in fixed]
        weight = sum(raw[number] * units[number] for number in free)
        rest = kept - sum(fixed.values())
        wanted = {number: rest * raw[number] * units[number] / weight for number in free}
        full = {number: units[number] for number in free if wanted[number] > units[number]}
        empty = {number: 1 for number in free if wanted[number] < 1}
        if not full and not empty:
            break
        fixed |= full or empty
    left = fixed | {number: int(share) for number, share in wanted.items()}
    by_remainder = sorted(free, key=lambda number: (int(wanted[number]) - wanted[number], number))
    for number in by_remainder[: kept - sum(left.values())]:
        left[number] += 1
    return [left[number] for number in range(len(units))]
