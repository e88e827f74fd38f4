"""What the searched allocations share: candidates of one exact total, measured by one loss, under one budget.

A candidate says how many units each layer loses (each group that lies in no layer counts as one). The groups of a layer
lose the same share of theirs, so the seven matrices of a layer are one decision. Its fitness is the loss of the model
with the units of lowest score silenced. The even candidate is always measured, so what is found is never worse on the
calibration questions than the same share for all.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from regraft.config.ranges import require
from regraft.interfaces import Allocation, Loss, PruningNeed, Scored
from regraft.pruning.allocation.shares import Room, require_floor, room, share_out
from regraft.pruning.trial import Trial

Candidate = tuple[int, ...]
"""Units that each layer has lost."""

NEEDS: tuple[PruningNeed, ...] = ("labels", "teacher_logits")


class Problem:
    """How many units each layer may lose, and what the model loses by it.

    Args:
        scored: The model and its scores.
        groups: Bounds and total of the structure's groups.
        loss: What is measured.
        budget: Most evaluations of the model.
    """

    def __init__(self, scored: Scored, groups: Room, loss: Loss, budget: int) -> None:
        self._groups, self._trial, self._budget = groups, Trial(scored, loss), budget
        blocks: dict[object, list[int]] = {}
        all_groups = scored.structure.groups(scored.model.model)
        for number, group in enumerate(all_groups):
            blocks.setdefault(group.name if group.layer is None else group.layer, []).append(number)
        self.blocks = list(blocks.values())
        """Numbers of the groups of each layer."""
        self.room = groups.merged(self.blocks)
        """Bounds and total of the layers."""
        self.weights = [
            sum(part.parameter.numel() for group in block for part in all_groups[group].parts) for block in self.blocks
        ]
        """Weights of the matrices of each layer in which its units own something."""
        self.even: Candidate = tuple(share_out(self.room))
        """The same share of each layer."""
        self.found: dict[Candidate, float] = {}
        """Every candidate of the right total that was measured -> its loss."""

    @property
    def evaluations(self) -> int:
        """How often the model was measured."""
        return self._trial.evaluations

    @property
    def is_spent(self) -> bool:
        """Whether the budget is used up."""
        return self._trial.evaluations >= self._budget

    @property
    def best(self) -> Candidate:
        """The candidate of lowest loss; of equal ones that which was found first."""
        return min(self.found, key=lambda candidate: self.found[candidate])

    def loss(self, candidate: Sequence[int]) -> float:
        """The mean loss of the model when layer l has lost `candidate[l]` units; of any total."""
        value = self._trial(self.group_losses(candidate))
        if sum(candidate) == self.room.total:
            self.found.setdefault(tuple(candidate), value)
        return value

    def group_losses(self, candidate: Sequence[int]) -> list[int]:
        """The units that each group of the structure has lost."""
        losses = [0] * len(self._groups.units)
        for block, lost in zip(self.blocks, candidate, strict=True):

            def of(numbers: Sequence[int], block: Sequence[int] = block) -> tuple[int, ...]:
                return tuple(numbers[group] for group in block)

            within = Room(
                units=of(self._groups.units), least=of(self._groups.least), most=of(self._groups.most), total=lost
            )
            for group, share in zip(block, share_out(within), strict=True):
                losses[group] = share
        return losses


@dataclass(frozen=True, kw_only=True)
class Searched(Allocation):
    """Looks for the shares of the layers with which the model loses least."""

    searches: ClassVar[bool] = True

    loss: Loss
    """What is measured over the calibration questions: fitness is its mean, lower is better."""
    evaluations: int = 200
    """How often the model is measured at most; each is a pass over the calibration questions."""
    floor: float = 0.05
    """Share of each group's dense units that stays at least; one unit stays anyway."""

    def __post_init__(self) -> None:
        require(self.evaluations >= 1, "evaluations", self.evaluations, "at least 1")
        require_floor(self.floor)

    @property
    def needs(self) -> frozenset[PruningNeed]:
        return frozenset({"calibration", *(need for need in NEEDS if need in self.loss.needs)})

    def losses(self, scored: Scored, sparsity: float) -> list[int]:
        import torch

        problem = Problem(scored, room(scored, sparsity, self.floor), self.loss, self.evaluations)
        even = problem.loss(problem.even)
        if len(problem.blocks) > 1 and sum(problem.room.least) < problem.room.total < sum(problem.room.most):
            seed = int(torch.randint(2**31, (), generator=scored.context.generator)) if self.uses_seed else 0
            self.search(problem, random.Random(seed))
        best = problem.best
        found = {"layers": list(best), "loss": problem.found[best], "even_loss": even}
        scored.context.report({"search": found | {"evaluations": problem.evaluations}})
        return problem.group_losses(best)

    @abstractmethod
    def search(self, problem: Problem, draw: random.Random) -> None:
        """Measure candidates until the budget is spent; `problem` keeps the best.

        Args:
            problem: Of which the even candidate is measured.
            draw: Where chance comes from; only for those with `uses_seed`.
        """
