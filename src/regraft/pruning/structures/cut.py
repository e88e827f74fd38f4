"""Structures whose removal is real: tensors become smaller."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from regraft.interfaces import Group, LanguageModel, Structure
from regraft.pruning import numbering

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class Cut(Structure):
    """Units that are cut out of every tensor in which they own something."""

    def remove(self, model: LanguageModel, keep: Sequence[torch.Tensor]) -> None:
        """Cut, and have the model's config follow.

        Raises:
            ValueError: The model's config cannot say what is left, or its parts are not what they seem.
        """
        groups = self.groups(model.model)
        self.check(model.model)
        noted = list(model.removed.get(self.name, ((),) * numbering.dense_number(model, groups)))
        for place, group, kept in zip(numbering.places(model, groups), groups, keep, strict=True):
            left = sorted(set(range(group.units + len(noted[place]))) - set(noted[place]))
            gone = [left[unit] for unit in (~kept).nonzero().flatten().tolist()]
            noted[place] = tuple(sorted([*noted[place], *gone]))
        self.take_out(model, groups, keep)
        self.resize(model.model)
        model.removed[self.name] = tuple(noted)

    def take_out(self, model: LanguageModel, groups: Sequence[Group], keep: Sequence[torch.Tensor]) -> None:
        """Make the tensors smaller, and the masks on them."""
        from regraft.models.surgery import cut, slices

        pieces = slices(groups, keep)
        names = {id(parameter): name for name, parameter in model.model.named_parameters()}
        for piece in pieces:
            name = names[id(piece.parameter)]
            if name in model.masks:
                model.masks[name] = piece.of(model.masks[name])
        cut(pieces)

    def still_in(self, model: LanguageModel, pruned: LanguageModel) -> list[torch.Tensor]:
        import torch

        groups = self.groups(model.model)
        lost = numbering.removed(model, self.name, groups)
        noted = pruned.removed.get(self.name)
        keep = []
        for place, group, before in zip(numbering.places(model, groups), groups, lost, strict=True):
            gone = () if noted is None else noted[place]
            stays = torch.ones(group.units + len(before), dtype=torch.bool)
            stays[list(gone)] = False
            own = torch.ones_like(stays)
            own[list(before)] = False
            keep.append(stays[own])
        return keep

    def check(self, model: PreTrainedModel) -> None:  # noqa: B027
        """Refuse a model of which too little is known, before anything is cut.

        Raises:
            ValueError: With the reason.
        """

    @abstractmethod
    def resize(self, model: PreTrainedModel) -> None:
        """Have config and modules say how large the model is now."""
