"""Taylor scores whose loss looks at the dense model too: SDMPrune (Zhu et al. 2025, arXiv 2506.11120).

    s_j = E over batches of sum over i of | sum over M of g_M[j, i] w_M[j, i] |,   M in gate, up, down^T

with g the gradient of L = (1 - alpha) CE + alpha KL(softmax(z_dense / T) || softmax(z)), T on the teacher only. Where
the model is the dense one and T = 1, KL and its gradient are zero. So a small share of each group's units is taken out
first, the lowest by the same score of CE alone, and the rest is scored without them. As in its code
(visresearch/SDMPrune, prune/distill_prune.py) matrices are added before the absolute value, and batches after it; there
a batch is one text: calibration.batch_size=1. Of heads, matrices of one shape are added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from regraft.config.ranges import ConfigError, require
from regraft.interfaces import (
    BEGINNING,
    Batch,
    Criterion,
    Group,
    Kind,
    LanguageModel,
    Loss,
    LossNeed,
    LossValue,
    ModelOutputs,
    Moment,
    Positions,
    PruningContext,
    PruningNeed,
    Reads,
    Structure,
)
from regraft.pruning.gradients import backward, checked, differentiated, needed, unread, wide
from regraft.pruning.spread import parameters

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class KLTaylor(Criterion):
    """Units without which labels and dense model would be missed least go first."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"neurons", "heads"})

    hard: Loss
    """CE: on labels in the paper. Also what the first units are chosen by."""
    soft: Loss
    """KL to the dense model; must read the same text as `hard`."""
    alpha: float = 0.4
    """Weight of `soft`, in [0, 1]. The paper's runs have 0.1 to 0.42."""
    first: float = 0.025
    """Share of each group's units that is taken out before the rest is scored, in [0, 0.5]; if not 0, at least one."""

    def __post_init__(self) -> None:
        require(0 <= self.alpha <= 1, "alpha", self.alpha, "in [0, 1]")
        require(0 <= self.first <= 0.5, "first", self.first, "in [0, 0.5]")
        if self.hard.reads == "gold" and "labels" not in self.hard.needs:
            raise ConfigError(
                "hard.reads=gold: must be question, choices or drawn_choice for a loss that declares no need of labels."
            )
        for key in ("reads", "positions"):
            hard, soft = getattr(self.hard, key), getattr(self.soft, key)
            if hard != soft:
                raise ConfigError(f"hard.{key}={hard}: must be soft.{key}={soft}, since both read one text.")

    @property
    def needs(self) -> frozenset[PruningNeed]:
        return needed(self.hard, self.soft)

    def scores(self, model: LanguageModel, structure: Structure, context: PruningContext) -> list[torch.Tensor]:
        groups = structure.groups(model.model)
        loss = Both(hard=self.hard, soft=self.soft, alpha=self.alpha)
        with differentiated(model, parameters(groups)):
            early = _importance(model, groups, self.hard, context)
            gone = [lowest(score, self.first) for score in early]
            with unread(groups, gone):
                late = _importance(model, groups, loss, context)
        late = checked(
            [score * ~out for score, out in zip(late, gone, strict=True)],
            self,
            "The dense model has no KL to itself: set pruner.criterion.first above 0.",
        )
        return [_below(*each) for each in zip(late, early, gone, strict=True)]


@dataclass(frozen=True, kw_only=True)
class Both(Loss):
    """(1 - alpha) hard + alpha soft, each the mean over what counts in it."""

    hard: Loss
    soft: Loss
    alpha: float

    @property
    def needs(self) -> frozenset[LossNeed]:
        return self.hard.needs | self.soft.needs

    @property
    def reads(self) -> Reads:
        return self.hard.reads

    @property
    def positions(self) -> Positions:
        return self.hard.positions

    def __call__(
        self, batch: Batch, student: ModelOutputs, teacher: ModelOutputs | None, moment: Moment = BEGINNING
    ) -> LossValue:
        hard, soft = (each(batch, student, teacher, moment) for each in (self.hard, self.soft))
        total = (1 - self.alpha) * hard.total / hard.count + self.alpha * soft.total / soft.count
        return LossValue(total=total, count=1)


def _importance(
    model: LanguageModel, groups: Sequence[Group], loss: Loss, context: PruningContext
) -> list[torch.Tensor]:
    """(units,) float64 for each group: the formula above."""
    import torch

    matrices = parameters(groups)
    scores = [torch.zeros(group.units, dtype=torch.float64, device=model.model.device) for group in groups]
    batches = 0
    for count in backward(model, context.calibration, loss):
        batches += 1
        for group, score in zip(groups, scores, strict=True):
            added: dict[int, torch.Tensor] = {}
            gradients = group.gradients()
            for name, weight in group.weights().items():
                width = weight.shape[1]
                change = wide(gradients[name]) * wide(weight)
                added[width] = added[width] + change if width in added else change
            for change in added.values():
                score += change.abs().sum(dim=1, dtype=torch.float64) / count
        for parameter in matrices:
            parameter.grad = None
    return [score / batches for score in scores]


def lowest(scores: torch.Tensor, share: float) -> torch.Tensor:
    """(units,) bool: the share of lowest score, rounded halves up; at least one unit, if any share, but never all."""
    import torch

    number = min(max(int(share > 0), int(share * len(scores) + 0.5)), len(scores) - 1)
    mask = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    mask[scores.argsort(stable=True)[:number]] = True
    return mask


def _below(scores: torch.Tensor, early: torch.Tensor, gone: torch.Tensor) -> torch.Tensor:
    """`scores`, and below them, within one mean of the lowest, the units of `gone` in the order of `early`."""
    if not bool(gone.any()):
        return scores
    rest = scores[~gone]
    step = (rest.mean() if bool(rest.any()) else 1.0) / int(gone.sum())
    ranks = early[gone].argsort(stable=True).argsort()
    scores = scores.clone()
    scores[gone] = rest.min() - step * (int(gone.sum()) - ranks)
    return scores
