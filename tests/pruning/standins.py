"""Structures that only find units: enough to score them, whatever removes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from regraft.interfaces import Group, LanguageModel, Part, Structure
from regraft.models.architecture import attention_blocks, decoder_layers, mlp_blocks
from regraft.models.surgery import consecutive, owned


class StandIn(Structure):
    matrices = ()

    def remove(self, model: LanguageModel, keep: Sequence[torch.Tensor]) -> None:
        raise AssertionError("nothing is removed here")


class Heads(StandIn):
    """Groups of keys and values with their query heads, of attention that is not fused."""

    kind = "heads"
    name = "heads"

    def groups(self, model: PreTrainedModel) -> list[Group]:
        groups = []
        for layer, block in enumerate(attention_blocks(model)):
            units = block.key_value_heads
            queries = consecutive(units, block.heads // units * block.head_dim)
            keys = consecutive(units, block.head_dim)
            parts = [
                *owned("query", block.query, queries, "writes"),  # type: ignore[arg-type]
                *owned("key", block.key, keys, "writes"),  # type: ignore[arg-type]
                *owned("value", block.value, keys, "writes"),  # type: ignore[arg-type]
                *owned("output", block.output, queries, "reads"),
            ]
            groups.append(Group(name=f"attention of layer {layer}", units=units, parts=tuple(parts), layer=layer))
        return groups


class Hidden(StandIn):
    """What reads the residual stream."""

    kind = "hidden"
    name = "hidden"

    def groups(self, model: PreTrainedModel) -> list[Group]:
        parts: list[Part] = []
        index = consecutive(model.config.hidden_size)
        for layer, (attention, mlp) in enumerate(zip(attention_blocks(model), mlp_blocks(model), strict=True)):
            readers = {"query": attention.query, "key": attention.key, "value": attention.value}
            for name, projection in (readers | {"gate": mlp.gate, "up": mlp.up}).items():
                parts += owned(f"{name} {layer}", projection, index, "reads")  # type: ignore[arg-type]
        head = model.get_output_embeddings()
        parts.append(Part(name="head", module=head, attribute="weight", dimension=1, index=index, side="reads"))
        return [Group(name="hidden", units=len(index), parts=tuple(parts))]


class Layers(StandIn):
    """One group, whose units own nothing that is named."""

    kind = "layers"
    name = "layers"

    def groups(self, model: PreTrainedModel) -> list[Group]:
        return [Group(name="layers", units=len(decoder_layers(model)), parts=())]


class Weights(StandIn):
    """The single weights of each matrix that reads neurons."""

    kind = "weights"
    name = "weights"

    def groups(self, model: PreTrainedModel) -> list[Group]:
        groups = []
        for layer, block in enumerate(mlp_blocks(model)):
            module = block.down.module
            part = Part(name="down", module=module, attribute="weight", dimension=0, index=None, side="reads")
            groups.append(
                Group(name=f"down of layer {layer}", units=part.parameter.numel(), parts=(part,), layer=layer)
            )
        return groups
