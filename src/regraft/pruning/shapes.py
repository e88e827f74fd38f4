"""How large a model would be without some units, on paper: nothing is cut.

A parameter has the product of its sizes in numbers. Units that lie along one of its dimensions take their width from
that size, a layer that goes takes all; so what several structures take from one matrix multiplies, as it does when it
is cut. Tied weights count once. A single weight that goes is one parameter less, a bias that is given to a linear
map as many more as the map has outputs.

Multiply-accumulates of a token at the end of T tokens are counted as in `regraft.evaluation.size`: each linear map's
numbers once (the head's too, tied or not), and 2 * T * heads * head_dim in each attention.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
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

        self._model = model.model
        self._biased: frozenset[int] = frozenset()
        """Ids of the weights of linear maps that would get a bias."""
        self._lacking: dict[frozenset[int], frozenset[int]] = {}
        """What was asked for -> whose weights would get one; copies share it."""
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

    def give_biases(self, modules: Iterable[nn.Module]) -> None:
        """Give these linear maps biases, and with them those that the model's config gives theirs together."""
        from regraft.models.surgery import lacking_biases

        modules = list(modules)
        wanted = frozenset(id(module) for module in modules)
        if wanted not in self._lacking:
            lacking, _ = lacking_biases(self._model, modules)
            self._lacking[wanted] = frozenset(id(module.weight) for module in lacking)
        self._biased |= self._lacking[wanted]

    def parameters(self) -> int:
        weights = sum(math.prod(sizes) for sizes in self._sizes.values()) - sum(self._masked.values())
        return weights + sum(self._sizes[weight][0] for weight in self._biased)

    def macs(self, context: int) -> int:
        linear = sum(math.prod(self._sizes[weight]) for weight in self._maps)
        attention = sum(self._sizes[weight][dimension] for weight, dimension in self._heads.items())
        return linear + 2 * context * attention
