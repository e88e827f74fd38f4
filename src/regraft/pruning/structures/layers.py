"""Whole decoder layers: depth instead of width.

A layer adds to the residual stream, so the others go on without it (ShortGPT, arXiv 2403.03853; SLEB, arXiv
2402.09025). What is left is the same model with fewer layers, numbered anew; what the config keeps for each layer
(`layer_types`) goes with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from regraft.interfaces import Group, Kind, LanguageModel, Part
from regraft.pruning.numbering import LAYERS
from regraft.pruning.structures.cut import Cut
from regraft.pruning.structures.kv_groups import KvGroups
from regraft.pruning.structures.mlp_neurons import MlpNeurons

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

    from regraft.models.architecture import MLP, Attention

INDEX = "layer_idx"
"""What modules call the number of the layer that they lie in."""


@dataclass(frozen=True, kw_only=True)
class Layers(Cut):
    """Decoder layers, removed for real: one group, whose units may differ in width."""

    kind: ClassVar[Kind] = "layers"
    matrices: ClassVar[tuple[str, ...]] = ("query", "key", "value", "output", "gate", "up", "down")

    name: str = field(default=LAYERS, init=False)
    """Name of the structure in records; the other structures number their layers by what is noted under it."""

    def groups(self, model: PreTrainedModel) -> list[Group]:
        """One, in which a layer owns all its parameters: the matrices by their names, the rest by its own."""
        from regraft.models.architecture import attention_blocks, decoder_layers, mlp_blocks

        parts: list[Part] = []
        layers = decoder_layers(model)
        blocks = zip(layers, attention_blocks(model), mlp_blocks(model), strict=True)
        for unit, (layer, attention, mlp) in enumerate(blocks):
            parts += [replace(part, unit=unit) for part in _parts(layer, attention, mlp)]
        return [Group(name="decoder layers", units=len(layers), parts=tuple(parts))]

    def check(self, model: PreTrainedModel) -> None:
        from regraft.models.architecture import decoder_layers

        number, said = len(decoder_layers(model)), model.config.get_text_config().num_hidden_layers
        if said != number:
            raise ValueError(
                f"{type(model).__name__}: num_hidden_layers={said} in its config, but {number} decoder layers were "
                "found. Choose another model or pruner/structure."
            )

    def take_out(self, model: LanguageModel, groups: Sequence[Group], keep: Sequence[torch.Tensor]) -> None:
        """Take the layers out of the model's list and number the others anew.

        Raises:
            ValueError: A layer would compute something else at its new place once the model is loaded again.
        """
        from regraft.models.architecture import decoder_list

        (kept,) = keep
        left = kept.nonzero().flatten().tolist()
        changes = _changes(model.model, left)
        _refuse_layers_that_know_their_place(model.model, left, changes)
        masks = {id(one): model.masks[name] for name, one in _named(model) if name in model.masks}
        layers = decoder_list(model.model)
        for unit in sorted(set(range(len(layers))) - set(left), reverse=True):
            del layers[unit]
        for number, layer in enumerate(layers):
            for module in layer.modules():
                if isinstance(getattr(module, INDEX, None), int):
                    setattr(module, INDEX, number)
        model.masks = {name: masks[id(one)] for name, one in _named(model) if id(one) in masks}
        for key, value in changes.items():
            setattr(model.model.config.get_text_config(), key, value)

    def resize(self, model: PreTrainedModel) -> None:
        """Layers that differed in width may be alike now."""
        for structure in (MlpNeurons(), KvGroups()):
            structure.resize(model)


def _parts(layer: nn.Module, attention: Attention, mlp: MLP) -> list[Part]:
    import torch

    from regraft.models.surgery import owned

    def all_of(size: int, first: int = 0) -> torch.Tensor:
        return torch.arange(first, first + size)[None]

    parts = []
    queries, keys = (number * attention.head_dim for number in (attention.heads, attention.key_value_heads))
    starts = {"query": (queries, 0), "key": (keys, queries), "value": (keys, queries + keys)}
    for name, (size, first) in starts.items():
        if attention.fused is not None:
            parts += owned(name, attention.fused, all_of(size, first), "writes")
        else:
            parts += owned(name, getattr(attention, name), all_of(size), "writes")
    for name, projection in {"output": attention.output, **mlp.projections}.items():
        parts += owned(name, projection, all_of(projection.shape[0]), "writes")
    known = {id(part.parameter) for part in parts}
    for where, module in layer.named_modules():
        for attribute, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in known:
                index = all_of(parameter.shape[0])
                name = f"{where}.{attribute}"
                parts.append(
                    Part(name=name, module=module, attribute=attribute, dimension=0, index=index, side="scales")
                )
    return parts


def _named(model: LanguageModel) -> Iterator[tuple[str, nn.Parameter]]:
    return model.model.named_parameters()


def _changes(model: PreTrainedModel, left: Sequence[int]) -> dict[str, Any]:
    """What the config has to say otherwise: how many layers, and what it keeps for each of them."""
    config = model.config.get_text_config()
    number = config.num_hidden_layers
    lists = {
        key: type(value)(value[layer] for layer in left)
        for key, value in config.to_dict().items()
        if "layer" in key and isinstance(value, list | tuple) and len(value) == number
    }
    return {"num_hidden_layers": len(left), **lists}


def _refuse_layers_that_know_their_place(model: PreTrainedModel, left: Sequence[int], changes: dict[str, Any]) -> None:
    """What a layer is made of by the config must not depend on its number.

    Raises:
        ValueError: Naming what does.
    """
    from regraft.models.architecture import decoder_layers
    from regraft.models.surgery import rebuilt

    before, after = decoder_layers(rebuilt(model)), decoder_layers(rebuilt(model, **changes))
    for layer, place in zip(left, after, strict=True):
        here, there = _settings(before[layer]), _settings(place)
        if differing := sorted(name for name in here if here[name] != there.get(name)):
            raise ValueError(
                f"{type(model).__name__}: {', '.join(differing)} of a decoder layer depends on its number, so a saved "
                "model without some layers would be another one. Choose another model or pruner/structure."
            )


def _settings(layer: nn.Module) -> dict[str, Any]:
    return {
        f"{where}.{name}": value
        for where, module in layer.named_modules()
        for name, value in vars(module).items()
        if name != INDEX and isinstance(value, bool | int | float | str)
    }
