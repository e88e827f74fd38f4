"""Soft movement pruning (Sanh, Wolf and Rush 2020, arXiv 2005.07683, section 4).

minimise L(w * M) + lambda_t * mean over groups of mean of sigmoid(S),   M = 1 where sigmoid(S) > tau

The gradient of S passes straight through the threshold: dL/dw' * w, summed over the weights of a unit, and S is moved
by Adam, as the authors' code does. lambda_t rises on a cubic ramp.

In the paper the penalty decides how much is left. Here the masks of the training are the paper's, but the allocation
decides in the end how many units go, by S: the sparsity is the run's. Choose a penalty that leaves about as many.

The training stays: what is not removed goes on from the weights that it ends with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regraft.config.ranges import require
from regraft.interfaces import LanguageModel, PruningContext, Structure
from regraft.pruning.criteria.straight_through import LearnedScores, StraightThrough

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class SoftMovement(LearnedScores):
    """Units whose learned score is low go first. It trains the model in place."""

    score_learning_rate: float = 0.1
    """Of the scores. The authors take 0.01, for some ten thousand steps: a score must fall by 2 to be masked."""
    threshold: float = 0.1
    """tau, in (0, 0.5): scores begin at 0, whose sigmoid is 0.5."""
    penalty: float = 100.0
    """lambda at the end of the ramp."""

    def __post_init__(self) -> None:
        super().__post_init__()
        own = self.score_learning_rate
        require(own > 0, "score_learning_rate", own, "above 0")
        require(0 < self.threshold < 0.5, "threshold", self.threshold, "in (0, 0.5)")
        require(self.penalty >= 0, "penalty", self.penalty, "at least 0")

    def scores(self, model: LanguageModel, structure: Structure, context: PruningContext) -> list[torch.Tensor]:
        import torch

        groups = structure.groups(model.model)
        scores = [torch.zeros(group.units, device=model.model.device) for group in groups]
        optimizer = torch.optim.Adam(scores, lr=self.score_learning_rate)
        weights = StraightThrough(groups)

        def learn(network: PreTrainedModel, step: int) -> None:
            strength = self.penalty * self.risen(step) / len(groups)
            for group, score in zip(groups, scores, strict=True):
                moved = weights.movement(group)
                sigmoid = score.sigmoid()
                score.grad = moved + strength * sigmoid * (1 - sigmoid) / len(score)
            optimizer.step()
            weights.show()

        def mask(network: PreTrainedModel, step: int) -> None:
            weights.hide([score.sigmoid() > self.threshold for score in scores])

        context.calibration.train(
            model,
            self.loss,
            self.steps,
            learning_rate=self.learning_rate,
            on_gradients=[learn],
            after_step=[mask],
        )
        weights.show()
        return [score.detach() for score in scores]
