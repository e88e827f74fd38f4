"""How large a model would be without some units, on paper: nothing is cut.

A parameter has the product of its sizes in numbers. Units that lie along one of its dimensions take their width from
that size, a layer that goes takes all; so what several structures take from one matrix multiplies, as it does when it
is cut. Tied weights count once. A single weight that goes is one parameter less.

Multiply-accumulates of a token at the end of T tokens are counted as in `regraft.evaluation.size`: each linear map's
numbers once (the head's too, tied or not), and 2 * T * heads * head_dim in each attention.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from regraft.interfaces import Group, LanguageModel

if TYPE_CHECKING:
    import torch
    from torch import nn


class Shapes:
    """The sizes of a model's parameters.

    Args:
        model: The model as it is; it is only looked at.
    """

    def __init__(self, model: LanguageModel) -> None:
        from regraft.models.architecture import attention_blocks, is_linear

        self._sizes = {id(parameter): list(parameter.shape) for parameter in model.model.parameters()}
        self._masked = sum(int((~mask).sum()) for mask in model.masks.values())
        self._maps: list[nn.Module] = [module for module in model.model.modules() if is_linear(module)]
        self._outputs = [block.output for block in attention_blocks(model.model)]

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
                    self._masked += lost
                else:
                    sizes[part.dimension] = max(sizes[part.dimension] - lost * part.index.shape[1], 0)

    def parameters(self) -> int:
        return sum(math.prod(sizes) for sizes in self._sizes.values()) - self._masked

    def macs(self, context: int) -> int:
        linear = sum(math.prod(self._sizes[id(module.weight)]) for module in self._maps)
        # what the output reads is as wide as all heads together
        read = {id(output.module.weight): 0 if output.transposed else 1 for output in self._outputs}
        attention = sum(self._sizes[weight][dimension] for weight, dimension in read.items())
        return linear + 2 * context * attention
