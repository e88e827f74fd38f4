"""Which of the teacher's layers each of the student's learns from.

    uniform: layer m of S learns from layer round(m T / S) of T      (TinyBERT, arXiv 1909.10351: g(m))
    k:       the last k layers learn from the last k, in order

Layers count from 1, as outputs; 0 is the embedding. The map knows how many layers there are and not which: of a pruned
self without some layers the last still learns from the last, and the others share out what the teacher does on the way.
"""

from __future__ import annotations

from typing import Literal

from regraft.config.ranges import ConfigError, require

LayerMap = Literal["uniform"] | int | tuple[tuple[int, int], ...]
"""`uniform`, how many of the last, or pairs of a student's and a teacher's layer."""


def check(layers: LayerMap, first: int) -> None:
    """Refuse what is a map for no model.

    Args:
        layers: The map.
        first: Lowest number of a layer.

    Raises:
        ConfigError: No layer would learn, or a number is too low.
    """
    if layers == "uniform":
        return
    if isinstance(layers, int):
        require(layers >= 1, "layers", layers, "uniform, a number of last layers of at least 1, or pairs of layers")
        return
    there = bool(layers) and all(number >= first for pair in layers for number in pair)
    require(there, "layers", layers, f"at least one pair (student's layer, teacher's layer), each at least {first}")


def same(layers: LayerMap) -> bool:
    """Whether each layer learns from its own, where student and teacher have as many."""
    return isinstance(layers, str | int) or all(mine == taught for mine, taught in layers)


def pairs(layers: LayerMap, student: int, teacher: int) -> list[tuple[int, int]]:
    """(student's layer, teacher's layer) of each that learns.

    Args:
        layers: The map.
        student: Number of its layers.
        teacher: Likewise.

    Raises:
        ConfigError: A layer is not there.
    """
    if layers == "uniform":
        # halves are rounded up
        return [(layer, max((2 * layer * teacher + student) // (2 * student), 1)) for layer in range(1, student + 1)]
    there = f"the student has {student} layers and the teacher {teacher}. Choose layers that both have, or uniform"
    if isinstance(layers, int):
        if layers > min(student, teacher):
            raise ConfigError(f"layers={layers}: {there}.")
        return [(student - back, teacher - back) for back in reversed(range(layers))]
    for mine, taught in layers:
        if mine > student or taught > teacher:
            raise ConfigError(f"layers={[mine, taught]}: {there}.")
    return list(layers)
