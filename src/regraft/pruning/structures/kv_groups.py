"""Attention heads: a head of keys and values with all the query heads that it serves.

Under grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245) query head h reads keys and values h // (heads /
key_value_heads). So the smallest thing that can go without a change to the others is a group: rows of query, key and
value, columns of the output. Where each query head has its own keys and values this is a head, as in Michel et al.
2019 (arXiv 1905.10650) and Voita et al. 2019 (arXiv 1905.09418).

OLMo2 norms the queries of all heads together, and the keys: RMS over all their channels. Of that norm's weights those
of the group go too, and the others stay as they are. What is left computes as the dense model does with these channels
at zero and left out of the mean of squares: a norm counts only the channels that are there. Norms of each head by
itself (Qwen3, Gemma3) are not touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from regraft.interfaces import Group, Kind, Part
from regraft.pruning.structures.cut import Cut

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from regraft.models.architecture import Attention

QUERY_HEADS = ("num_heads", "num_attention_heads", "n_head", "n_heads")
"""What a module may call the number of its query heads."""
KEY_VALUE_HEADS = ("num_key_value_heads", "n_kv_heads")
"""What it may call that of its keys and values."""
FUSED_SPLIT = "split_size"
"""What GPT-2 calls the width of queries, keys and values in their one matrix."""


@dataclass(frozen=True, kw_only=True)
class KvGroups(Cut):
    """Heads of keys and values, each with its query heads, removed for real."""

    kind: ClassVar[Kind] = "heads"
    matrices: ClassVar[tuple[str, ...]] = ("query", "key", "value", "output")

    name: str = "kv_groups"
    """Name of the structure in records."""

    def groups(self, model: PreTrainedModel) -> list[Group]:
        """One for each layer: `query`, `key` and `value` write a group of heads, `output` reads it."""
        from regraft.models.architecture import attention_blocks

        return [
            Group(
                name=f"attention of layer {layer}",
                units=block.key_value_heads,
                parts=tuple(_parts(block)),
                layer=layer,
            )
            for layer, block in enumerate(attention_blocks(model))
        ]

    def check(self, model: PreTrainedModel) -> None:
        from regraft.models.architecture import attention_blocks

        blocks = attention_blocks(model)
        for layer, block in enumerate(blocks):
            known = {id(part.parameter) for part in _parts(block)} | {id(block.output.module.bias)}
            per_head = {id(norm.weight) for norm in block.norms.values() if norm.weight.shape == (block.head_dim,)}
            unknown = [
                f"{name} {tuple(parameter.shape)}"
                for name, parameter in block.module.named_parameters()
                if id(parameter) not in known | per_head
            ]
            if unknown:
                raise ValueError(
                    f"{type(model).__name__}: the attention of layer {layer} has {', '.join(unknown)}, and it is not "
                    "known what of that belongs to which head. Choose another model or pruner/structure."
                )
        if blocks[0].fused is not None and not _stands_apart(model, blocks[0]):
            raise ValueError(
                f"{type(model).__name__}: queries, keys and values lie in one matrix, but not one after the other, so "
                "which rows belong to which head is not known. Choose another model or pruner/structure."
            )

    def resize(self, model: PreTrainedModel) -> None:
        """The modules say how many heads they have; the config too, if all layers have as many and it can say so."""
        from regraft.models.architecture import attention_blocks

        blocks = attention_blocks(model)
        for block in blocks:
            heads = dict.fromkeys(QUERY_HEADS, block.heads) | dict.fromkeys(KEY_VALUE_HEADS, block.key_value_heads)
            for name, number in {**heads, FUSED_SPLIT: block.heads * block.head_dim}.items():
                if isinstance(getattr(block.module, name, None), int):
                    setattr(block.module, name, number)
        shapes = {(block.heads, block.key_value_heads, block.head_dim) for block in blocks}
        if len(shapes) == 1:
            _tell(model, *shapes.pop())


def _tell(model: PreTrainedModel, heads: int, key_value_heads: int, head_dim: int) -> None:
    from regraft.models.architecture import attention_blocks
    from regraft.models.surgery import rebuilt

    config = model.config.get_text_config()
    wanted = {"num_attention_heads": heads, "num_key_value_heads": key_value_heads, "head_dim": head_dim}
    wanted = {key: value for key, value in wanted.items() if key == "head_dim" or hasattr(config, key)}
    tried: tuple[dict[str, Any], ...] = ({}, wanted)
    for changes in tried:
        try:
            (block, *_) = attention_blocks(rebuilt(model, **changes))
        except ValueError:
            # GPT-2 makes its heads as large as the hidden size divided by their number
            continue
        if (block.heads, block.key_value_heads, block.head_dim) == (heads, key_value_heads, head_dim):
            for key, value in changes.items():
                setattr(config, key, value)
            return


def _parts(block: Attention) -> list[Part]:
    from regraft.models.surgery import consecutive, owned

    units, served = block.key_value_heads, block.heads // block.key_value_heads
    queries = consecutive(units, served * block.head_dim)
    keys = consecutive(units, block.head_dim)
    if block.fused is not None:
        after_queries = queries.numel()
        parts = [
            *owned("query", block.fused, queries, "writes"),
            *owned("key", block.fused, keys + after_queries, "writes"),
            *owned("value", block.fused, keys + after_queries + keys.numel(), "writes"),
        ]
    else:
        assert block.query is not None and block.key is not None and block.value is not None
        parts = [
            *owned("query", block.query, queries, "writes"),
            *owned("key", block.key, keys, "writes"),
            *owned("value", block.value, keys, "writes"),
        ]
    for name, norm in block.norms.items():
        for index, first in ((queries, "q"), (keys, "k")):
            if name.startswith(first) and norm.weight.shape == (index.numel(),) != (block.head_dim,):
                parts += [
                    Part(name=name, module=norm, attribute=attribute, dimension=0, index=index, side="scales")
                    for attribute in ("weight", "bias")
                    if getattr(norm, attribute, None) is not None
                ]
    return [*parts, *owned("output", block.output, queries, "reads")]


def _stands_apart(model: PreTrainedModel, block: Attention) -> bool:
    """Whether the rows taken for the values of the first group make what the output reads of it, and nothing else."""
    import torch

    (values,) = [part for part in _parts(block) if part.name == "value"]
    (output,) = [part for part in _parts(block) if part.name == "output"]
    assert values.index is not None and output.index is not None
    seen: list[Any] = []
    hook = block.output.module.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    parameter = values.parameter
    before = parameter.detach().clone()
    tokens = torch.arange(4, device=parameter.device)[None]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(input_ids=tokens, use_cache=False)
            rows = parameter.movedim(values.dimension, 0)
            rows[values.index[0].to(parameter.device)] += 1
            model(input_ids=tokens, use_cache=False)
    finally:
        hook.remove()
        model.train(training)
        with torch.no_grad():
            parameter.copy_(before)
    moved = (seen[0] != seen[1]).flatten(0, -2).any(dim=0).cpu()
    return not moved[output.index[1:].flatten()].any() and bool(moved[output.index[0]].any())
