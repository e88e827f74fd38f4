"""Relations among the questions of a batch: RKD (Park et al. 2019, arXiv 1904.05068).

    L = w_D mean over i != j of H(|x_i - x_j| / mu_student, |y_i - y_j| / mu_teacher)
      + w_A mean over distinct i, j, k of H(cos of the angle at x_j in x_i x_j x_k, the same of y)

with x_i and y_i the hidden states of student and teacher at the last position of question i, mu the mean of the
distances above 0, and H(a, b) = (a - b)^2 / 2 where |a - b| <= 1, else |a - b| - 1/2. Nothing changes when either space
is rotated, moved or scaled, and the two may differ in width.

Questions of one forward pass are compared: with `recovery.accumulation` those of each part, so a step that is cut is
another step, and parts of fewer than three questions, or several processes, are refused. Computed in float32.

Points that coincide have no direction: cosines at them are 0, and no gradient flows. The paper sums over tuples of
distinct examples; its code averages over all n^2 and n^3, those with i = j included, which scales the two terms by
(n - 1) / n and (n - 1)(n - 2) / n^2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regraft.config.ranges import ConfigError, require
from regraft.interfaces import BEGINNING, Batch, Loss, LossNeed, LossValue, ModelOutputs, Moment, Positions, Reads

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Relational(Loss):
    """Questions lie to one another as they do for the teacher. Sees no label, and only the end of each question."""

    distance: float = 1.0
    """Weight of the distances, at least 0; as in the paper's code."""
    angle: float = 2.0
    """Weight of the angles, at least 0; as in the paper's code."""
    layer: int = -1
    """After which layer the hidden states are taken, from 1; 0 is the embedding, and -1 the last."""
    reads: Reads = "question"
    """Text of a batch: as for `KL`; whatever it holds, the end of the question counts."""
    positions: Positions = "answer"
    """Positions that are read: as for `KL`; of them the end of the question counts."""

    def __post_init__(self) -> None:
        for name in ("distance", "angle"):
            value = getattr(self, name)
            require(0 <= value < math.inf, name, value, "a finite number of at least 0")
        require(self.distance + self.angle > 0, "distance", self.distance, "above 0 where angle=0")

    @property
    def needs(self) -> frozenset[LossNeed]:
        return frozenset({"teacher_logits", "hidden_states"})

    @property
    def compares_questions(self) -> int:
        return 3 if self.angle > 0 else 2

    @property
    def ends_with_question(self) -> bool:
        return True

    @property
    def rests(self) -> bool:
        return True

    def __call__(
        self, batch: Batch, student: ModelOutputs, teacher: ModelOutputs | None, moment: Moment = BEGINNING
    ) -> LossValue:
        import torch
        from torch.nn.functional import smooth_l1_loss

        assert teacher is not None
        ends = question_ends(batch)
        with torch.autocast(ends.device.type, enabled=False):
            mine_between, mine_at = _relations(self._states(student)[ends].float())
            taught_between, taught_at = _relations(self._states(teacher)[ends].float())
        number = len(ends)
        unlike = ~torch.eye(number, dtype=torch.bool, device=ends.device)
        distinct = unlike[:, :, None] & unlike[:, None, :] & unlike[None, :, :]

        def mean(mine: torch.Tensor, taught: torch.Tensor, among: torch.Tensor) -> torch.Tensor:
            huber = smooth_l1_loss(mine[among], taught[among], reduction="sum")
            return huber / max(int(among.sum()), 1)

        distances = mean(mine_between, taught_between, unlike)
        total = self.distance * distances + self.angle * mean(mine_at, taught_at, distinct)
        return LossValue(total=total * number, count=number)

    def _states(self, outputs: ModelOutputs) -> torch.Tensor:
        states = outputs.hidden_states
        if not -len(states) <= self.layer < len(states):
            raise ConfigError(f"layer={self.layer}: must be at most {len(states) - 1}, the number of layers.")
        return states[self.layer]


def question_ends(batch: Batch) -> torch.Tensor:
    """(batch,) long; for each row the index into the read positions of the last one of its question."""
    rows = len(batch.ids)
    reads = batch.read_question.bincount(minlength=rows)
    before = batch.read_question[batch.context_read].bincount(minlength=rows)
    return reads.cumsum(0) - reads + before


def _relations(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, n) distances over their mean, and (n, n, n) cosines: of the angle at i between the ways to j and to k."""
    import torch

    ways = states[None] - states[:, None]
    squares = ways.square().sum(dim=2)
    apart = squares > 0
    # the root's derivative at 0 is infinite: where points coincide it is never formed
    lengths = torch.where(apart, squares, 1.0).sqrt()
    directions = torch.where(apart[:, :, None], ways / lengths[:, :, None], 0.0)
    distances = torch.where(apart, lengths, 0.0)
    mean = distances.sum() / apart.sum().clamp_min(1)
    return distances / torch.where(mean > 0, mean, 1.0), directions @ directions.transpose(1, 2)
