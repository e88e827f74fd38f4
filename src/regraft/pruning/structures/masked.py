"""Structures of single weights: the tensors keep their shapes, and what is gone is held at zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from regraft.interfaces import LanguageModel, Structure

if TYPE_CHECKING:
    import torch


class Masked(Structure):
    """Units that are single weights of matrices."""

    def left(self, model: LanguageModel) -> list[int]:
        """How many weights of each matrix are not masked."""
        return [int(mask.sum()) for mask in self.there(model)]

    def there(self, model: LanguageModel) -> list[torch.Tensor]:
        import torch

        names = {id(parameter): name for name, parameter in model.model.named_parameters()}
        masks = []
        for group in self.groups(model.model):
            (part,) = group.parts
            mask = model.masks.get(names[id(part.parameter)])
            everything = torch.ones_like(part.parameter, dtype=torch.bool)
            masks.append(part.of(everything if mask is None else mask).flatten())
        return masks

    def remove(self, model: LanguageModel, keep: Sequence[torch.Tensor]) -> None:
        """Set to zero what is not of `keep`, and note it in the model's masks."""
        import torch

        names = {id(parameter): name for name, parameter in model.model.named_parameters()}
        with torch.no_grad():
            for group, kept in zip(self.groups(model.model), keep, strict=True):
                (part,) = group.parts
                rows = part.parameter.movedim(part.dimension, 0)
                mask = kept.view(rows.shape).to(rows.device)
                rows.mul_(mask)
                model.masks[names[id(part.parameter)]] = mask.movedim(0, part.dimension).clone()
