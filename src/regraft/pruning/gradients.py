"""Gradients of a loss over the calibration questions, and a model that is left as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, get_args

from regraft.interfaces import Calibration, Group, LanguageModel, Loss, PruningNeed

if TYPE_CHECKING:
    import torch
    from torch import nn


@contextlib.contextmanager
def differentiated(model: LanguageModel, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Within, `parameters` have gradients, at first none, and nothing else has; afterwards all is as it was."""
    wanted = {id(parameter) for parameter in parameters}
    before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.model.parameters()]
    for parameter, _, _ in before:
        parameter.grad = None
        parameter.requires_grad_(id(parameter) in wanted)
    try:
        yield
    finally:
        for parameter, required, gradient in before:
            parameter.requires_grad_(required)
            parameter.grad = gradient


def needed(*losses: Loss) -> frozenset[PruningNeed]:
    """Calibration questions, and what these losses need."""
    asked = {"calibration"}.union(*(loss.needs for loss in losses))
    return frozenset(need for need in get_args(PruningNeed) if need in asked)


def backward(model: LanguageModel, calibration: Calibration, loss: Loss) -> Iterator[int]:
    """Adds to the gradients those of the loss's sum over each batch, and yields how much counted in it."""
    import torch

    for batch in calibration.batches(loss):
        value = calibration.value(model, loss, batch)
        value.total.backward()
        for parameter in model.model.parameters():
            if parameter.requires_grad and parameter.grad is None:
                # behind all that the loss looks at
                parameter.grad = torch.zeros_like(parameter)
        yield value.count


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """In float32, or float64 if it is."""
    import torch

    return tensor if tensor.dtype == torch.float64 else tensor.float()


def checked(scores: list[torch.Tensor], criterion: object, next_step: str) -> list[torch.Tensor]:
    """`scores`, unless all are zero.

    Raises:
        ValueError: They are, since the loss has no gradient: with the next step.
    """
    if not any(bool(score.any()) for score in scores):
        raise ValueError(
            f"{type(criterion).__name__}: the gradient of the loss is zero everywhere, so nothing is told apart. "
            f"{next_step}"
        )
    return scores


@contextlib.contextmanager
def unread(groups: Sequence[Group], gone: Sequence[torch.Tensor]) -> Iterator[None]:
    """Within, no linear map takes up the units of `gone`, (units,) bool for each group; then all do, to the bit."""
    import torch

    kept = []
    with torch.no_grad():
        for group, units in zip(groups, gone, strict=True):
            for part in group.readers:
                assert part.index is not None
                weight = part.parameter.detach()
                at = part.index[units.cpu()].flatten().to(weight.device)
                kept.append((weight, part.dimension, at, weight.index_select(part.dimension, at)))
                weight.index_fill_(part.dimension, at, 0)
    try:
        yield
    finally:
        for weight, dimension, at, columns in kept:
            weight.index_copy_(dimension, at, columns)
