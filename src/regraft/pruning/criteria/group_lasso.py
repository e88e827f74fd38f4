"""Training with a group lasso (Wen et al. 2016, arXiv 1608.03665; Yuan and Lin 2006), then the norm of what is left.

minimise L(w) + lambda * sum over units j of sqrt(n_j) * |w_j|_2,   s_j = |w_j|_2

w_j are all n_j weights of unit j. With `proximal` the penalty is no part of the gradient: after each optimizer step

w_j <- w_j * max(0, 1 - eta * lambda * sqrt(n_j) / |w_j|_2)

which gives exact zeros. eta is the highest learning rate, at every step: the shrinkage does not follow the course of
the learning rate. Units of one weight make it the L1 penalty. The training stays: what is not removed goes on from
there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regraft.interfaces import Group, LanguageModel, PruningContext, Structure
from regraft.pruning.criteria.regularised import Regularised
from regraft.pruning.spread import owned_sums, spread

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class GroupLasso(Regularised):
    """Units that the penalty has shrunk go first. It trains the model in place."""

    strength: float = 1e-2
    """lambda."""

    def scores(self, model: LanguageModel, structure: Structure, context: PruningContext) -> list[torch.Tensor]:
        import torch

        groups = structure.groups(model.model)
        owns = [sum(part.of(part.parameter).shape[1] for part in group.matrices) for group in groups]

        def penalty() -> torch.Tensor:
            sums = [math.sqrt(own) * _norms(group).sum() for group, own in zip(groups, owns, strict=True)]
            return self.strength * torch.stack(sums).sum()

        def shrink() -> None:
            with torch.no_grad():
                for group, own in zip(groups, owns, strict=True):
                    taken = self.learning_rate * self.strength * math.sqrt(own)
                    stays = (1 - taken / _norms(group)).clamp(min=0)
                    for part in group.matrices:
                        part.parameter.mul_(spread(part, stays))

        self.train(model, context, penalty, shrink)
        return [_norms(group).detach().float() for group in groups]


def _norms(group: Group) -> torch.Tensor:
    """(units,) 2-norm of what each unit owns; its gradient at zero is zero."""
    return owned_sums(group, lambda part: part.parameter.square()).clamp(min=1e-30).sqrt()
