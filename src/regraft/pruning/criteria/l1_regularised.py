"""Training with an L1 penalty (Li et al. 2017, arXiv 1608.08710; Liu et al. 2017, arXiv 1708.06519), then the L1 norm.

minimise L(w) + lambda * sum |w| over all weights of all units,   s_j = |w_j|_1

With `proximal` the penalty is no part of the gradient: after each optimizer step w <- sign(w) * max(0, |w| - eta *
lambda), which gives exact zeros. eta is the highest learning rate, at every step: the shrinkage does not follow the
course of the learning rate. The training stays: what is not removed goes on from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from regraft.config.ranges import require
from regraft.interfaces import Criterion, Kind, LanguageModel, Loss, PruningContext, PruningNeed, Structure
from regraft.pruning.gradients import needed
from regraft.pruning.spread import owned_sums, parameters

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class L1Regularised(Criterion):
    """Units that the penalty has shrunk go first. It trains the model in place."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"neurons", "weights"})

    loss: Loss
    """What the training minimises besides the penalty."""
    steps: int = 200
    """Optimizer steps of the training, with the recovery's hyper-parameters."""
    learning_rate: float = 1e-3
    """Highest learning rate of the training."""
    strength: float = 1e-1
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

    def scores(self, model: LanguageModel, structure: Structure, context: PruningContext) -> list[torch.Tensor]:
        import torch

        groups = structure.groups(model.model)
        penalised = parameters(groups)

        def penalty(network: PreTrainedModel) -> torch.Tensor:
            return self.strength * torch.stack([parameter.abs().sum() for parameter in penalised]).sum()

        def shrink(network: PreTrainedModel, step: int) -> None:
            taken = self.learning_rate * self.strength
            for parameter in penalised:
                parameter.data = torch.nn.functional.softshrink(parameter.data, taken)

        context.calibration.train(
            model,
            self.loss,
            self.steps,
            learning_rate=self.learning_rate,
            terms=() if self.proximal else [penalty],
            after_step=[shrink] if self.proximal else (),
        )
        return [owned_sums(group, lambda part: part.parameter.detach().abs()).float() for group in groups]
