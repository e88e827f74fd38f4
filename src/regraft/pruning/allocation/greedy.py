"""Greedy search: step by step, units go from the layer whose loss makes the model's rise least.

    of layers l, each with d more units gone:   l* = argmin over l of (L(x + d e_l) - L(x)) / d,   x <- x + d e_l*

until the total is gone. A step takes the same number of units, so there are about
evaluations / layers of them.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

from regraft.config.ranges import require
from regraft.pruning.allocation.search import Problem, Searched
from regraft.pruning.allocation.shares import share_out


@dataclass(frozen=True, kw_only=True)
class Greedy(Searched):
    """Takes from the layer that can spare it best, and never gives back."""

    def search(self, problem: Problem, draw: random.Random) -> None:
        """As the base.

        Raises:
            ConfigError: The budget allows no step.
        """
        room, layers = problem.room, len(problem.blocks)
        # the even candidate, the model as it enters, and what is left in the end
        steps = (self.evaluations - 3) // layers
        require(
            steps >= 1, "pruner.allocation.evaluations", self.evaluations, f"at least {layers + 3} for {layers} layers"
        )
        losses = list(room.least)
        each = math.ceil((room.total - sum(losses)) / steps)
        now = problem.loss(losses)
        while sum(losses) < room.total:
            left = [
                min(each, room.total - sum(losses), most - lost) for most, lost in zip(room.most, losses, strict=True)
            ]
            if problem.evaluations + sum(units > 0 for units in left) >= self.evaluations:
                break
            tried = []
            for layer, units in enumerate(left):
                if units > 0:
                    candidate = list(losses)
                    candidate[layer] += units
                    loss = problem.loss(candidate)
                    # the difference of two infinities would be no number
                    rise = (loss - now) / units if math.isfinite(loss) else math.inf
                    tried.append((rise, loss, candidate))
            _, now, losses = min(tried, key=lambda attempt: attempt[0])
        # a layer that was full before its step can make the budget end first: what is left goes evenly
        problem.loss(share_out(replace(room, least=tuple(losses))))
