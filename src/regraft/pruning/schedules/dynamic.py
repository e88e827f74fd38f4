"""What the schedules of dynamic sparse training share: every so often, drop and grow as many weights of each matrix.

At step t = interval, 2 * interval, ... while t < end * T of the T steps of the recovery, in each matrix of n_on weights

k(t) = round(n_on * fraction / 2 * (1 + cos(pi * t / (end * T))))       decay: cosine (arXiv 1911.11134, equation 1)
k(t) = round(n_on * fraction)                                           decay: constant

weights of smallest |w| go, and k(t) of those that are then off come: which ones is the method. One that goes and comes
at once keeps its value; others begin at 0. Weights that change lose their moments. Whether the optimizer takes its step
at t too, before and with the old masks, is the method's.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from regraft.config.ranges import ConfigError, require
from regraft.interfaces import LanguageModel, Schedule, Seams, Structure

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Dynamic(Schedule):
    """Mask to the target in one step, then move the mask while the recovery trains; its size stays to the weight."""

    during_recovery: ClassVar[bool] = True
    replaces_step: ClassVar[bool] = False
    """Whether the masks move in place of an optimizer step: then no weight that stays changes, and neither do moments,
    while the learning rate goes on."""

    interval: int = 100
    """Steps between two moves."""
    fraction: float = 0.3
    """Share of a matrix's weights that the first move drops, in (0, 1)."""
    end: float = 0.75
    """Share of the recovery's steps after which the mask stays, in (0, 1]."""
    decay: Literal["cosine", "constant"] = "cosine"
    """How the fraction falls."""

    def __post_init__(self) -> None:
        require(self.interval >= 1, "interval", self.interval, "at least 1")
        require(0 < self.fraction < 1, "fraction", self.fraction, "in (0, 1)")
        require(0 < self.end <= 1, "end", self.end, "in (0, 1]")

    def targets(self, sparsity: float) -> tuple[float, ...]:
        return (sparsity,)

    def moves(self, step: int, steps: int) -> bool:
        """Whether masks move after `step` of `steps`."""
        return step % self.interval == 0 and step < self.end * steps

    def share(self, step: int, steps: int) -> float:
        """The fraction of that move."""
        if self.decay == "constant":
            return self.fraction
        return self.fraction / 2 * (1 + math.cos(math.pi * step / (self.end * steps)))

    @abstractmethod
    def wishes(self, seed: int) -> tuple[Callable[[str, torch.Tensor], None], Callable[[str, int], torch.Tensor]]:
        """Notes and wishes of one training.

        Returns:
            What is told each gradient of a move, with the parameter's name; and what says, by name and step, how much
            each weight of that parameter is wanted: a tensor of its shape.
        """

    def seams(self, student: LanguageModel, structure: Structure, steps: int, seed: int) -> Seams:
        """Look at the gradients of a move, and move the masks after its step.

        Raises:
            ConfigError: There are masks, and the training ends before they would move.
        """
        import torch

        if student.masks and not any(self.moves(step, steps) for step in range(1, steps + 1)):
            raise ConfigError(
                f"schedule.interval={self.interval}: must be below {self.end * steps:g}, which is schedule.end of the "
                f"{steps} steps of this recovery: no mask would move. Choose schedule.interval="
                f"{max(round(self.end * steps / 10), 1)}, or more recovery.steps."
            )
        note, wanted = self.wishes(seed)

        def look(network: PreTrainedModel, step: int) -> None:
            if not self.moves(step, steps) or not student.masks:
                return
            for name, parameter in network.named_parameters():
                if name in student.masks and parameter.grad is not None:
                    note(name, parameter.grad)
                if self.replaces_step:
                    # an optimizer passes over what has no gradient, decay and momentum included
                    parameter.grad = None

        @torch.no_grad()
        def move(network: PreTrainedModel, step: int) -> None:
            if not self.moves(step, steps):
                return
            parameters = dict(network.named_parameters())
            for name, mask in student.masks.items():
                weights = parameters[name]
                on = mask.to(weights.device)
                number = math.floor(int(on.sum()) * self.share(step, steps) + 0.5)
                number = min(number, int((~on).sum()))
                kept = on.flatten().clone()
                sizes = weights.abs().flatten().masked_fill(~kept, math.inf)
                kept[sizes.topk(number, largest=False).indices] = False
                wish = wanted(name, step).to(weights.device).flatten().masked_fill(kept, -math.inf)
                kept[wish.topk(number).indices] = True
                after = kept.view_as(on)
                # what was off before may hold nothing but zero; what is off now is set to it by whoever holds masks
                weights.masked_fill_(after & ~on, 0)
                student.masks[name] = after.to(mask.device)

        return Seams(on_gradients=(look,), after_step=(move,))
