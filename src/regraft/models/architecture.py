"""Finds the blocks of a causal language model by their structure.

No table of model types. The decoder layers are the longest outermost list of like modules. In a layer, the feed-forward
block is the module with one or two projections of one shape (units, hidden) and one back, (hidden, units); the
attention is the module with a query, two like projections for keys and values and one back from the queries' width, or
with all three fused into one projection.
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


def decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The decoder layers, first to last.

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
    return max((list(layers) for layers in outermost), key=len)


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


_WANTED_MLP = (
    "one feed-forward block: a module with an up-projection (units, hidden), perhaps a gate (its name says so) of the "
    "same shape, and a projection (hidden, units) back; gate and up fused into one matrix, and experts, are not known"
)
_WANTED_ATTENTION = (
    "one attention block: a module with projections q*, k*, v* and one back to the hidden size, or with one fused and "
    "one back"
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
    if _as_mlp(model, module) is not None:
        return None
    linear = _linear_children(module)
    hidden = _hidden_size(model)
    head_dim = _head_dim(model, module)
    if len(linear) == 2:
        (fused, output) = linear.values()
        width = output.shape[1]
        both = fused.shape[0] - width
        if output.shape[0] != hidden or fused.shape[1] != hidden or both <= 0 or both % (2 * head_dim):
            return None
        query = key = value = None
        key_value_heads = both // (2 * head_dim)
    elif len(linear) == 4:
        named = {letter: [name for name in linear if name.startswith(letter)] for letter in "qkv"}
        if any(len(names) != 1 for names in named.values()):
            return None
        query, key, value = (linear.pop(names[0]) for names in named.values())
        (output,) = linear.values()
        width = output.shape[1]
        if key.shape != value.shape or query.shape != (width, hidden) or output.shape[0] != hidden:
            return None
        fused = None
        key_value_heads = key.shape[0] // head_dim
    else:
        return None
    return Attention(
        query=query,
        key=key,
        value=value,
        fused=fused,
        output=output,
        heads=width // head_dim,
        key_value_heads=key_value_heads,
        head_dim=head_dim,
    )


def _linear_children(module: nn.Module) -> dict[str, Projection]:
    return {name: Projection(module=child) for name, child in module.named_children() if is_linear(child)}


def _hidden_size(model: PreTrainedModel) -> int:
    return int(model.config.get_text_config().hidden_size)


def _head_dim(model: PreTrainedModel, module: nn.Module) -> int:
    """Size of a head: no shape tells it, so the module or the config does."""
    config = model.config.get_text_config()
    own: Any = getattr(module, "head_dim", None) or getattr(config, "head_dim", None)
    return int(own or config.hidden_size // config.num_attention_heads)


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
