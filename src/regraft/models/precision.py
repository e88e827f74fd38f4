"""Which floating-point format a forward pass computes in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from transformers import PreTrainedModel


def autocast(model: PreTrainedModel, precision: Literal["auto", "float32", "bfloat16"]) -> AbstractContextManager[Any]:
    """The autocast that `precision` means for this model on its device."""
    device = model.device.type
    if precision == "auto":
        precision = "bfloat16" if bfloat16_pays(model) else "float32"
    return torch.autocast(device, dtype=torch.bfloat16) if precision == "bfloat16" else nullcontext()


def bfloat16_pays(model: PreTrainedModel) -> bool:
    """Whether bfloat16 is faster: on a GPU that has it, and on a CPU that has it if the matrices are large enough."""
    if model.device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    has = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return model.device.type == "cpu" and has and model.config.get_text_config().hidden_size >= 256
