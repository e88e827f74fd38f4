"""Which floating-point format a forward pass computes in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from transformers import PreTrainedModel

Precision = Literal["auto", "float32", "bfloat16"]


def autocast(model: PreTrainedModel, precision: Precision) -> AbstractContextManager[Any]:
    """The autocast that `precision` means for this model on its device."""
    if resolved_precision(model, precision) == "bfloat16":
        return torch.autocast(model.device.type, dtype=torch.bfloat16)
    return nullcontext()


def computed_in(weight: torch.Tensor) -> torch.dtype:
    """The dtype in which a linear map of `weight` computes here: that of the autocast in force, or its own."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


def resolved_precision(model: PreTrainedModel, precision: Precision) -> Literal["float32", "bfloat16"]:
    """What `precision` means here.

    `auto` is bfloat16 where it is faster: on a GPU that has it, and on a CPU that has it if the matrices are large
    enough.
    """
    if precision != "auto":
        return precision
    if model.device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    has = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    pays = model.device.type == "cpu" and has and model.config.get_text_config().hidden_size >= 256
    return "bfloat16" if pays else "float32"
