"""Deeper layers teach shallower exits: Be Your Own Teacher (Zhang et al. 2019, arXiv 1905.08094).

    L = T^2 * mean over exits m and positions of KL(softmax(z / T) || softmax(z_m / T)),   no gradient through z

with z the model's own logits and z_m what its head makes of layer m through the final norm. The paper has a classifier
of its own at each exit, and teaches all of them labels and hints too. Nothing here holds the last layer where it is:
alone this loss moves what it learns from, so put it into a weighted sum with cross-entropy or KL.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from regraft.config.ranges import ConfigError, require
from regraft.interfaces import BEGINNING, Batch, Loss, LossNeed, LossValue, ModelOutputs, Moment, Positions, Reads

SECTIONS = 4
"""Of the paper's networks: three exits and the end."""


@dataclass(frozen=True, kw_only=True)
class Exits(Loss):
    """Say after fewer layers what is said after all. Needs neither labels nor a teacher."""

    layers: tuple[int, ...] | None = None
    """After how many layers the exits are; null: a quarter, half and three quarters of them."""
    temperature: float = 1.0
    """Softens both distributions, above 0."""
    reads: Reads = "choices"
    """Text of a batch: as for `KL`."""
    positions: Positions = "answer"
    """Positions that are read: as for `KL`."""

    def __post_init__(self) -> None:
        require(0 < self.temperature < math.inf, "temperature", self.temperature, "a finite number above 0")
        there = self.layers is None or (len(self.layers) > 0 and min(self.layers) >= 1)
        require(there, "layers", self.layers, "null, or numbers of layers of at least 1")

    @property
    def needs(self) -> frozenset[LossNeed]:
        return frozenset({"hidden_states"})

    def __call__(
        self, batch: Batch, student: ModelOutputs, teacher: ModelOutputs | None, moment: Moment = BEGINNING
    ) -> LossValue:
        import torch

        from regraft.distillation.losses.divergence import forward_kl
        from regraft.distillation.vocabulary import summed

        def divergence(logits: torch.Tensor, part: slice) -> torch.Tensor:
            with torch.no_grad():
                said = student.logits_at(part)
            return forward_kl(logits, said, self.temperature)

        exits = self.exits(len(student.hidden_states) - 1)
        total = torch.zeros((), device=batch.read.device)
        for layer in exits:
            total = total + summed(student.after(layer), divergence)
        return LossValue(total=self.temperature**2 * total / len(exits), count=len(batch.read))

    def exits(self, layers: int) -> list[int]:
        """After how many of a model's layers it learns to say it all.

        Raises:
            ConfigError: There is no layer before the last, or not the one asked for.
        """
        if self.layers is None:
            # halves are rounded up
            spread = {(2 * section * layers + SECTIONS) // (2 * SECTIONS) for section in range(1, SECTIONS)}
            chosen = sorted(spread & set(range(1, layers)))
        else:
            chosen = list(self.layers)
        if not chosen or max(chosen) >= layers:
            raise ConfigError(
                f"layers={self.layers}: exits must lie before the last of the model's {layers} layers. Choose others, "
                "or another loss."
            )
        return chosen
