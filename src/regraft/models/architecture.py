"""Finds the blocks of a causal language model by their structure.

No table of model types: decoder layers are the longest list of like modules; in a layer, the feed-forward block is the
module whose linear projections are one or two from the hidden size to the intermediate size and one back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

CONV1D = "Conv1D"
"""GPT-2's linear layer, whose weight is (in, out)."""


@dataclass(frozen=True, kw_only=True)
class Projection:
    """A linear map inside a block, however its weight is laid out."""

    module: nn.Module

    @property
    def transposed(self) -> bool:
        return type(self.module).__name__ == CONV1D

    @property
    def weight(self) -> torch.Tensor:
        """(out, in)."""
        weight: Any = self.module.weight
        return weight.T if self.transposed else weight

    @property
    def shape(self) -> tuple[int, int]:
        """Out, in."""
        out, into = self.weight.shape
        return int(out), int(into)

    def cut(self, keep: torch.Tensor, *, inputs: bool) -> None:
        """Keep only the rows (outputs) or columns (inputs) `keep`, in place."""
        import torch

        module: Any = self.module
        dimension = 1 if inputs != self.transposed else 0
        weight = module.weight
        kept = weight.detach().index_select(dimension, keep.to(weight.device)).clone()
        module.weight = torch.nn.Parameter(kept, requires_grad=weight.requires_grad)
        if not inputs and module.bias is not None:
            bias = module.bias.detach().index_select(0, keep.to(weight.device)).clone()
            module.bias = torch.nn.Parameter(bias, requires_grad=module.bias.requires_grad)
        if self.transposed:
            module.nf, module.nx = self.shape
        else:
            module.out_features, module.in_features = self.shape


@dataclass(frozen=True, kw_only=True)
class MLP:
    """A feed-forward block. `gate` is None where the block has none."""

    gate: Projection | None
    up: Projection
    down: Projection

    @property
    def projections(self) -> dict[str, Projection]:
        named = {"gate": self.gate, "up": self.up, "down": self.down}
        return {name: projection for name, projection in named.items() if projection is not None}


def decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The decoder layers, first to last.

    Raises:
        ValueError: The model has no list of like modules.
    """
    from torch import nn

    lists = [
        module
        for module in model.modules()
        if isinstance(module, nn.ModuleList) and len(module) > 0 and len({type(item) for item in module}) == 1
    ]
    if not lists:
        raise ValueError(_unknown(model, "a list of like decoder layers", model))
    return list(max(lists, key=len))


def mlp_blocks(model: PreTrainedModel) -> list[MLP]:
    """The feed-forward block of each decoder layer.

    Raises:
        ValueError: A layer has no such block, or more than one; the message lists what was found.
    """
    return [_mlp(model, layer) for layer in decoder_layers(model)]


def _mlp(model: PreTrainedModel, layer: nn.Module) -> MLP:
    found = [block for module in layer.modules() if (block := _as_mlp(module)) is not None]
    if len(found) != 1:
        wanted = "one module with one or two projections from the hidden size and one back to it"
        raise ValueError(_unknown(model, wanted, layer))
    return found[0]


def _as_mlp(module: nn.Module) -> MLP | None:
    linear = {name: Projection(module=child) for name, child in module.named_children() if is_linear(child)}
    if len(linear) not in (2, 3):
        return None
    for name, down in linear.items():
        hidden, units = down.shape
        others = {key: projection for key, projection in linear.items() if key != name}
        if all(projection.shape == (units, hidden) for projection in others.values()) and _goes_back(name, linear):
            if len(others) == 1:
                return MLP(gate=None, up=next(iter(others.values())), down=down)
            gates = [key for key in others if "gate" in key]
            if len(gates) == 1:
                (up,) = (projection for key, projection in others.items() if key != gates[0])
                return MLP(gate=others[gates[0]], up=up, down=down)
    return None


def _goes_back(name: str, linear: dict[str, Projection]) -> bool:
    """Whether this is the way back to the hidden size: shapes cannot tell in a square block, its name or place can."""
    return name == next((key for key in linear if "down" in key), list(linear)[-1])


def is_linear(module: nn.Module) -> bool:
    from torch import nn

    return isinstance(module, nn.Linear) or type(module).__name__ == CONV1D


def _unknown(model: PreTrainedModel, wanted: str, where: nn.Module) -> str:
    linear = [
        f"{name} {tuple(child.weight.shape)}"  # type: ignore[union-attr,arg-type]
        for name, child in where.named_modules()
        if is_linear(child)
    ]
    return (
        f"{type(model).__name__}: looked for {wanted} in {type(where).__name__}, found the linear modules "
        f"{', '.join(linear[:12]) or 'none'}. Models of the Llama, OLMo2, Qwen3, Gemma3 and GPT-2 shapes are known."
    )


def attention_width(model: PreTrainedModel, layer: nn.Module) -> int:
    """Heads times head size of a decoder layer: the width of its queries.

    It is what the projection back to the hidden size takes in: the one that shares its parent with the projections
    of queries, keys and values, or with the fused one.

    Raises:
        ValueError: The layer has no attention of that form.
    """
    for module in layer.modules():
        if _as_mlp(module) is not None:
            continue
        linear = [Projection(module=child) for child in module.children() if is_linear(child)]
        if len(linear) in (2, 4):
            *_, back = linear
            return back.shape[1]
    raise ValueError(_unknown(model, "an attention block (query, key, value and output, or fused)", layer))
