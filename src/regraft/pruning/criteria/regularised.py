"""What the criteria share that train with a penalty on the weights, which shrinks units before they are scored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from regraft.config.ranges import require
from regraft.interfaces import Criterion, Kind, LanguageModel, Loss, PruningContext, PruningNeed
from regraft.pruning.gradients import needed

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Regularised(Criterion):
    """Units that a penalty has shrunk go first. It trains the model in place."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"neurons", "weights"})

    loss: Loss
    """What the training minimises besides the penalty."""
    steps: int = 200
    """Optimizer steps of the training, with the recovery's hyper-parameters."""
    learning_rate: float = 1e-3
    """Highest learning rate of the training."""
    strength: float
    """lambda."""
    proximal: bool = True
    """Whether the penalty acts by a proximal step, or by its gradient."""

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", self.steps, "at least 1")
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        require(self.strength >= 0, "strength", self.strength, "at least 0")

    @property
    def needs(self) -> frozenset[PruningNeed]:
        return needed(self.loss) | {"training"}

    def train(
        self,
        model: LanguageModel,
        context: PruningContext,
        penalty: Callable[[], torch.Tensor],
        shrink: Callable[[], None],
    ) -> None:
        """Train with the penalty, or with the proximal step `shrink` in its place."""
        context.calibration.train(
            model,
            self.loss,
            self.steps,
            learning_rate=self.learning_rate,
            terms=() if self.proximal else [lambda network: penalty()],
            after_step=[lambda network, step: shrink()] if self.proximal else (),
        )
