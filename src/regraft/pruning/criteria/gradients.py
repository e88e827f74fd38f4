"""What the criteria share that differentiate a loss of the calibration questions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from regraft.interfaces import LanguageModel, Loss, PruningContext

if TYPE_CHECKING:
    import torch


def values(model: LanguageModel, loss: Loss, context: PruningContext) -> Iterator[torch.Tensor]:
    """The mean of `loss` over the calibration questions in parts, one a batch, each with graph: they sum to it.

    Attention is computed step by step, since the fused kernels have no second derivative.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    count = sum(_counted(model, loss, context))
    for batch in context.calibration.batches(loss):
        with sdpa_kernel(SDPBackend.MATH):
            yield context.calibration.value(model, loss, batch).total / count


def _counted(model: LanguageModel, loss: Loss, context: PruningContext) -> Iterator[int]:
    import torch

    with torch.no_grad():
        for batch in context.calibration.batches(loss):
            yield context.calibration.value(model, loss, batch).count


def gradients(
    model: LanguageModel, of: Sequence[torch.Tensor], loss: Loss, context: PruningContext
) -> list[torch.Tensor]:
    """Of the mean of `loss` over the calibration questions, with respect to each tensor of `of`; float32."""
    import torch

    sums = [torch.zeros_like(tensor, dtype=torch.float32) for tensor in of]
    for value in values(model, loss, context):
        # zeros for what lies behind all that the loss looks at
        found = torch.autograd.grad(value, of, allow_unused=True, materialize_grads=True)
        for total, gradient in zip(sums, found, strict=True):
            total += gradient
    return sums
