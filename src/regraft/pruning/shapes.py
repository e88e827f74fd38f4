"""How large a model would be without some units, on paper: nothing is cut.

A parameter has the product of its sizes in numbers. Units that lie along one of its dimensions take their width from
that size, a layer that goes takes all; so what several structures take from one matrix multiplies, as it does when it
is cut. Tied weights count once. A single weight that goes is one parameter less.

Multiply-accumulates of a token at the end of T tokens are counted as in `regraft.evaluation.size`: each linear map's
numbers once (the head's too, tied or not), and 2 * T * heads * head_dim in each attention.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from regraft.interfaces import Group, LanguageModel

if TYPE_CHECKING:
    import torch


class Shapes:
    """The sizes of a model's parameters.

    Args:
        model: The model as it is; it is only looked at.
    """

    def __init__(self, model: LanguageModel) -> None:
        from regraft.models.architecture import attention_blocks, is_linear

        self._parameters = list(model.model.parameters())  # what is counted is named by what it was
        self._sizes = {id(parameter): list(parameter.shape) for parameter in self._parameters}
        named = dict(model.model.named_parameters())
        self._masked = {id(named[name]): int((~mask).sum()) for name, mask in model.masks.items()}
        self._maps = [id(module.weight) for module in model.model.modules() if is_linear(module)]
        # what the output reads is as wide as all heads together
        outputs = [block.output for block in attention_blocks(model.model)]
        self._heads = {id(output.module.weight): 0 if output.transposed else 1 for output in outputs}

    def copy(self) -> Shapes:
        """The same sizes, to take something else away from."""
        other = copy.copy(self)
        other._masked = dict(self._masked)
        other._sizes = {parameter: list(sizes) for parameter, sizes in self._sizes.items()}
        return other

    def take(self, groups: Sequence[Group], keep: Sequence[torch.Tensor]) -> None:
        """Take away the units that are not of `keep`, (units,) bool for each group."""
        for group, kept in zip(groups, keep, strict=True):
            lost = len(kept) - int(kept.sum())
            for part in group.parts:
                sizes = self._sizes[id(part.parameter)]
                if part.unit is not None:
                    if not kept[part.unit]:
                        sizes[:] = [0] * len(sizes)
                elif part.index is None:
                    self._masked[id(part.parameter)] = lost  # those that were masked before among them
                else:
                    sizes[part.dimension] = max(sizes[part.dimension] - lost * part.index.shape[1], 0)

    def parameters(self) -> int:
        return sum(math.prod(sizes) for sizes in self._sizes.values()) - sum(self._masked.values())

    def macs(self, context: int) -> int:
        linear = sum(math.prod(self._sizes[weight]) for weight in self._maps)
        attention = sum(self._sizes[weight][dimension] for weight, dimension in self._heads.items())
        return linear + 2 * context * attention
