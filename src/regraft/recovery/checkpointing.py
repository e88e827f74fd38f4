"""Gradient checkpointing (arXiv 1604.06174): only what enters each decoder layer is kept for the backward pass.

The rest is computed again there: one more forward pass of the layers, for the memory of one layer's activations in
place of all. The switch of transformers works in training mode only, and all training here is in evaluation mode.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from regraft.models.architecture import decoder_layers


@contextmanager
def recomputing(model: PreTrainedModel) -> Iterator[None]:
    """While the block runs the layers of `model` keep no activations."""
    layers: list[Any] = decoder_layers(model)
    for layer in layers:
        # without dropout nothing is drawn in a layer, so no random state needs to be kept
        layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
