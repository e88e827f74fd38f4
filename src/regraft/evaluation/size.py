"""How large a model is, and how much it computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Size:
    """Counts of a model; tied weights count once."""

    parameters: int
    non_embedding_parameters: int
    bytes: int
    bits: int
    macs_per_token: int
    """Multiply-accumulates of one token at the end of a context of `context` tokens."""
    context: int


def measure(model: PreTrainedModel, context: int) -> Size:
    """The size of `model`.

    MACs per token, at a context of T tokens: every linear map's weights once, the head's too, and in each layer's
    attention T * heads * head_dim for the scores and as many for the values. Norms and activations are left out, as
    is usual.
    """
    from regraft.models.architecture import attention_width, decoder_layers, is_linear

    parameters = list(model.parameters())
    embedding = model.get_input_embeddings().weight  # type: ignore[union-attr]
    head = model.get_output_embeddings()
    total = sum(parameter.numel() for parameter in parameters)
    tables = {id(embedding): embedding.numel()}
    if head is not None:
        tables[id(head.weight)] = head.weight.numel()  # type: ignore[union-attr,operator]
    linear = sum(
        module.weight.numel()  # type: ignore[union-attr,operator]
        for module in model.modules()
        if is_linear(module)
    )
    attention = sum(2 * context * attention_width(model, layer) for layer in decoder_layers(model))
    return Size(
        parameters=total,
        non_embedding_parameters=total - sum(tables.values()),
        bytes=sum(parameter.numel() * parameter.element_size() for parameter in parameters),
        bits=8 * max(parameters, key=lambda parameter: parameter.numel()).element_size(),
        macs_per_token=int(linear) + attention,
        context=context,
    )
