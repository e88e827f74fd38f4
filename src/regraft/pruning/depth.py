"""What criteria that score whole layers share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from regraft.interfaces import Batch, Calibration, Kind, LanguageModel, PruningContext, Structure
from regraft.pruning.allocation.layerwise import removed

if TYPE_CHECKING:
    import torch
    from torch import nn

LAYERS: frozenset[Kind] = frozenset({"layers"})
See = Callable[[int, "torch.Tensor", "torch.Tensor", Batch], None]
"""Called with the number of a layer, what enters and what leaves it, (batch, seq, hidden), and their batch."""


def layers_of(model: LanguageModel, structure: Structure) -> list[nn.Module]:
    """The decoder layers, which are the units of the structure's one group."""
    from regraft.models.architecture import decoder_layers

    layers = decoder_layers(model.model)
    assert structure.units(model.model) == [len(layers)], f"{structure.name}: its units are not the decoder layers"
    return layers


def layers_to_go(model: LanguageModel, structure: Structure, context: PruningContext) -> int:
    """How many layers shall go now, so that `context.sparsity` of the dense model's are gone."""
    gone = sum(len(units) for units in model.removed.get(structure.name, ()))
    (left,) = structure.units(model.model)
    return min(max(removed(left + gone, context.sparsity) - gone, 0), left - 1)


def watch_layers(model: LanguageModel, calibration: Calibration, layers: list[nn.Module], see: See) -> None:
    """Run the calibration questions through the model once and show `see` what enters and leaves each layer."""
    import torch

    batch: Batch

    def hook(number: int) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        return lambda module, inputs, output: see(number, inputs[0], _states(output), batch)

    handles = [layer.register_forward_hook(hook(number)) for number, layer in enumerate(layers)]
    try:
        with torch.no_grad():
            for batch in calibration.batches():
                calibration.forward(model, batch)
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def skipped(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Within, what enters these layers leaves them, and they compute nothing."""

    def through(hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return hidden_states

    for layer in layers:
        layer.forward = through
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _states(output: Any) -> torch.Tensor:
    """Some architectures return more than the hidden states."""
    states: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return states
