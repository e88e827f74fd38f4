"""Groups of units without a model, for tests of what decides on scores alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from regraft.interfaces import Allocation, Group, LanguageModel, Part, PruningContext, Scored, Structure

EMPTY = LanguageModel(model=None, tokenizer=None)  # type: ignore[arg-type]


class Made(Structure):
    """One group for each mapping of a matrix's name to (units, numbers); the last matrix is read, the others write."""

    kind = "neurons"
    matrices = ("gate", "up", "down")
    name = "made"

    def __init__(self, *layers: dict[str, torch.Tensor]) -> None:
        self.layers = layers

    def groups(self, model):
        return [self._group(number, weights) for number, weights in enumerate(self.layers)]

    def _group(self, number: int, weights: dict[str, torch.Tensor]) -> Group:
        units = len(next(iter(weights.values())))
        parts = []
        for name, weight in weights.items():
            module = nn.Linear(1, 1)
            module.weight = nn.Parameter(weight.clone())
            side = "reads" if name == list(weights)[-1] else "writes"
            index = torch.arange(units)[:, None]
            parts.append(
                Part(name=name, module=module, attribute="weight", dimension=0, index=index, side=side)  # type: ignore[arg-type]
            )
        return Group(name=f"layer {number}", units=units, parts=tuple(parts), layer=number)

    def remove(self, model, keep): ...


def scored(scores: Sequence[torch.Tensor], dense: Sequence[int]) -> Scored:
    structure = Made(*({"up": torch.zeros(len(score), 1)} for score in scores))
    context = PruningContext(generator=torch.Generator().manual_seed(0))
    return Scored(model=EMPTY, structure=structure, scores=scores, dense_units=dense, context=context)


def kept(
    allocation: Allocation, scores: Iterable[Sequence[float]], dense: Sequence[int], sparsity: float
) -> list[list[int]]:
    """Numbers of the units that stay in each group."""
    given = scored([torch.as_tensor(score, dtype=torch.float64) for score in scores], dense)
    losses = allocation.losses(given, sparsity)
    groups = given.structure.groups(None)  # type: ignore[arg-type]
    return [
        given.structure.select(group, score, units - lost).nonzero().flatten().tolist()
        for group, score, units, lost in zip(groups, given.scores, dense, losses, strict=True)
    ]


def flags(units: int, keep: Iterable[int]) -> torch.Tensor:
    """(units,) bool, True at the numbers of `keep`."""
    mask = torch.zeros(units, dtype=torch.bool)
    mask[list(keep)] = True
    return mask
