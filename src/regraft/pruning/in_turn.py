"""One decoder layer after the other, as SparseGPT and Wanda are calibrated.

What enters layer l is what the layers before it, pruned already, make of the questions. Hidden states are kept between
layers, so each layer runs twice: once while its inputs are watched, and once, pruned, for the layer that follows. The
model itself hands each layer its masks and positions, so that no architecture is known here: the layers before the one
that runs pass on what they get, and nothing runs behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from regraft.interfaces import Batch, Calibration, LanguageModel, Loss, LossValue, ModelOutputs

if TYPE_CHECKING:
    import torch
    from torch import nn


def in_turn(model: LanguageModel, calibration: Calibration) -> Iterator[tuple[int, Calibration]]:
    """The number of each decoder layer, and the questions as this layer sees them.

    The layer may be changed before the next is asked for; later layers see what the changed one says.

    Args:
        model: Whose layers they are.
        calibration: The questions.
    """
    from regraft.models.architecture import decoder_layers

    layers = decoder_layers(model.model)
    seen = _OfLayer(calibration, layers)
    for layer in range(len(layers)):
        seen.layer = layer
        yield layer, seen
        if layer + 1 < len(layers):
            seen.go_on(model)


class _Through(Exception):
    """The layer has run: what it said is here, and the rest of the model need not run."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


class _OfLayer(Calibration):
    """The questions as one decoder layer sees them.

    Args:
        calibration: The questions.
        layers: Of the model.
    """

    def __init__(self, calibration: Calibration, layers: list[nn.Module]) -> None:
        self.layer = 0
        self._calibration, self._layers = calibration, layers
        self._batches = list(calibration.batches())
        self._entering: dict[int, torch.Tensor] = {}
        """Number of the batch -> the hidden states that enter the layer; none for the first, which the model feeds."""

    def batches(self, loss: Loss | None = None) -> Iterator[Batch]:
        assert loss is None, "a layer alone has no loss"
        return iter(self._batches)

    def forward(self, model: LanguageModel, batch: Batch) -> ModelOutputs:
        """Run the layer; no position is read."""
        said = self._run(model, batch)
        return ModelOutputs(logits=said.new_empty(0, model.model.config.get_text_config().vocab_size))

    def go_on(self, model: LanguageModel) -> None:
        """Replace what enters this layer by what leaves it."""
        import torch

        with torch.no_grad():
            self._entering = {number: self._run(model, batch) for number, batch in enumerate(self._batches)}

    def value(self, model: LanguageModel, loss: Loss, batch: Batch) -> LossValue:
        raise AssertionError("a layer alone has no loss")

    def train(self, *arguments: Any, **named: Any) -> None:
        raise AssertionError("a layer alone is not trained")

    def _run(self, model: LanguageModel, batch: Batch) -> torch.Tensor:
        """(batch, seq, hidden_size): what the layer says."""
        number = next(number for number, known in enumerate(self._batches) if known is batch)
        entering = self._entering.get(number)

        def enter(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
            if entering is None:
                return arguments, named
            return (entering, *arguments[1:]), {key: item for key, item in named.items() if key != "hidden_states"}

        def leave(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            raise _Through(output)

        layer = self._layers[self.layer]
        handles = [layer.register_forward_pre_hook(enter, with_kwargs=True), layer.register_forward_hook(leave)]
        try:
            for passing in self._layers[: self.layer]:
                passing.forward = _pass_on
            self._calibration.forward(model, batch)
        except _Through as through:
            output: torch.Tensor = through.output
            return output
        finally:
            for passing in self._layers[: self.layer]:
                del passing.forward
            for handle in handles:
                handle.remove()
        raise AssertionError("the model runs its layers")


def _pass_on(hidden_states: torch.Tensor, *arguments: Any, **named: Any) -> torch.Tensor:
    """In place of a layer."""
    return hidden_states
