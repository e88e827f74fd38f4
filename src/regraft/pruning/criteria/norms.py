"""What the norm criteria share: one norm a matrix, combined over the matrices in which a unit owns something.

The norm of what a unit owns is the norm of the norms of its rows or columns. So a matrix is read once, as it is stored,
block by block: a block in float32 and its powers stand in buffers that never leave the processor's cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regraft.config.ranges import ConfigError, require
from regraft.interfaces import Criterion, Group, Part

if TYPE_CHECKING:
    import torch

BLOCK = 2**17
"""Numbers of a block, about."""


@dataclass(frozen=True, kw_only=True)
class OfNorms(Criterion):
    """Scores units by the norms of what they own of each matrix."""

    projections: tuple[str, ...] | None = None
    """Matrices whose weights count, by the names that the structure gives them; null takes all in which a unit owns
    something. One that a block lacks is passed over: GPT-2 has `up` and `down`, no gate."""

    def __post_init__(self) -> None:
        given = self.projections
        once = given is None or 0 < len(given) == len(set(given))
        require(once, "projections", given, "null, or names of one or more matrices, each once")


def norms(group: Group, projections: Sequence[str] | None, order: float) -> list[torch.Tensor]:
    """The p-norm of what each unit owns, (units,) float32 for each matrix that is asked for and there.

    A block without a gate (GPT-2) is scored by what it has: so one config serves every architecture.

    Raises:
        ConfigError: The group has none of the matrices.
    """
    import torch

    parts: dict[str, list[Part]] = {}
    for part in group.matrices:
        parts.setdefault(part.name, []).append(part)
    found = [parts[name] for name in (parts if projections is None else projections) if name in parts]
    if not found:
        raise ConfigError(
            f"pruner.criterion.projections={list(projections or ())}: must name at least one of {', '.join(parts)}, "
            f"the matrices of the {group.name}."
        )
    norms = []
    for named in found:
        each = [of_units(part, order) for part in named]
        # matrices that all units share stand side by side, those of one unit are its line
        shared = named[0].unit is None
        norms.append(torch.linalg.vector_norm(torch.stack(each), ord=order, dim=0) if shared else torch.cat(each))
    return norms


def of_units(part: Part, order: float) -> torch.Tensor:
    """The p-norm of what each unit owns of one matrix, (units,) float32."""
    import torch

    weight = part.parameter.detach()
    if part.index is None:
        return part.of(weight).flatten().float().abs()
    lines = of_rows(weight, order) if part.dimension == 0 else of_columns(weight, order)
    return torch.linalg.vector_norm(lines[part.index.to(lines.device)], ord=order, dim=1)


def of_rows(weight: torch.Tensor, order: float) -> torch.Tensor:
    """The p-norm of each row, (rows,) float32."""
    import torch

    return torch.cat([torch.linalg.vector_norm(block, ord=order, dim=1) for block in blocks(weight)])


def of_columns(weight: torch.Tensor, order: float) -> torch.Tensor:
    """The p-norm of each column, (columns,) float32."""
    import torch

    room = buffer(weight)
    sizes = (torch.abs(block, out=room[: len(block)]) for block in blocks(weight))
    if math.isinf(order):
        return torch.stack([size.amax(dim=0) for size in sizes]).amax(dim=0)
    return torch.stack([size.pow_(order).sum(dim=0) for size in sizes]).sum(dim=0).pow(1 / order)


def blocks(weight: torch.Tensor) -> Iterator[torch.Tensor]:
    """Some rows at a time in float32; if they are not stored so, in a buffer that the next ones overwrite."""
    room = buffer(weight)
    for block in weight.split(len(room)):
        yield block if block.dtype == room.dtype else room[: len(block)].copy_(block)


def buffer(weight: torch.Tensor) -> torch.Tensor:
    """Room for the rows of a block in float32. New memory for each block may cost more than all that is computed."""
    import torch

    rows, width = weight.shape
    return torch.empty(min(max(1, BLOCK // width), rows), width, device=weight.device)
