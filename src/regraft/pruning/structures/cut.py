"""Structures whose removal is real: tensors become smaller."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from regraft.interfaces import LanguageModel, Structure

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class Cut(Structure):
    """Units that are cut out of every tensor in which they own something."""

    def remove(self, model: LanguageModel, keep: Sequence[torch.Tensor]) -> None:
        """Cut, and have the model's config follow.

        Raises:
            ValueError: The model's config cannot say what is left.
        """
        from regraft.models.surgery import cut

        groups = self.groups(model.model)
        self.check(model.model)
        gone = model.removed.get(self.name, ((),) * len(groups))
        removed = []
        for group, before, kept in zip(groups, gone, keep, strict=True):
            left = sorted(set(range(group.units + len(before))) - set(before))
            removed.append(tuple(sorted([*before, *(left[unit] for unit in (~kept).nonzero().flatten().tolist())])))
        cut(groups, keep)
        self.resize(model.model)
        model.removed[self.name] = tuple(removed)

    def check(self, model: PreTrainedModel) -> None:  # noqa: B027
        """Refuse a model of which too little is known, before anything is cut.

        Raises:
            ValueError: With the reason.
        """

    @abstractmethod
    def resize(self, model: PreTrainedModel) -> None:
        """Have config and modules say how large the model is now."""
