"""How large a model is, and how much it computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Size:
    """Counts of a model; tied weights count once.

    Masked weights count in `bytes` and `macs_per_token` only: their matrices are stored and computed in full.
    """

    parameters: int
    non_embedding_parameters: int
    """Without the tables of tokens and positions, and without the output head."""
    bytes: int
    bits: int
    """Width of one stored number of the largest tensor."""
    macs_per_token: int
    """Multiply-accumulates of one token at the end of a context of `context` tokens."""
    context: int


def measure(model: PreTrainedModel, context: int, masks: Mapping[str, torch.Tensor] | None = None) -> Size:
    """The size of `model`.

    MACs per token, at a context of T tokens: every linear map's weights once, the head's too (tied or not), and in each
    layer's attention T * heads * head_dim for the scores and as many for the values. That is the last token; the causal
    mask saves earlier ones nothing here, nor does a sliding window shorter than T. Norms, activations, biases and
    embedding look-ups are left out, as is usual.

    Args:
        model: On any device, also on meta.
        context: T, tokens that the token attends to, itself among them.
        masks: Name of a parameter -> bool of its shape, False where a weight is gone.

    Raises:
        ValueError: The model's attention is of no known form.
    """
    from torch import nn

    from regraft.models.architecture import attention_blocks, is_linear

    parameters = list(model.parameters())
    masked = sum(int((~mask).sum()) for mask in (masks or {}).values())
    total = sum(parameter.numel() for parameter in parameters) - masked
    tables: list[Any] = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    if (head := model.get_output_embeddings()) is not None:
        tables.append(head)
    embedding = {id(table.weight): table.weight.numel() for table in tables}
    maps: list[Any] = [module for module in model.modules() if is_linear(module)]
    linear = sum(module.weight.numel() for module in maps)
    attention = sum(2 * context * block.heads * block.head_dim for block in attention_blocks(model))
    return Size(
        parameters=total,
        non_embedding_parameters=total - sum(embedding.values()),
        bytes=sum(parameter.numel() * parameter.element_size() for parameter in parameters),
        bits=8 * max(parameters, key=lambda parameter: parameter.numel()).element_size(),
        macs_per_token=linear + attention,
        context=context,
    )
