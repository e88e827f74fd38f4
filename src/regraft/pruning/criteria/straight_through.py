"""Weights that the forward pass sees masked and the optimizer whole, as movement pruning trains them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from regraft.config.ranges import require
from regraft.interfaces import Criterion, Group, Kind, Loss, Part, PruningNeed
from regraft.pruning.gradients import needed
from regraft.pruning.spread import owned_sums, spread

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class LearnedScores(Criterion):
    """Units whose score, learned while the weights are, is low go first. It trains the model in place."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"neurons", "weights"})

    loss: Loss
    """What the training minimises."""
    steps: int = 200
    """Optimizer steps of the training, with the recovery's hyper-parameters."""
    learning_rate: float | None = None
    """Highest learning rate of the weights; null takes the recovery's."""
    warmup: float = 0.1
    """Share of the steps before masks, or what drives them, begin to rise."""
    cooldown: float = 0.3
    """Share of the steps after they have risen."""

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", self.steps, "at least 1")
        rate = self.learning_rate
        require(rate is None or rate > 0, "learning_rate", rate, "null or above 0")
        fits = min(self.warmup, self.cooldown) >= 0 and self.warmup + self.cooldown < 1
        require(fits, "warmup", self.warmup, f"at least 0, and below 1 together with cooldown ({self.cooldown})")

    @property
    def needs(self) -> frozenset[PruningNeed]:
        return needed(self.loss) | {"training"}

    def risen(self, step: int) -> float:
        """How far the cubic ramp has risen at `step`, from 0 to 1."""
        return cubic(step, self.steps, self.warmup, self.cooldown)


class StraightThrough:
    """Masks over the weights of `groups`.

    Between two steps the model holds the masked weights. `show` gives it the whole ones back, and lets the gradients of
    masked weights go, as those of W * M with respect to W are none there: what is masked may yet come back as it was.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        self._groups = groups
        self._whole: dict[int, torch.Tensor] = {}
        self._keep: Sequence[torch.Tensor] | None = None

    def hide(self, keep: Sequence[torch.Tensor]) -> None:
        """Mask the weights of the units that are not of `keep`, (units,) bool for each group."""
        import torch

        self._keep = keep
        with torch.no_grad():
            for parameter, mask in self._masks():
                self._whole.setdefault(id(parameter), parameter.detach().clone())
                parameter.mul_(mask)

    def show(self) -> None:
        """The whole weights, and no gradients of those that were masked. Call it after their gradients were read."""
        import torch

        if self._keep is None:
            return
        with torch.no_grad():
            for parameter, mask in self._masks():
                if parameter.grad is not None:
                    parameter.grad.mul_(mask)
                if (whole := self._whole.pop(id(parameter), None)) is not None:
                    parameter.copy_(whole)
        self._keep = None

    def movement(self, group: Group) -> torch.Tensor:
        """(units,) dL/dw' * w summed over the whole weights of each unit; between the backward pass and `show`."""
        return owned_sums(group, self._product)

    def _product(self, part: Part) -> torch.Tensor:
        parameter = part.parameter
        assert parameter.grad is not None, f"{part.name} has no gradient"
        return parameter.grad * self._whole.get(id(parameter), parameter.detach())

    def _masks(self) -> list[tuple[torch.nn.Parameter, torch.Tensor]]:
        assert self._keep is not None
        return [
            (part.parameter, spread(part, mask.to(part.parameter)))
            for group, mask in zip(self._groups, self._keep, strict=True)
            for part in group.matrices
        ]


def cubic(step: int, steps: int, warmup: float, cooldown: float) -> float:
    """How far a cubic ramp is after `step` of `steps`, from 0 to 1: 1 - (1 - t)^3 (arXiv 1710.01878)."""
    begin, end = warmup * steps, (1 - cooldown) * steps
    share = min(max((step - begin) / max(end - begin, 1e-9), 0.0), 1.0)
    return 1 - (1 - share) ** 3
