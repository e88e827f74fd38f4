"""Movement pruning (Sanh, Wolf and Rush 2020, arXiv 2005.07683, equation 3).

S_j <- S_j - sum over the weights w of unit j of dL/dw' * w,   w' = w * M_j,   M = the top v of each group by S

Weights that move away from zero gain, those that shrink lose: the scores are learned while the weights are, on the
recovery's questions. v falls from all to what the sparsity leaves, on a cubic ramp. The paper's learning rate of S
scales all scores alike, which moves no mask, and is left out. Units of several weights are the blocks of
arXiv 2109.04838.

The training stays: what is not removed goes on from the weights that it ends with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from regraft.interfaces import LanguageModel, PruningContext, Structure
from regraft.pruning.allocation.layerwise import removed
from regraft.pruning.criteria.straight_through import LearnedScores, StraightThrough
from regraft.pruning.spread import dense_units

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Movement(LearnedScores):
    """Units that a training moves towards zero go first. It trains the model in place."""

    reads_sparsity: ClassVar[bool] = True

    def scores(self, model: LanguageModel, structure: Structure, context: PruningContext) -> list[torch.Tensor]:
        import torch

        groups, dense = structure.groups(model.model), dense_units(model, structure)
        there = structure.there(model) or [torch.ones(group.units, dtype=torch.bool) for group in groups]
        device = model.model.device
        scores = [torch.zeros(group.units, device=device) for group in groups]
        weights = StraightThrough(groups)

        def learn(network: PreTrainedModel, step: int) -> None:
            for group, score in zip(groups, scores, strict=True):
                score -= weights.movement(group)
            weights.show()

        def mask(network: PreTrainedModel, step: int) -> None:
            share = context.sparsity * self.risen(step)
            keep = []
            for group, score, units, stays in zip(groups, scores, dense, there, strict=True):
                left = min(units - removed(units, share), int(stays.sum()))
                ranked = score.masked_fill(~stays.to(device), float("-inf"))
                keep.append(structure.select(group, ranked, left))
            weights.hide(keep)

        context.calibration.train(
            model,
            self.loss,
            self.steps,
            learning_rate=self.learning_rate,
            on_gradients=[learn],
            after_step=[mask],
        )
        weights.show()
        return scores
