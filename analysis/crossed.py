"""A paired difference over questions and seeds at once: interval, test, power.

The same questions are asked under every seed, so questions and seeds are crossed, as readers and cases are in
diagnostic imaging. With d[q, s] = right under the first condition minus right under the second,

    d[q, s] = delta + u_q + v_s + e_qs,

u, v, e independent with mean 0. The mean over the table estimates delta with variance

    var_q / Q + var_s / S + var_e / (Q S) = (E[MSQ] + E[MSS] - E[MSE]) / (Q S),

MSQ, MSS, MSE being the mean squares of the two-way table (Scheffe 1959, chapter 7). In a balanced table the estimates
of the three variances are those of a mixed model fitted by REML, where none of them is negative. Degrees of freedom are
Satterthwaite's (1946, doi:10.2307/3002019); Hillis, Berbaum and Metz (2008, doi:10.1016/j.acra.2007.12.015) do the same
for readers and cases.

Intervals and tests follow what simulation shows of them (`python -m benchmarks.coverage`, docs/statistics.md):

* from 5 seeds on, over questions and seeds, as above;
* with 2 to 4 seeds the above covers too rarely where seeds differ moderately. The interval is over seeds alone (t
  quantiles), for these very questions, and a difference is claimed only if both t tests, over the seeds and over the
  questions, find it;
* with one seed, or where the seed changes nothing, over questions alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import chdtri, ndtr, stdtr, stdtrit

from analysis.statistics import LEVEL

Over = Literal["questions and seeds", "seeds", "questions"]

CROSSED_SEEDS = 5
"""Seeds from which on the interval over questions and seeds is offered."""
POWER = 0.8
"""Probability with which a study should find what it looks for."""
MOST_SEEDS, MOST_QUESTIONS = 200, 1_000_000
"""Larger studies are not proposed."""
NODES = 400
"""Points of the quadrature over the mean square of the seeds."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class MeanSquares:
    """The two-way table in short."""

    questions: int
    seeds: int
    msq: float
    """Of questions: S var_q + var_e is expected."""
    mss: float
    """Of seeds: Q var_s + var_e is expected; 0 with one seed."""
    mse: float
    """Of the rest: var_e is expected; 0 with one seed."""

    @classmethod
    def of(cls, differences: npt.ArrayLike) -> MeanSquares:
        """From a (questions, seeds) table with at least 2 questions."""
        table = np.asarray(differences, dtype=float)
        questions, seeds = table.shape
        assert questions >= 2
        mean, by_question, by_seed = table.mean(), table.mean(axis=1), table.mean(axis=0)
        msq = seeds * float(((by_question - mean) ** 2).sum()) / (questions - 1)
        if seeds == 1:
            return cls(questions=questions, seeds=seeds, msq=msq, mss=0.0, mse=0.0)
        mss = questions * float(((by_seed - mean) ** 2).sum()) / (seeds - 1)
        rest = table - by_question[:, None] - by_seed[None, :] + mean
        return cls(
            questions=questions,
            seeds=seeds,
            msq=msq,
            mss=mss,
            mse=float((rest**2).sum()) / ((questions - 1) * (seeds - 1)),
        )

    @property
    def components(self) -> Components:
        """The variances that a mixed model fits; none is negative."""
        return Components(
            question=max((self.msq - self.mse) / self.seeds, 0.0),
            seed=max((self.mss - self.mse) / self.questions, 0.0),
            rest=self.mse,
        )


@dataclass(frozen=True, kw_only=True)
class Components:
    """Variances of a difference: between questions, between seeds, and of one question under one seed."""

    question: float
    seed: float
    rest: float

    def expected(self, questions: int, seeds: int) -> MeanSquares:
        """The mean squares that a study of this size has on average."""
        return MeanSquares(
            questions=questions,
            seeds=seeds,
            msq=seeds * self.question + self.rest,
            mss=questions * self.seed + self.rest,
            mse=self.rest,
        )


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A difference with its 95 % interval and the p-value of its being none; what the interval is over."""

    mean: float
    low: float
    high: float
    p: float
    over: Over


def estimate(differences: npt.ArrayLike, level: float = LEVEL) -> Estimate | None:
    """Interval and test of a mean paired difference.

    Args:
        differences: (questions, seeds); right under the first condition minus right under the second. A seed that
            gives the same two models as another is left out before.
        level: Coverage.

    Returns:
        None where all differences are equal: there is no spread to go by, and no interval is invented.
    """
    table = np.asarray(differences, dtype=float)
    mean, squares = float(table.mean()), MeanSquares.of(table)
    errors = [
        (over, float(error), float(freedom)) for over, error, freedom in _errors(squares, squares.mss) if error > 0
    ]
    if not errors:
        return None
    p = max(2 * float(stdtr(freedom, -abs(mean) / error)) for _, error, freedom in errors)
    over, error, freedom = errors[0]
    half = float(stdtrit(freedom, (1 + level) / 2)) * error
    return Estimate(mean=mean, low=mean - half, high=mean + half, p=p, over=over)


def power(difference: float, components: Components, questions: int, seeds: int, alpha: float = 1 - LEVEL) -> float:
    """Probability that `estimate` has p < `alpha`, if `difference` is the true one.

    The mean is normal, the mean square of the seeds a multiple of chi square with S - 1 degrees of freedom, the other
    two stay near what is expected of them, since there are many questions. The rule of `estimate` is integrated over
    the second.
    """
    squares = components.expected(questions, seeds)
    spread = math.sqrt(max(squares.msq + squares.mss - squares.mse, 0.0) / (questions * seeds))
    if spread == 0:
        return float(difference != 0)
    mss = np.zeros(1)
    if seeds > 1:
        upper = (np.arange(NODES) + 0.5) / NODES
        mss = squares.mss * chdtri(seeds - 1, upper) / (seeds - 1)
    halves = [error * stdtrit(freedom, 1 - alpha / 2) for _, error, freedom in _errors(squares, mss)]
    half = np.max(halves, axis=0)
    return float((ndtr((difference - half) / spread) + ndtr((-difference - half) / spread)).mean())


@dataclass(frozen=True, kw_only=True)
class Needed:
    """The size of a study that finds a difference with probability `POWER`; None where none that is proposed does."""

    seeds: int | None
    """With as many questions."""
    questions: int | None
    """With as many seeds."""


def needed(difference: float, components: Components, questions: int, seeds: int, alpha: float = 1 - LEVEL) -> Needed:
    """How many seeds, or how many questions, would be needed to see a difference."""
    enough_seeds = (
        number
        for number in range(2, MOST_SEEDS + 1)
        if power(difference, components, questions, number, alpha) >= POWER
    )
    low, high = 1, MOST_QUESTIONS
    if power(difference, components, high, seeds, alpha) < POWER:
        return Needed(seeds=next(enough_seeds, None), questions=None)
    while high - low > 1:
        middle = (low + high) // 2
        if power(difference, components, middle, seeds, alpha) >= POWER:
            high = middle
        else:
            low = middle
    return Needed(seeds=next(enough_seeds, None), questions=high)


def _errors(squares: MeanSquares, mss: float | Floats) -> list[tuple[Over, Floats, Floats]]:
    """Standard errors with their degrees of freedom: first that of the interval; a claim must pass by all of them.

    `mss` stands in for the mean square of the seeds, so that the rule can be integrated over it.
    """
    questions, seeds, cells = squares.questions, squares.seeds, squares.questions * squares.seeds
    mss = np.asarray(mss, dtype=float)
    over_questions: tuple[Over, Floats, Floats] = (
        "questions",
        np.full_like(mss, math.sqrt(squares.msq / cells)),
        np.full_like(mss, questions - 1),
    )
    if seeds == 1:
        return [over_questions]
    if seeds < CROSSED_SEEDS:
        return [("seeds", np.sqrt(mss / cells), np.full_like(mss, seeds - 1)), over_questions]
    total = squares.msq + mss - squares.mse
    differ = (mss > squares.mse) & (total > 0)
    squared = squares.msq**2 / (questions - 1) + mss**2 / (seeds - 1) + squares.mse**2 / ((questions - 1) * (seeds - 1))
    error = np.sqrt(np.where(differ, total, squares.msq) / cells)
    freedom = np.where(differ, total**2 / np.where(differ, squared, 1), questions - 1)
    return [("questions and seeds", error, freedom)]
