"""Structures of single weights: the tensors keep their shapes, and what is gone is held at zero."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from regraft.config.ranges import ConfigError, require
from regraft.interfaces import Group, Kind, LanguageModel, Part, Structure

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Masked(Structure):
    """Units that are single weights of the linear maps of the decoder layers; embeddings and head stay whole.

    A group is a matrix; its units are its weights row by row, as (outputs, inputs).
    """

    kind: ClassVar[Kind] = "weights"
    matrices: ClassVar[tuple[str, ...]] = ("gate", "up", "down", "query", "key", "value", "fused", "output")
    by_layer: ClassVar[bool] = True

    name: str = "masked"
    """Name of the structure in records."""
    layers: tuple[int, ...] | None = None
    """Numbers, from 0, of the decoder layers whose weights are pruned; null takes all."""

    def __post_init__(self) -> None:
        given = self.layers
        once = given is None or (0 < len(given) == len(set(given)) and min(given) >= 0)
        require(once, "layers", given, "null, or numbers of one or more layers from 0, each once")

    @property
    def strip_width(self) -> int | None:
        """Number of consecutive inputs among which it is decided what stays; None: any number will do."""
        return None

    @property
    def by_output(self) -> bool:
        """Whether weights compete within one output only, of which each loses as many, to within one."""
        return False

    def of_layer(self, layer: int) -> Structure:
        return replace(self, layers=(layer,))

    def groups(self, model: PreTrainedModel) -> list[Group]:
        """One for each matrix, layer by layer.

        Raises:
            ConfigError: A layer that is named is not there, or a matrix does not fit the structure.
        """
        from regraft.models.architecture import linear_maps

        maps = linear_maps(model)
        for layer in self.layers or ():
            if layer >= len(maps):
                raise ConfigError(
                    f"pruner.structure.layers={list(self.layers or ())}: must name layers of the model, "
                    f"0 to {len(maps) - 1}."
                )
        groups = []
        for layer in sorted(self.layers or range(len(maps))):
            for name, projection in maps[layer].items():
                outputs, inputs = projection.shape
                self.check(f"{name} of layer {layer}", inputs)
                dimension = 1 if projection.transposed else 0
                # a weight reads one input of its map: `Group.readers` then says whose inputs these are
                part = Part(
                    name=name,
                    module=projection.module,
                    attribute="weight",
                    dimension=dimension,
                    index=None,
                    side="reads",
                )
                groups.append(
                    Group(name=f"{name} of layer {layer}", units=outputs * inputs, parts=(part,), layer=layer)
                )
        return groups

    def check(self, matrix: str, inputs: int) -> None:  # noqa: B027
        """Refuse a matrix that the structure does not fit.

        Args:
            matrix: For people.
            inputs: Its width.

        Raises:
            ConfigError: With the reason.
        """

    def left(self, model: LanguageModel) -> list[int]:
        """How many weights of each matrix are not masked."""
        there = self.there(model)
        return self.units(model.model) if there is None else [int(mask.sum()) for mask in there]

    def there(self, model: LanguageModel) -> list[torch.Tensor] | None:
        import torch

        groups = self.groups(model.model)
        names = _names(model.model, groups)
        if not any(name in model.masks for name in names):
            return None
        masks = []
        for group, name in zip(groups, names, strict=True):
            (part,) = group.parts
            mask = model.masks.get(name)
            masks.append(torch.ones(group.units, dtype=torch.bool) if mask is None else part.of(mask).flatten())
        return masks

    def still_in(self, model: LanguageModel, pruned: LanguageModel) -> list[torch.Tensor]:
        import torch

        there = self.there(pruned)
        return [torch.ones(units, dtype=torch.bool) for units in self.units(model.model)] if there is None else there

    def select(self, group: Group, scores: torch.Tensor, left: int) -> torch.Tensor:
        (part,) = group.parts
        return self.choose(scores.view(part.parameter.shape[part.dimension], -1), left).flatten()

    @abstractmethod
    def choose(self, scores: torch.Tensor, left: int) -> torch.Tensor:
        """(outputs, inputs) bool: which `left` weights of a matrix, or of some of its columns, stay.

        Args:
            scores: (outputs, inputs); the lowest go first, and of equal ones the lower number.
            left: How many stay.
        """

    def remove(self, model: LanguageModel, keep: Sequence[torch.Tensor]) -> None:
        """Set to zero what is not of `keep`, and note it in the model's masks."""
        import torch

        groups = self.groups(model.model)
        with torch.no_grad():
            for group, name, kept in zip(groups, _names(model.model, groups), keep, strict=True):
                (part,) = group.parts
                rows = part.parameter.movedim(part.dimension, 0)
                mask = kept.view(rows.shape).to(rows.device)
                rows.masked_fill_(~mask, 0)
                model.masks[name] = mask.movedim(0, part.dimension).contiguous()


def _names(model: PreTrainedModel, groups: Sequence[Group]) -> list[str]:
    """The parameter of each group, as the model calls it."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(group.parts[0].parameter)] for group in groups]


def without_lowest(scores: torch.Tensor, lost: int) -> torch.Tensor:
    """(rows, columns) bool, False at the `lost` lowest of each row; of equal ones the lower number goes first.

    Partitions and never sorts, so a hundred million scores need no index of as many.
    """
    import torch

    if lost <= 0:
        return torch.ones_like(scores, dtype=torch.bool)
    threshold = _lowest(scores, lost)[:, None]
    keep = scores > threshold
    tied = scores == threshold
    # of those that equal the threshold as many stay as are missing
    spare = (scores.shape[1] - lost) - keep.sum(dim=1, keepdim=True)
    if bool((spare > 0).any()):
        gone = tied.sum(dim=1, keepdim=True) - spare
        keep |= tied & (tied.cumsum(dim=1, dtype=torch.int32) > gone)
    return keep


def without_lowest_of_each(scores: torch.Tensor, lost: torch.Tensor) -> torch.Tensor:
    """As `without_lowest`, but row i loses `lost[i]` of its scores, (rows,) long."""
    ranks = scores.argsort(dim=1, stable=True).argsort(dim=1)
    return ranks >= lost[:, None]


def _lowest(scores: torch.Tensor, number: int) -> torch.Tensor:
    """(rows,): the `number`-th lowest score of each row."""
    import numpy
    import torch

    if scores.device.type != "cpu":
        return scores.kthvalue(number, dim=1).values
    return torch.from_numpy(numpy.partition(scores.numpy(), number - 1, axis=1)[:, number - 1].copy())
