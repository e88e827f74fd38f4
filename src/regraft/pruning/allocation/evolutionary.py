"""Evolutionary search over the layers' shares at one total (as EvoPress, Sieberling et al. 2024, arXiv 2410.14649).

    generation 0:  the even candidate and mutations of it
    generation g:  `population` mutations, each of a parent drawn from the `survivors` best of all that were measured
    mutation:      units move from one layer to another, one to three times

So the total never moves, and the best is never lost (elitism).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from regraft.config.ranges import require
from regraft.pruning.allocation.search import Candidate, Problem, Searched

ATTEMPTS = 50
"""To find a candidate that was not measured yet, before the space is taken for exhausted."""


@dataclass(frozen=True, kw_only=True)
class Evolutionary(Searched):
    """Moves units between layers and keeps what helps."""

    uses_seed = True

    population: int = 16
    """Candidates a generation."""
    survivors: int = 4
    """The best candidates, from which the next generation comes."""
    step: float = 0.25
    """Largest share of a layer's units that one move takes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.population >= 1, "population", self.population, "at least 1")
        require(self.survivors >= 1, "survivors", self.survivors, "at least 1")
        require(0 < self.step <= 1, "step", self.step, "a number in (0, 1]")

    def search(self, problem: Problem, draw: random.Random) -> None:
        while not problem.is_spent:
            ranked = sorted(problem.found, key=lambda candidate: problem.found[candidate])
            parents = ranked[: self.survivors]
            for _ in range(self.population):
                child = self.unlike(problem, parents, draw)
                if child is None or problem.is_spent:
                    return
                problem.loss(child)

    def unlike(self, problem: Problem, parents: list[Candidate], draw: random.Random) -> Candidate | None:
        """A mutation of a parent that was not measured yet; None if there seems to be none."""
        for _ in range(ATTEMPTS):
            child = draw.choice(parents)
            # the smaller of two draws: most mutations are single moves
            for _ in range(min(draw.randint(1, 3), draw.randint(1, 3))):
                child = self.moved(problem, child, draw)
            if child not in problem.found:
                return child
        return None

    def moved(self, problem: Problem, candidate: Candidate, draw: random.Random) -> Candidate:
        """`candidate` with some losses of one layer moved to another, as far as the bounds allow."""
        room = problem.room
        taken, spared = draw.sample(range(len(candidate)), 2)
        step = draw.uniform(0, self.step) * min(room.units[taken], room.units[spared])
        open_to_more, open_to_less = room.most[taken] - candidate[taken], candidate[spared] - room.least[spared]
        units = min(max(1, round(step)), open_to_more, open_to_less)
        losses = list(candidate)
        losses[taken] += units
        losses[spared] -= units
        return tuple(losses)
