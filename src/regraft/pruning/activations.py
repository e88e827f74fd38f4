"""What linear maps are fed, over the calibration questions: statistics of each input channel, padding left out.

One forward pass over the questions serves all maps, and no activation outlives its batch. Means and squared deviations
of batches are merged in float64 (Chan, Golub and LeVeque 1979), so that a variance is right where the mean is large.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from regraft.interfaces import Batch, Calibration, LanguageModel, Part

if TYPE_CHECKING:
    import torch
    from torch import nn

Take = Callable[[int, "torch.Tensor"], None]
"""Called with the number of a module and what it is fed: (tokens, channels), float32 or wider, without graph."""
See = Callable[[int, "torch.Tensor", Batch], None]
"""Called with the number of a module, what it is fed, (batch, seq, channels) or the head's (reads, channels), and the
batch that it comes from."""


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Of each input channel of a linear map, over all tokens of all questions: (channels,) float64 each."""

    count: int
    """Tokens."""
    mean: torch.Tensor
    deviations: torch.Tensor
    """Sum of the squared deviations from the mean."""
    absolute: torch.Tensor
    """Sum of |x|."""
    largest: torch.Tensor
    """Maximum of |x|."""

    @property
    def squares(self) -> torch.Tensor:
        """Sum of x^2."""
        return self.deviations + self.count * self.mean**2

    @property
    def norm(self) -> torch.Tensor:
        """||x_j||_2 over all tokens."""
        return self.squares.sqrt()

    @property
    def variance(self) -> torch.Tensor:
        """The sample's, divided by count - 1; 0 of a single token."""
        return self.deviations / max(self.count - 1, 1)


def input_statistics(model: LanguageModel, calibration: Calibration, modules: Sequence[nn.Module]) -> list[Statistics]:
    """Statistics of what each module is fed, in one pass over the calibration questions.

    Modules that are fed one and the same tensor (query, key and value; gate and up) share one object.

    Args:
        model: Whose modules they are; it is left as it is.
        calibration: The questions.
        modules: Linear maps.
    """
    gathered: dict[int, Statistics] = {}
    source: dict[int, int] = {}
    last: list[Any] = [None, -1]

    def take(number: int, rows: torch.Tensor) -> None:
        if rows is last[0]:
            source[number] = last[1]
            return
        last[:] = rows, number
        source[number] = number
        seen = _of_rows(rows)
        gathered[number] = _merged(gathered[number], seen) if number in gathered else seen

    visit_inputs(model, calibration, modules, take)
    return [gathered[source[number]] for number in range(len(modules))]


def visit_inputs(model: LanguageModel, calibration: Calibration, modules: Sequence[nn.Module], take: Take) -> None:
    """Show `take` what each module is fed, batch after batch: the tokens of the questions, without the padding.

    Modules that are fed one and the same tensor are shown one and the same `rows`, one after the other. The head is
    fed the positions that are read only.
    """
    last: list[Any] = [None, None]

    def see(number: int, inputs: torch.Tensor, batch: Batch) -> None:
        if inputs is not last[0]:
            last[:] = inputs, _rows(inputs, batch)
        take(number, last[1])

    watch_inputs(model, calibration, modules, see)


def watch_inputs(model: LanguageModel, calibration: Calibration, modules: Sequence[nn.Module], see: See) -> None:
    """Run the calibration questions through the model once and show `see` what each module is fed, padding and all."""
    import torch

    batch: Batch

    def hook(number: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda module, inputs: see(number, inputs[0], batch)

    handles = [module.register_forward_pre_hook(hook(number)) for number, module in enumerate(modules)]
    try:
        with torch.no_grad():
            for batch in calibration.batches():
                calibration.forward(model, batch)
    finally:
        for handle in handles:
            handle.remove()


def columns(part: Part) -> torch.Tensor:
    """(units, width, outputs): the columns of a linear map that take up each unit's channels, without graph."""
    assert part.index is not None and part.side == "reads"
    units, width = part.index.shape
    return part.of(part.parameter.detach()).view(units, width, -1)


def of_units(part: Part, channels: torch.Tensor) -> torch.Tensor:
    """(..., units, width) of (..., channels): what each unit feeds a linear map with."""
    assert part.index is not None and part.side == "reads"
    chosen = channels if part.is_whole else channels.index_select(-1, part.index.flatten().to(channels.device))
    return chosen.unflatten(-1, tuple(part.index.shape))


def tokens(batch: Batch) -> torch.Tensor:
    """(batch, seq) bool; False at padding, which sees the first position of its row and not itself."""
    return batch.visible[:, 0].diagonal(dim1=1, dim2=2)


def _rows(inputs: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(tokens, channels) of (batch, seq, channels), or of the (reads, channels) that the head is fed."""
    import torch

    if inputs.ndim == 3:
        there = tokens(batch).flatten()
        inputs = inputs.flatten(0, 1)
        if not bool(there.all()):
            inputs = inputs.index_select(0, there.nonzero().flatten())
    return inputs if inputs.dtype == torch.float64 else inputs.float()


def _of_rows(rows: torch.Tensor) -> Statistics:
    mean = rows.mean(dim=0)
    # on a CPU a norm along the rows takes ten times as long as these sums
    deviations = (rows - mean).square_().sum(dim=0)
    sizes = rows.abs()
    return Statistics(
        count=len(rows),
        mean=mean.double(),
        deviations=deviations.double(),
        absolute=sizes.sum(dim=0).double(),
        largest=sizes.amax(dim=0).double(),
    )


def _merged(one: Statistics, other: Statistics) -> Statistics:
    import torch

    count = one.count + other.count
    apart = other.mean - one.mean
    return Statistics(
        count=count,
        mean=one.mean + apart * (other.count / count),
        deviations=one.deviations + other.deviations + apart**2 * (one.count * other.count / count),
        absolute=one.absolute + other.absolute,
        largest=torch.maximum(one.largest, other.largest),
    )
