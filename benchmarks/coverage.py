"""How often the intervals of the analysis hold the truth, claims are false, and true differences are found.

    python -m benchmarks.coverage

A sweep is simulated by a probit model: under condition c and seed s a question q is answered rightly if

    m_c + a_q + b_qc + v_s + w_sc + g_qs + e_qsc > 0,

with normal effects of the question (a), of the question under a condition (b), of the seed (v), of the seed under a
condition (w), of both (g), and of all (e). So the share of right answers is known exactly, Phi(m_c / total deviation),
and so is the true difference. `w` is what makes seeds differ in how the two conditions compare; its deviation, the
"spread of seeds", is varied from none to more than the whole difference.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from analysis.crossed import CROSSED_SEEDS, Components, MeanSquares, estimate, power
from analysis.statistics import holm, t_interval

Floats = npt.NDArray[np.float64]

SEEDS = (2, 3, 4, 5, 10, 20)
QUESTIONS = (200, 480, 1221)
SPREADS = (0.0, 0.05, 0.1, 0.3)
"""Deviations of `w`."""
DIFFERENCE = 0.03
FAMILY = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
"""Accuracies of the second condition at the sparsities of one sweep."""


@dataclass(frozen=True, kw_only=True)
class World:
    """The deviations of the effects."""

    spread: float
    question: float = 1.0
    question_condition: float = 0.5
    seed: float = 0.1
    question_seed: float = 0.5
    rest: float = 0.5

    @property
    def over_seeds(self) -> float:
        """Of all that a new seed draws anew."""
        return math.sqrt(self.seed**2 + self.spread**2 + self.question_seed**2 + self.rest**2)

    @property
    def total(self) -> float:
        return math.sqrt(self.question**2 + self.question_condition**2 + self.over_seeds**2)


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """Many sweeps of two conditions."""

    first: npt.NDArray[np.bool_]
    """(sweeps, questions, seeds) right answers."""
    second: npt.NDArray[np.bool_]
    for_these: Floats
    """(sweeps,) the true difference for the questions that were drawn, over all seeds."""
    first_for_these: Floats
    """(sweeps,) the true share of right answers under the first condition for these questions."""

    def differences(self) -> Iterator[Floats]:
        for first, second in zip(self.first, self.second, strict=True):
            yield first.astype(float) - second


def simulate(
    world: World,
    generator: np.random.Generator,
    *,
    sweeps: int,
    questions: int,
    seeds: int,
    difference: float,
    accuracy: float = 0.5,
) -> Simulated:
    """Draw sweeps in which the second condition has `accuracy` and the first `difference` more."""

    def normal(deviation: float, *shape: int) -> npt.NDArray[np.float32]:
        return np.float32(deviation) * generator.standard_normal(shape, dtype=np.float32)

    shared = normal(world.question, sweeps, questions, 1)
    by_seed = normal(world.seed, sweeps, 1, seeds) + normal(world.question_seed, sweeps, questions, seeds)
    right, expected = [], []
    for share in (accuracy + difference, accuracy):
        of_question = np.float32(ndtri(share) * world.total) + shared
        of_question = of_question + normal(world.question_condition, sweeps, questions, 1)
        drawn = normal(world.spread, sweeps, 1, seeds) + normal(world.rest, sweeps, questions, seeds)
        right.append(of_question + by_seed + drawn > 0)
        expected.append(ndtr(of_question[..., 0].astype(float) / world.over_seeds).mean(axis=1))
    return Simulated(first=right[0], second=right[1], for_these=expected[0] - expected[1], first_for_these=expected[0])


def components(world: World, generator: np.random.Generator, difference: float, accuracy: float = 0.5) -> Components:
    """The variances of a difference in this world, from one table that is large enough."""
    large = simulate(world, generator, sweeps=1, questions=3000, seeds=1500, difference=difference, accuracy=accuracy)
    return MeanSquares.of(next(large.differences())).components


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Shares of the simulated sweeps."""

    coverage: float
    """Whose interval of the difference holds the truth: over questions and seeds, or for these questions."""
    accuracy_coverage: float
    """Whose t interval of the first condition's accuracy holds the truth for these questions."""
    found: float
    """In which the true difference is found (p < 0.05)."""
    predicted: float
    """That `power` predicts to find it."""
    claimed: float
    """In which a difference is claimed, by Holm over the family, where there is none."""


def rates(
    world: World, generator: np.random.Generator, *, sweeps: int, questions: int, seeds: int, accuracy: float = 0.5
) -> Rates:
    """Simulate in blocks, so that memory stays small; `accuracy` is the second condition's."""
    covered = told = found = claimed = offered = 0
    block = max(1, min(sweeps, 20_000_000 // (questions * seeds)))
    for start in range(0, sweeps, block):
        number = min(block, sweeps - start)
        drawn = simulate(
            world,
            generator,
            sweeps=number,
            questions=questions,
            seeds=seeds,
            difference=DIFFERENCE,
            accuracy=accuracy,
        )
        for place, table in enumerate(drawn.differences()):
            estimated = estimate(table)
            assert estimated is not None
            truth = DIFFERENCE if seeds >= CROSSED_SEEDS else drawn.for_these[place]
            covered += estimated.low <= truth <= estimated.high
            found += estimated.p < 0.05
            accuracies = drawn.first[place].mean(axis=0)
            if len(set(accuracies)) > 1:
                low, high = t_interval(list(accuracies))
                offered += 1
                told += low <= drawn.first_for_these[place] <= high
        claimed += sum(_family(world, generator, number, questions, seeds))
    return Rates(
        coverage=covered / sweeps,
        accuracy_coverage=told / offered,
        found=found / sweeps,
        predicted=power(DIFFERENCE, components(world, generator, DIFFERENCE, accuracy), questions, seeds),
        claimed=claimed / sweeps,
    )


def _family(world: World, generator: np.random.Generator, sweeps: int, questions: int, seeds: int) -> Sequence[bool]:
    """Whether each sweep claims something at one of its sparsities, where there is nothing to claim."""
    p_values = np.ones((len(FAMILY), sweeps))
    for row, accuracy in zip(p_values, FAMILY, strict=True):
        drawn = simulate(
            world, generator, sweeps=sweeps, questions=questions, seeds=seeds, difference=0.0, accuracy=accuracy
        )
        for place, table in enumerate(drawn.differences()):
            estimated = estimate(table)
            row[place] = 1.0 if estimated is None else estimated.p
    return [min(holm(list(column))) < 0.05 for column in p_values.T]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", type=int, default=2000, help="simulated sweeps of each line (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation (default: 0)")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help=f"of the sweeps (default: {SEEDS})")
    parser.add_argument("--accuracy", type=float, default=0.5, help="of the second condition (default: 0.5)")
    given = parser.parse_args(arguments)
    write = sys.stdout.write
    write(
        "| seeds | questions | spread of seeds | interval is over | coverage | accuracy: coverage | claimed, none true"
        f" | found, {100 * DIFFERENCE:g} points true | predicted |\n|{' --- |' * 9}\n"
    )
    for seeds in given.seeds:
        for questions in QUESTIONS:
            for spread in SPREADS:
                generator = np.random.default_rng([given.seed, seeds, questions, round(100 * spread)])
                found = rates(
                    World(spread=spread),
                    generator,
                    sweeps=given.sweeps,
                    questions=questions,
                    seeds=seeds,
                    accuracy=given.accuracy,
                )
                over = "questions and seeds" if seeds >= CROSSED_SEEDS else "seeds"
                numbers = (found.coverage, found.accuracy_coverage, found.claimed, found.found, found.predicted)
                told = " | ".join(f"{100 * number:.1f}" for number in numbers)
                write(f"| {seeds} | {questions:,} | {spread} | {over} | {told} |\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
