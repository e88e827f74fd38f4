"""How wide the layers of a model are, and what of it the model's config can say."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel

    from regraft.models.architecture import MLP, Attention

WIDTH_KEYS = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
"""Config keys in which architectures keep the width of the feed-forward block."""


@dataclass(frozen=True, kw_only=True)
class Differences:
    """What a model has otherwise than one that is built from a config."""

    parameters: dict[str, tuple[int, ...]]
    """Name -> shape in the model, of parameters that have another shape or are not there."""
    attributes: dict[str, dict[str, int]]
    """Module -> name -> number in the model, such as its heads."""
    missing: tuple[str, ...]
    """Parameters that the model lacks."""

    def __bool__(self) -> bool:
        return bool(self.parameters or self.missing)

    def __str__(self) -> str:
        shapes = [f"{name} {'x'.join(map(str, shape))}" for name, shape in self.parameters.items()]
        shapes += [f"no {name}" for name in self.missing]
        return ", ".join(shapes[:4]) + (f" and {len(shapes) - 4} more" if len(shapes) > 4 else "")


def widest(model: PreTrainedModel) -> PreTrainedConfig:
    """The model's config, as wide as its widest layer, or a little wider where its class allows no such width.

    Of a model with layers of one width that its class allows it says all.
    """
    blocks = layer_widths(model)
    config: Any = copy.deepcopy(model.config)
    text = config.get_text_config()
    for key in {key for widths in blocks for key in widths}:
        width = max(widths[key] for widths in blocks)
        if getattr(text, key, None) != width:
            setattr(text, key, width)
    text.num_hidden_layers = len(blocks)
    while not _is_allowed(text):
        served = text.num_attention_heads // text.num_key_value_heads
        text.num_key_value_heads += 1
        text.num_attention_heads = text.num_key_value_heads * served
    return config


def layer_widths(model: PreTrainedModel) -> list[dict[str, int]]:
    """For each layer config key -> what it would be in a model of such layers.

    Heads are left out where the config cannot tell them: a fused projection has as many as the hidden size.
    """
    from regraft.models.architecture import attention_blocks, mlp_blocks

    text = model.config.get_text_config()
    key = next((key for key in WIDTH_KEYS if hasattr(text, key)), None)
    attentions = attention_blocks(model)
    # left out where it is what the config's other numbers say
    told = getattr(text, "head_dim", None) is None
    told = told and all(text.hidden_size == attention.heads * attention.head_dim for attention in attentions)
    found = []
    for mlp, attention in zip(mlp_blocks(model), attentions, strict=True):
        widths = {} if key is None else {key: mlp.units}
        if attention.fused is None:
            widths |= {"num_attention_heads": attention.heads, "num_key_value_heads": attention.key_value_heads}
            widths |= {} if told else {"head_dim": attention.head_dim}
        found.append(widths)
    return found


def differences(model: PreTrainedModel, config: PreTrainedConfig) -> Differences:
    """What `model` has otherwise than a model of its class that is built from `config`."""
    built = empty(model, config)
    mine, theirs = dict(model.named_parameters()), dict(built.named_parameters())
    modules = dict(built.named_modules())
    attributes = {
        name: numbers
        for name, module in model.named_modules()
        if name in modules and (numbers := _numbers(module, modules[name]))
    }
    return Differences(
        parameters={
            name: tuple(parameter.shape)
            for name, parameter in mine.items()
            if name not in theirs or parameter.shape != theirs[name].shape
        },
        attributes=attributes,
        missing=tuple(name for name in theirs if name not in mine),
    )


def empty(model: PreTrainedModel, config: PreTrainedConfig) -> PreTrainedModel:
    """A model of the class of `model`, built from `config`, without weights."""
    import torch

    with torch.device("meta"):
        return type(model)(copy.deepcopy(config))


def _is_allowed(text: PreTrainedConfig) -> bool:
    """Whether its number of heads is: Llama's and Gemma3's must divide the hidden size, for no use of its own."""
    check = getattr(text, "validate_architecture", None)
    if check is None or text.num_attention_heads >= text.hidden_size:
        return True
    try:
        check()
    except ValueError:
        return False
    return True


def _numbers(module: nn.Module, other: nn.Module) -> dict[str, int]:
    """Whole numbers that `module` knows and `other` knows otherwise."""
    return {
        name: value
        for name, value in vars(module).items()
        if type(value) is int and not name.startswith("_") and getattr(other, name, value) != value
    }


def owner(layer: nn.Module, block: Attention | MLP) -> nn.Module:
    """The module of `layer` that a block's projections are children of."""
    last = block.output if hasattr(block, "output") else block.down
    (found,) = [module for module in layer.modules() if last.module in module.children()]
    return found
