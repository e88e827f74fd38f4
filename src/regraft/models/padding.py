"""A model with layers of different widths, filled up with zeros so that all are as wide as the widest.

A neuron or a head whose output column is zero adds nothing, so the function is the same. A norm over all heads of a
layer (OLMo2's of queries and keys) would see the zeros: over n channels of which m are alive the mean square is m / n
of what it was. So the projection before it is scaled by sqrt(n / m) and the norm's weight by sqrt(m / n): then epsilon,
which is added to the mean square, counts as before.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

from regraft.models.architecture import MLP, Attention, Projection, attention_blocks, decoder_layers, mlp_blocks
from regraft.models.widths import differences, empty, owner, widest

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel


def padded(model: PreTrainedModel) -> PreTrainedModel:
    """A copy whose layers all have the width of the widest, and whose config says so; the model itself if it is even.

    Raises:
        ValueError: The model differs from its class in something that zeros cannot fill.
    """
    config = widest(model)
    if not differences(model, config):
        return model
    wide = copy.deepcopy(model)
    wide.config = copy.deepcopy(config)
    target = empty(model, config)
    rows = zip(decoder_layers(wide), mlp_blocks(wide), attention_blocks(wide), decoder_layers(target), strict=True)
    for (layer, mlp, attention, goal), goal_mlp, goal_attention in zip(
        rows, mlp_blocks(target), attention_blocks(target), strict=True
    ):
        _pad_mlp(mlp, goal_mlp.units)
        _pad_attention(owner(layer, attention), attention, owner(goal, goal_attention), goal_attention)
    left = differences(wide, config)
    if left:
        raise ValueError(
            f"export=padded: zeros cannot make the model as {type(model).__name__} is built from its config ({left}). "
            "Choose export=remote_code."
        )
    built = dict(target.named_modules())
    for name, numbers in left.attributes.items():
        for attribute in numbers:
            setattr(wide.get_submodule(name), attribute, getattr(built[name], attribute))
    return wide


def _pad_mlp(mlp: MLP, units: int) -> None:
    for name, projection in mlp.projections.items():
        _fill(projection, units, inputs=name == "down")


def _pad_attention(block: nn.Module, attention: Attention, goal: nn.Module, wanted: Attention) -> None:
    heads, pairs = attention.head_dim * wanted.heads, attention.head_dim * wanted.key_value_heads
    if attention.heads * wanted.key_value_heads != wanted.heads * attention.key_value_heads:
        raise ValueError(
            f"export=padded: a layer has {attention.heads} query heads for {attention.key_value_heads} of keys and "
            f"values, another {wanted.heads} for {wanted.key_value_heads}: zeros cannot fill up heads in another "
            "proportion. Choose export=remote_code."
        )
    before = attention.output.shape[1]
    if attention.fused is not None:
        _fill_fused(attention.fused, (before, attention.head_dim * attention.key_value_heads), (heads, pairs))
    else:
        for projection, size in ((attention.query, heads), (attention.key, pairs), (attention.value, pairs)):
            assert projection is not None
            _pad_norm(block, goal, projection, size)
            _fill(projection, size, inputs=False)
    _fill(attention.output, heads, inputs=True)


def _pad_norm(block: nn.Module, goal: nn.Module, projection: Projection, size: int) -> None:
    """Fill up the norm over all outputs of `projection`, if `block` has one, and make up for it."""
    import torch

    letter = next(name for name, child in block.named_children() if child is projection.module)[0]
    for name, norm in block.named_children():
        weight: Any = getattr(norm, "weight", None)
        if not name.startswith(letter) or weight is None or weight.ndim != 1:
            continue
        wide: Any = goal.get_submodule(name).weight
        if wide.shape == weight.shape:
            continue
        if not _is_rms(norm):
            raise ValueError(
                f"export=padded: {name} ({type(norm).__name__}) runs over all heads of a layer and is no plain RMS "
                "norm, so zeros would change what it says. Choose export=remote_code."
            )
        scale = math.sqrt(size / len(weight))
        module: Any = projection.module
        with torch.no_grad():
            module.weight.mul_(scale)
            if module.bias is not None:
                module.bias.mul_(scale)
            norm.weight = torch.nn.Parameter(_longer(weight / scale, size, 0))


def _is_rms(norm: Any) -> bool:
    """Whether `norm` is weight * x / sqrt(mean(x^2)), seen from what it says of a large x."""
    import torch

    with torch.no_grad():
        seen = torch.linspace(100, 200, len(norm.weight), dtype=norm.weight.dtype, device=norm.weight.device)
        expected = norm.weight.float() * seen.float() / seen.float().square().mean().sqrt()
        return torch.allclose(norm(seen).float(), expected, rtol=2e-2)


def _fill(projection: Projection, size: int, *, inputs: bool) -> None:
    """Zeros behind the outputs (or inputs) of a projection until there are `size`."""
    import torch

    module: Any = projection.module
    axis = 1 if inputs != projection.transposed else 0
    module.weight = torch.nn.Parameter(_longer(module.weight.detach(), size, axis))
    if not inputs and module.bias is not None:
        module.bias = torch.nn.Parameter(_longer(module.bias.detach(), size, 0))


def _fill_fused(projection: Projection, before: tuple[int, int], after: tuple[int, int]) -> None:
    """The same for queries, keys and values in one matrix, each of which grows at its own end."""
    import torch

    module: Any = projection.module
    axis = 1 if projection.transposed else 0
    sizes, goals = [before[0], before[1], before[1]], [after[0], after[1], after[1]]

    def grown(tensor: torch.Tensor, axis: int) -> nn.Parameter:
        parts = tensor.detach().split(sizes, dim=axis)
        return torch.nn.Parameter(
            torch.cat([_longer(part, goal, axis) for part, goal in zip(parts, goals, strict=True)], axis)
        )

    module.weight = grown(module.weight, axis)
    if module.bias is not None:
        module.bias = grown(module.bias, 0)


def _longer(tensor: torch.Tensor, size: int, axis: int) -> torch.Tensor:
    import torch

    shape = list(tensor.shape)
    if size < shape[axis]:
        raise ValueError(
            f"export=padded: a layer has {shape[axis]} channels where the model's config leaves room for {size}. "
            "Choose export=remote_code."
        )
    shape[axis] = size - shape[axis]
    return torch.cat([tensor, tensor.new_zeros(shape)], axis)
