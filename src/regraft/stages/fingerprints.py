"""Digests that show that two runs had the same in hand."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from regraft.cache import digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from regraft.interfaces import LanguageModel


def weights(model: PreTrainedModel) -> str:
    """Hex digest of all parameters and buffers: names, shapes, dtypes, bytes."""
    import torch

    hashed = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        hashed.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        hashed.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return hashed.hexdigest()[:16]


def units(model: LanguageModel) -> str:
    """Digest of the units removed so far, in the numbering of the dense model."""
    import numpy

    if not model.masks:
        return digest(model.removed)
    masks = {
        name: hashlib.sha256(numpy.packbits(mask.cpu().numpy()).tobytes()).hexdigest()
        for name, mask in model.masks.items()
    }
    return digest([model.removed, masks])
