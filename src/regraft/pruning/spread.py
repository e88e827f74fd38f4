"""Numbers of units, laid over what the units own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from regraft.interfaces import Group, LanguageModel, Part, Structure
from regraft.pruning import numbering

if TYPE_CHECKING:
    import torch


def spread(part: Part, values: torch.Tensor, neutral: float = 1.0) -> torch.Tensor:
    """A tensor that broadcasts with the parameter of `part` and holds each unit's number where the unit owns something.

    Args:
        part: Of the units.
        values: (units,).
        neutral: What stands where no unit owns anything.
    """
    import torch

    parameter = part.parameter
    if part.index is None:
        rows = parameter.movedim(part.dimension, 0)
        return values.view(rows.shape).movedim(0, part.dimension)
    _, width = part.index.shape
    along = torch.full((parameter.shape[part.dimension],), neutral, dtype=values.dtype, device=values.device)
    along[part.index.flatten().to(values.device)] = values.repeat_interleave(width)
    shape = [1] * parameter.ndim
    shape[part.dimension] = -1
    return along.view(shape)


def owned_sums(group: Group, of: Callable[[Part], torch.Tensor]) -> torch.Tensor:
    """(units,): for each unit the sum over its weights of `of(part)`, a tensor of the parameter's shape."""
    sums = [part.of(of(part)).sum(dim=1) for part in group.matrices]
    total = sums[0]
    for each in sums[1:]:
        total = total + each
    return total


def parameters(groups: Iterable[Group]) -> list[torch.nn.Parameter]:
    """The matrices of all groups, each once."""
    found = {id(part.parameter): part.parameter for group in groups for part in group.matrices}
    return list(found.values())


def dense_units(model: LanguageModel, structure: Structure) -> list[int]:
    """How many units each group has in the dense model."""
    groups = structure.groups(model.model)
    lost = numbering.removed(model, structure.name, groups)
    return [group.units + len(gone) for group, gone in zip(groups, lost, strict=True)]
