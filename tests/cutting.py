"""Models whose layers have different widths, cut by hand: how they came to be does not matter to what reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from architectures import tiny_model
from transformers import PreTrainedModel

from regraft.models.architecture import attention_blocks, decoder_layers, mlp_blocks


def cut_model(
    architecture: str, *, neurons: Sequence[int] = (), groups: Sequence[int] = (), **overrides: Any
) -> PreTrainedModel:
    """A tiny model of which each layer keeps as many neurons, and groups of keys and values with their queries.

    Those in the middle go, so that what is kept is no prefix.
    """
    model = tiny_model(architecture, **overrides)
    for block, left in zip(mlp_blocks(model), neurons, strict=False):
        for name, projection in block.projections.items():
            projection.cut(_kept(block.units, left), inputs=name == "down")
    for layer, attention, left in zip(decoder_layers(model), attention_blocks(model), groups, strict=False):
        kept = _kept(attention.key_value_heads, left)
        per = attention.heads // attention.key_value_heads
        pairs = _channels(kept, attention.head_dim)
        queries = _channels((kept[:, None] * per + torch.arange(per)).flatten(), attention.head_dim)
        width, narrow = attention.heads * attention.head_dim, attention.key_value_heads * attention.head_dim
        if attention.fused is not None:
            attention.fused.cut(torch.cat([queries, width + pairs, width + narrow + pairs]), inputs=False)
            block: Any = layer.attn
            block.num_heads, block.split_size = left, left * attention.head_dim
        else:
            attention.query.cut(queries, inputs=False)  # type: ignore[union-attr]
            for projection in (attention.key, attention.value):
                projection.cut(pairs, inputs=False)  # type: ignore[union-attr]
            block = layer.self_attn
            for name, channels, size in (("q_norm", queries, width), ("k_norm", pairs, narrow)):
                norm = getattr(block, name, None)
                if norm is not None and len(norm.weight) == size:
                    norm.weight = torch.nn.Parameter(norm.weight.detach()[channels])
        attention.output.cut(queries, inputs=True)
    return model


def _kept(units: int, left: int) -> torch.Tensor:
    first = (left + 1) // 2
    return torch.cat([torch.arange(first), torch.arange(units - (left - first), units)])


def _channels(heads: torch.Tensor, head_dim: int) -> torch.Tensor:
    return (heads[:, None] * head_dim + torch.arange(head_dim)).flatten()
