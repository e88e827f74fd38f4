"""Finds the blocks of a causal language model by their structure.

No table of model types. The decoder layers are the longest outermost list of like modules. In a layer, the feed-forward
block is the module with one or two projections of one shape (units, hidden) and one back, (hidden, units); the
attention is the module that knows the size of its heads and has projections for queries, keys, values (or all three
fused) and one back to the hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
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
        """Keep only the rows (outputs) or columns (inputs) `keep`, in place: weight and bias become smaller."""
        from torch import nn

        def kept(parameter: nn.Parameter, dimension: int) -> nn.Parameter:
            chosen = parameter.detach().index_select(dimension, keep.to(parameter.device))
            return nn.Parameter(chosen, requires_grad=parameter.requires_grad)

        module: Any = self.module
        module.weight = kept(module.weight, 1 if inputs != self.transposed else 0)
        if not inputs and module.bias is not None:
            module.bias = kept(module.bias, 0)
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
    def units(self) -> int:
        """Number of intermediate neurons."""
        return self.up.shape[0]

    @property
    def projections(self) -> dict[str, Projection]:
        named = {"gate": self.gate, "up": self.up, "down": self.down}
        return {name: projection for name, projection in named.items() if projection is not None}


@dataclass(frozen=True, kw_only=True)
class Attention:
    """An attention block: either `query`, `key` and `value`, or all of them in `fused`; the others are None."""

    module: nn.Module
    query: Projection | None
    key: Projection | None
    value: Projection | None
    fused: Projection | None
    output: Projection
    heads: int
    """Query heads."""
    key_value_heads: int
    """Heads of keys and of values; each serves `heads / key_value_heads` query heads."""
    head_dim: int

    @property
    def inward(self) -> dict[str, Projection]:
        """What reads the hidden states; all three in one go by the name of the first."""
        named = {"query": self.query or self.fused, "key": self.key, "value": self.value}
        return {name: projection for name, projection in named.items() if projection is not None}

    @property
    def norms(self) -> dict[str, nn.Module]:
        """Name -> module of each norm inside the block."""
        return {
            name: child
            for name, child in self.module.named_children()
            if not is_linear(child) and getattr(child, "weight", None) is not None
        }


def decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The decoder layers, first to last.

    Raises:
        ValueError: The model has no list of like modules.
    """
    return list(decoder_list(model))


def decoder_list(model: PreTrainedModel) -> nn.ModuleList:
    """The list in which the model keeps its decoder layers.

    Raises:
        ValueError: The model has no list of like modules.
    """
    from torch import nn

    decoder = model.get_decoder()
    lists = {name: module for name, module in decoder.named_modules() if isinstance(module, nn.ModuleList)}
    outermost = [
        module
        for name, module in lists.items()
        if not any(name.startswith(f"{other}.") for other in lists) and len({type(item) for item in module}) == 1
    ]
    if not outermost:
        raise ValueError(_unknown(model, "a list of like decoder layers", decoder))
    return max(outermost, key=len)


def mlp_blocks(model: PreTrainedModel) -> list[MLP]:
    """The feed-forward block of each decoder layer.

    Raises:
        ValueError: A layer has no such block, or more than one; the message lists what was found.
    """
    return [_only(model, layer, _as_mlp, _WANTED_MLP) for layer in decoder_layers(model)]


def attention_blocks(model: PreTrainedModel) -> list[Attention]:
    """The attention of each decoder layer.

    Raises:
        ValueError: A layer has no such block, or more than one; the message lists what was found.
    """
    return [_only(model, layer, _as_attention, _WANTED_ATTENTION) for layer in decoder_layers(model)]


def linear_maps(model: PreTrainedModel) -> list[dict[str, Projection]]:
    """The linear maps of each decoder layer by name.

    Those of the blocks are `gate`, `up`, `down`, `query`, `key`, `value`, `fused` and `output`; any other goes by its
    path in the layer.

    Raises:
        ValueError: A layer has no feed-forward block or no attention.
    """
    maps = []
    for layer, mlp, attention in zip(decoder_layers(model), mlp_blocks(model), attention_blocks(model), strict=True):
        blocks = mlp.projections | {name: getattr(attention, name) for name in _ATTENTION}
        names = {id(projection.module): name for name, projection in blocks.items() if projection is not None}
        maps.append(
            {
                names.get(id(module), path): Projection(module=module)
                for path, module in layer.named_modules()
                if is_linear(module)
            }
        )
    return maps


_ATTENTION = ("query", "key", "value", "fused", "output")
_WANTED_MLP = (
    "one feed-forward block: a module with an up-projection (units, hidden), perhaps a gate (its name says so) of the "
    "same shape, and a projection (hidden, units) back; gate and up fused into one matrix, and experts, are not known"
)
_WANTED_ATTENTION = (
    "one attention block: a module that knows its head_dim, with projections q*, k*, v* (or all three fused) and one "
    "back to the hidden size"
)


def _only(model: PreTrainedModel, layer: nn.Module, reading: Any, wanted: str) -> Any:
    found = [block for module in layer.modules() if (block := reading(model, module)) is not None]
    if len(found) != 1:
        raise ValueError(_unknown(model, wanted, layer))
    return found[0]


def _as_mlp(model: PreTrainedModel, module: nn.Module) -> MLP | None:
    linear = _linear_children(module)
    if len(linear) not in (2, 3):
        return None
    hidden = _hidden_size(model)
    backwards = [
        name
        for name, projection in linear.items()
        if projection.shape[0] == hidden
        and all(other.shape == projection.shape[::-1] for key, other in linear.items() if key != name)
    ]
    if not backwards:
        return None
    # in a square block every shape fits, and only its name or its place tells the way back
    back = next((name for name in backwards if "down" in name), backwards[-1])
    down = linear.pop(back)
    if len(linear) == 1:
        return MLP(gate=None, up=next(iter(linear.values())), down=down)
    gates = [name for name in linear if "gate" in name]
    if len(gates) != 1:
        return None
    gate = linear.pop(gates[0])
    return MLP(gate=gate, up=next(iter(linear.values())), down=down)


def _as_attention(model: PreTrainedModel, module: nn.Module) -> Attention | None:
    # no shape tells the size of a head, and only it tells fused queries from a fused gate: the module must know it
    head_dim: Any = getattr(module, "head_dim", None) or getattr(module, "head_size", None)
    if not isinstance(head_dim, int):
        return None
    linear, hidden = _linear_children(module), _hidden_size(model)
    query = key = value = fused = None
    if len(linear) == 2:
        one, other = linear.values()
        fused, output = (one, other) if one.shape[1] == hidden and one.shape[0] > other.shape[1] else (other, one)
        widths = (fused.shape[0] - output.shape[1]) // 2
    elif len(linear) == 4:
        named = {letter: [name for name in linear if name.startswith(letter)] for letter in "qkv"}
        if any(len(found) != 1 for found in named.values()):
            return None
        query, key, value = (linear.pop(found[0]) for found in named.values())
        (output,) = linear.values()
        widths = key.shape[0]
        if key.shape != value.shape or query.shape[0] != output.shape[1]:
            return None
    else:
        return None
    if output.shape[0] != hidden or widths <= 0 or widths % head_dim:
        return None
    return Attention(
        module=module,
        query=query,
        key=key,
        value=value,
        fused=fused,
        output=output,
        heads=output.shape[1] // head_dim,
        key_value_heads=widths // head_dim,
        head_dim=head_dim,
    )


def _linear_children(module: nn.Module) -> dict[str, Projection]:
    return {name: Projection(module=child) for name, child in module.named_children() if is_linear(child)}


def _hidden_size(model: PreTrainedModel) -> int:
    return int(model.config.get_text_config().hidden_size)


def is_linear(module: nn.Module) -> bool:
    from torch import nn

    return isinstance(module, nn.Linear) or type(module).__name__ == CONV1D


def _unknown(model: PreTrainedModel, wanted: str, where: nn.Module) -> str:
    found = [
        f"{name} {type(child).__name__} {tuple(child.weight.shape)}"
        for name, child in where.named_modules()
        if name and getattr(child, "weight", None) is not None
    ]
    listed = ", ".join(found[:16]) + (f" and {len(found) - 16} more" if len(found) > 16 else "")
    return (
        f"{type(model).__name__}: looked in {type(where).__name__} for {wanted}. Found {listed or 'no weights'}. "
        "Models built like Llama, OLMo2, Qwen3, Gemma3 or GPT-2 are known; choose one of these."
    )


def final_norm(model: PreTrainedModel) -> Callable[[torch.Tensor], torch.Tensor]:
    """What normalises the last layer's hidden states before the head; of a model without one the identity."""
    inside = {id(module) for layer in decoder_layers(model) for module in layer.modules()}
    hidden = model.config.get_text_config().hidden_size
    found: list[Any] = [
        module
        for module in model.base_model.modules()
        if id(module) not in inside and tuple(getattr(getattr(module, "weight", None), "shape", ())) == (hidden,)
    ]
    # those of the embedding come first
    return found[-1] if found else _as_it_is


def _as_it_is(states: torch.Tensor) -> torch.Tensor:
    return states
