"""Where the groups of a model that lost layers lie in the dense model, by whose numbers is noted what is removed."""

from __future__ import annotations

from collections.abc import Sequence

from regraft.interfaces import Group, LanguageModel

LAYERS = "layers"
"""Under which name `LanguageModel.removed` notes the decoder layers that are gone."""


def places(model: LanguageModel, groups: Sequence[Group]) -> list[int]:
    """The number of each group among those of the dense model."""
    gone = set(_gone_layers(model))
    if not gone or groups[0].layer is None:
        return list(range(len(groups)))
    each = groups_a_layer(groups)
    left = [layer for layer in range(len(groups) // each + len(gone)) if layer not in gone]
    return [left[number // each] * each + number % each for number in range(len(groups))]


def dense_number(model: LanguageModel, groups: Sequence[Group]) -> int:
    """How many groups the dense model has."""
    if groups[0].layer is None:
        return len(groups)
    return len(groups) + groups_a_layer(groups) * len(_gone_layers(model))


def dense_layer(model: LanguageModel, layer: int) -> int:
    """The number in the dense model of a decoder layer that is there."""
    for gone in sorted(_gone_layers(model)):
        layer += gone <= layer
    return layer


def removed(model: LanguageModel, name: str, groups: Sequence[Group]) -> list[tuple[int, ...]]:
    """For each group of the structure `name` that is there the units that it lost, numbered as in the dense model."""
    noted = model.removed.get(name)
    return [() if noted is None else noted[place] for place in places(model, groups)]


def _gone_layers(model: LanguageModel) -> tuple[int, ...]:
    (gone,) = model.removed.get(LAYERS, ((),))
    return gone


def groups_a_layer(groups: Sequence[Group]) -> int:
    """How many groups each decoder layer has."""
    return sum(group.layer == groups[0].layer for group in groups)
