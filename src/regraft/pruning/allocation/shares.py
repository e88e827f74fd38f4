"""What all allocations but the layer-wise one share: an exact total, and a floor under every group.

Units go one after the other, each time from the group where the next is cheapest, until the total is met. What the
next unit of a group costs is the allocation; that a group never falls below its floor, that units which are gone stay
gone, that equal prices are settled by the group's number, and that a higher total takes the same units and more, is
here.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regraft.config.ranges import ConfigError, require
from regraft.interfaces import Scored
from regraft.pruning.allocation.layerwise import removed

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Room:
    """Within which bounds each group may lose units, and how many go in all."""

    units: tuple[int, ...]
    """Of the dense model."""
    least: tuple[int, ...]
    """Units that are gone already."""
    most: tuple[int, ...]
    """Units that may be gone in the end."""
    total: int
    """Units that shall be gone in the end."""

    def merged(self, blocks: Sequence[Sequence[int]]) -> Room:
        """The bounds of several groups taken together."""

        def sums(numbers: Sequence[int]) -> tuple[int, ...]:
            return tuple(sum(numbers[group] for group in block) for block in blocks)

        return Room(units=sums(self.units), least=sums(self.least), most=sums(self.most), total=self.total)


def require_floor(floor: float) -> None:
    """Raise unless `floor` is a share below 1."""
    require(0 <= floor < 1, "floor", floor, "a number in [0, 1)")


def room(scored: Scored, sparsity: float, floor: float) -> Room:
    """The bounds under which ceil(floor * n) of a group's n dense units stay, one at least.

    Raises:
        ConfigError: The floor leaves too few units to remove.
    """
    units = tuple(scored.dense_units)
    there = scored.structure.left(scored.model)
    least = tuple(number - left for number, left in zip(units, there, strict=True))
    stays = [max(1, math.ceil(round(floor * number, 9))) for number in units]
    most = tuple(max(gone, number - kept) for gone, number, kept in zip(least, units, stays, strict=True))
    total = max(removed(sum(units), sparsity), sum(least))
    if total > sum(most):
        highest = math.floor(10_000 * sum(most) / sum(units)) / 10_000
        raise ConfigError(
            f"sparsity={sparsity}: must leave a share of pruner.allocation.floor={floor}, and one unit at least, in "
            f"each group: at most {highest}. Lower the sparsity or the floor."
        )
    return Room(units=units, least=least, most=most, total=total)


def lowest(scores: Sequence[torch.Tensor], room: Room) -> list[int]:
    """Units that each group has lost when those of lowest score in all groups go; minus infinity is gone already."""
    import torch

    open_to_removal = [
        score[score.isfinite()].sort().values[: most - least]
        for score, least, most in zip(scores, room.least, room.most, strict=True)
    ]
    number = room.total - sum(room.least)
    if number == 0:
        return list(room.least)
    threshold = torch.cat(open_to_removal).kthvalue(number).values
    below = [int(torch.searchsorted(score, threshold)) for score in open_to_removal]
    equal = [
        int(torch.searchsorted(score, threshold, right=True)) - under
        for score, under in zip(open_to_removal, below, strict=True)
    ]
    number -= sum(below)
    losses = []
    for least, under, same in zip(room.least, below, equal, strict=True):
        taken = min(same, number)
        number -= taken
        losses.append(least + under + taken)
    return losses


def share_out(room: Room, offsets: Sequence[float] | None = None, weights: Sequence[float] | None = None) -> list[int]:
    """Units that each group has lost when the k-th of its n units costs offset + (k - 1/2) / (weight * n).

    So a group's share of losses is weight * (price - offset), rounded, at one price for all and within the bounds. With
    neither, every group loses the same share.

    Args:
        room: Bounds and total.
        offsets: Of each group, 0 unless given.
        weights: Of each group, 1 unless given; of weight 0 a group loses nothing while another may.
    """
    groups = range(len(room.units))
    offset = [0.0] * len(groups) if offsets is None else offsets
    # a weight of 0 would divide by it: so small that its group comes last
    weight = [1.0] * len(groups) if weights is None else [max(each, 1e-9) for each in weights]

    def price(group: int, unit: int) -> float:
        return offset[group] + (unit - 0.5) / (weight[group] * room.units[group])

    def below(limit: float) -> list[int]:
        # one less than the formula says, which may be a rounding too many
        return [
            min(max(math.floor(weight[g] * room.units[g] * (limit - offset[g]) - 0.5), room.least[g]), room.most[g])
            for g in groups
        ]

    low, high = min(offset), max(price(group, room.units[group]) for group in groups)
    for _ in range(64):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(below(middle)) <= room.total - len(groups) else (low, middle)
    losses = below(low)
    heap = [(price(group, losses[group] + 1), group) for group in groups if losses[group] < room.most[group]]
    heapq.heapify(heap)
    for _ in range(room.total - sum(losses)):
        _, group = heapq.heappop(heap)
        losses[group] += 1
        if losses[group] < room.most[group]:
            heapq.heappush(heap, (price(group, losses[group] + 1), group))
    return losses
