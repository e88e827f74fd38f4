"""Training with an L1 penalty (Li et al. 2017, arXiv 1608.08710; Liu et al. 2017, arXiv 1708.06519), then the L1 norm.

minimise L(w) + lambda * sum |w| over all weights of all units,   s_j = |w_j|_1

With `proximal` the penalty is no part of the gradient: after each optimizer step w <- sign(w) * max(0, |w| - eta *
lambda), which gives exact zeros. eta is the highest learning rate, at every step: the shrinkage does not follow the
course of the learning rate. The training stays: what is not removed goes on from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regraft.interfaces import LanguageModel, PruningContext, Structure
from regraft.pruning.criteria.regularised import Regularised
from regraft.pruning.spread import owned_sums, parameters

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class L1Regularised(Regularised):
    """Units that the penalty has shrunk go first. It trains the model in place."""

    strength: float = 1e-1
    """lambda."""

    def scores(self, model: LanguageModel, structure: Structure, context: PruningContext) -> list[torch.Tensor]:
        import torch

        groups = structure.groups(model.model)
        penalised = parameters(groups)

        def penalty() -> torch.Tensor:
            return self.strength * torch.stack([parameter.abs().sum() for parameter in penalised]).sum()

        def shrink() -> None:
            taken = self.learning_rate * self.strength
            for parameter in penalised:
                parameter.data = torch.nn.functional.softshrink(parameter.data, taken)

        self.train(model, context, penalty, shrink)
        return [owned_sums(group, lambda part: part.parameter.detach().abs()).float() for group in groups]
