"""Dense models in which units are silent, by hooks that know nothing of how the library cuts."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from architectures import VOCABULARY
from transformers import PreTrainedModel

TOKENS = torch.arange(3, 51).remainder(VOCABULARY).view(2, 24)
HEAD_DIM = 8
Removed = Sequence[Sequence[int]]


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    return model(input_ids=TOKENS).logits


@contextlib.contextmanager
def silent(model: PreTrainedModel, structure: str, removed: Removed) -> Iterator[None]:
    """Within it, the units `removed` of each group of `structure` are silent."""
    made = {"mlp_neurons": _neurons, "kv_groups": _heads, "layers": _layers, "hidden": _channels}
    hooks = list(made[structure](model, removed))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _named(model: PreTrainedModel, *endings: str) -> list[Any]:
    return [module for name, module in model.named_modules() if name.endswith(endings)]


def _decoder_layers(model: PreTrainedModel) -> list[Any]:
    return [module for module in model.modules() if type(module).__name__.endswith(("DecoderLayer", "GPT2Block"))]


def _without(columns: list[int], module: Any, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    states = arguments[0].clone()
    states[..., columns] = 0
    return (states,)


def _norm(living: torch.Tensor, module: Any, arguments: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
    """The RMS norm whose mean of squares counts only the living channels; Gemma's multiplies by 1 + weight."""
    (states,) = arguments
    gemma = type(module).__name__.startswith("Gemma")
    variance = (states * living).pow(2).sum(dim=-1, keepdim=True) / living.sum()
    epsilon = module.eps if gemma else module.variance_epsilon
    return states * torch.rsqrt(variance + epsilon) * (module.weight + gemma) * living


def _neurons(model: PreTrainedModel, removed: Removed) -> Iterator[Any]:
    downs = _named(model, "mlp.down_proj", "mlp.c_proj")
    for down, gone in zip(downs, removed, strict=True):
        yield down.register_forward_pre_hook(functools.partial(_without, list(gone)))


def _heads(model: PreTrainedModel, removed: Removed) -> Iterator[Any]:
    outputs = _named(model, "self_attn.o_proj", "attn.c_proj")
    heads, units = 4, getattr(model.config, "num_key_value_heads", 4)
    over_all = type(model).__name__.startswith("Olmo2")
    for number, (output, gone) in enumerate(zip(outputs, removed, strict=True)):
        asked = [head for head in range(heads) if head // (heads // units) in gone]
        columns = [head * HEAD_DIM + at for head in asked for at in range(HEAD_DIM)]
        yield output.register_forward_pre_hook(functools.partial(_without, columns))
        if over_all:
            for name, there, lost in (("q_norm", heads, asked), ("k_norm", units, gone)):
                living = torch.ones(there, HEAD_DIM)
                living[list(lost)] = 0
                norm = _named(model, f"layers.{number}.self_attn.{name}")[0]
                yield norm.register_forward_hook(functools.partial(_norm, living.flatten()))


def _layers(model: PreTrainedModel, removed: Removed) -> Iterator[Any]:
    def skip(module: Any, arguments: tuple[torch.Tensor, ...], named: dict[str, Any], output: Any) -> Any:
        states = arguments[0] if arguments else named["hidden_states"]
        return (states, *output[1:]) if isinstance(output, tuple) else states

    (gone,) = removed
    layers = _decoder_layers(model)
    for layer in gone:
        yield layers[layer].register_forward_hook(skip, with_kwargs=True)


def _channels(model: PreTrainedModel, removed: Removed) -> Iterator[Any]:
    (gone,) = removed
    living = torch.ones(model.config.hidden_size)
    living[list(gone)] = 0
    for writer in _named(model, "embed_tokens", "self_attn.o_proj", "mlp.down_proj"):
        yield writer.register_forward_hook(lambda module, arguments, output: output * living)
    for name, module in model.named_modules():
        if type(module).__name__.endswith("RMSNorm") and "self_attn" not in name:
            yield module.register_forward_hook(functools.partial(_norm, living))
