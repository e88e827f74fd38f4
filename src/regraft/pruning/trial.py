"""What a model would be without some of its units: silenced for as long as it is measured, then as it was.

No copy of the model is made and no tensor changes its shape. Units with an activation of their own are silenced where
it is taken up: the inputs of the linear maps that read it are set to zero, which is the model with these units cut out
(but for OLMo2's norm over the queries of all heads, and that over the keys, which still count those of silent heads).
Layers are passed over; single weights are set to zero and written back, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from regraft.interfaces import LanguageModel, Loss, Part, Scored, Structure
from regraft.pruning.depth import skipped

if TYPE_CHECKING:
    import torch
    from torch import nn


class Trial:
    """The loss of a model over the calibration questions when each group has lost so many units.

    Args:
        scored: The model and the scores by which its units go.
        loss: What is measured.
    """

    def __init__(self, scored: Scored, loss: Loss) -> None:
        self.scored, self.loss = scored, loss
        self.evaluations = 0
        """How often the model was run over the questions; what was measured before is remembered."""
        self._known: dict[tuple[int, ...], float] = {}
        self._groups = scored.structure.groups(scored.model.model)
        self._batches = list(scored.context.calibration.batches(loss))
        self._kept: dict[int, tuple[int, torch.Tensor]] = {}

    def __call__(self, losses: Sequence[int]) -> float:
        """The mean loss when group g has lost `losses[g]` of its dense units; infinite where it is not a number."""
        key = tuple(losses)
        if key not in self._known:
            self._known[key] = self._measure(key)
        return self._known[key]

    def _measure(self, losses: Sequence[int]) -> float:
        import torch

        self.evaluations += 1
        total, count = 0.0, 0
        scored = self.scored
        keep = [self._keep(group, lost) for group, lost in enumerate(losses)]
        with torch.no_grad(), silenced(scored.model, scored.structure, keep):
            for batch in self._batches:
                value = scored.context.calibration.value(scored.model, self.loss, batch)
                total, count = total + float(value.total), count + value.count
        mean = total / count
        return math.inf if math.isnan(mean) else mean

    def _keep(self, group: int, lost: int) -> torch.Tensor:
        """(units,) bool; the last answer of each group is kept, since most candidates change few groups."""
        known = self._kept.get(group)
        if known is None or known[0] != lost:
            units, scores = self.scored.dense_units[group], self.scored.scores[group]
            known = lost, self.scored.structure.select(self._groups[group], scores, units - lost)
            self._kept[group] = known
        return known[1]


@contextmanager
def silenced(model: LanguageModel, structure: Structure, keep: Sequence[torch.Tensor]) -> Iterator[None]:
    """Inside, `model` computes as if only the units of `keep`, (units,) bool for each group, were there."""
    from regraft.models.architecture import decoder_layers

    with ExitStack() as stack:
        for group, kept in zip(structure.groups(model.model), keep, strict=True):
            if bool(kept.all()):
                continue
            if structure.kind == "layers":
                layers = zip(decoder_layers(model.model), kept.tolist(), strict=True)
                stack.enter_context(skipped([layer for layer, stays in layers if not stays]))
            elif structure.kind == "weights":
                (part,) = group.parts
                stack.enter_context(_zeroed(part, kept))
            else:
                for part in group.readers:
                    assert part.index is not None, "only single weights have none"
                    inputs = part.index[~kept.to(part.index.device)].flatten()
                    stack.callback(part.module.register_forward_pre_hook(_Silence(inputs)).remove)
        yield


class _Silence:
    """Sets input channels of a linear map to zero.

    Args:
        inputs: Their numbers, (channels,) long.
    """

    def __init__(self, inputs: torch.Tensor) -> None:
        self.inputs = inputs

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        activations, *rest = arguments
        self.inputs = self.inputs.to(activations.device)
        return activations.index_fill(-1, self.inputs, 0), *rest


@contextmanager
def _zeroed(part: Part, kept: torch.Tensor) -> Iterator[None]:
    """Inside, the weights that are not of `kept`, (weights,) bool, are zero."""
    rows = part.parameter.detach().movedim(part.dimension, 0)
    gone = ~kept.view(rows.shape).to(rows.device)
    before = rows[gone]
    rows.masked_fill_(gone, 0)
    try:
        yield
    finally:
        rows[gone] = before
