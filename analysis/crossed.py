"""A paired difference over questions and seeds at once: interval, test, power.

The same questions are asked under every seed, so questions and seeds are crossed, as readers and cases are in
diagnostic imaging. With d[q, s] = right under the first condition minus right under the second,

    d[q, s] = delta + u_q + v_s + e_qs,

u, v, e independent with mean 0. The mean over the table estimates delta with variance

    var_q / Q + var_s / S + var_e / (Q S) = (E[MSQ] + E[MSS] - E[MSE]) / (Q S),

MSQ, MSS, MSE being the mean squares of the two-way table (Scheffe 1959, chapter 7). In a balanced table the estimates
of the three variances are those of a mixed model fitted by REML, where none of them is negative.

There are many questions and few seeds, so of the three MSS alone is far from what is expected of it. It is E[MSS] X /
(S - 1), with X a chi square of S - 1 degrees of freedom; the generalized p-value of Weerahandi (1993,
doi:10.1080/01621459.1993.10476355) puts E[MSS] = (S - 1) MSS / X into the variance and averages over X:

    p = E_X[ 2 T_{Q-1}( -|mean| / sqrt((MSQ - MSE + (S - 1) MSS / X) / (Q S)) ) ].

Where seeds alone differ this is the t test over seeds, exactly; where they do not, that over questions, nearly. The
interval holds the differences that are not refused at its level.

Intervals and tests follow what simulation shows of them (`python -m benchmarks.coverage`, docs/statistics.md):

* from 5 seeds on, over questions and seeds, as above;
* with 2 to 4 seeds the above is too wide where seeds do not differ. The interval is over seeds alone (t quantiles), for
  these very questions, and a difference is claimed only if both t tests, over seeds and over questions, find it;
* with one seed, or where the seed changes nothing, over questions alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import gammaincinv, ndtr, stdtr, stdtrit

from analysis.statistics import LEVEL

Over = Literal["questions and seeds", "seeds", "questions"]

CROSSED_SEEDS = 5
"""Seeds from which on the interval over questions and seeds is offered."""
POWER = 0.8
"""Probability with which a study should find what it looks for."""
MOST_SEEDS, MOST_QUESTIONS = 200, 1_000_000
"""Larger studies are not proposed."""
NODES = 40
"""Points of a quadrature over a chi square."""
ROUNDING = 1e-12
"""Differences that are closer are equal."""
HALVINGS = 32
"""Of the range in which half the width of an interval lies."""

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
    """A difference with its 95 % interval and the p-value of its being none."""

    mean: float
    low: float
    high: float
    p: float
    over: Over
    """What the interval is over."""
    decided_by: Over
    """What the test with the largest p is over, which is the one that is told."""


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
    if np.ptp(table) < ROUNDING:
        return None
    mean, squares = float(table.mean()), MeanSquares.of(table)
    tests = [test for test in _tests(squares, np.array([squares.mss])) if test.spread]
    if not tests:
        return None
    half = float(tests[0].half_width(1 - level)[0])
    p, place = max((float(test.p(abs(mean))[0]), -place) for place, test in enumerate(tests))
    over, decided_by = tests[0].over, tests[-place].over
    return Estimate(mean=mean, low=mean - half, high=mean + half, p=p, over=over, decided_by=decided_by)


def power(difference: float, components: Components, questions: int, seeds: int, alpha: float = 1 - LEVEL) -> float:
    """Probability that `estimate` has p < `alpha`, if `difference` is the true one.

    The mean is normal, the mean square of the seeds a multiple of chi square; the other two stay near what is expected
    of them, since there are many questions. The rule of `estimate` is averaged over the mean square of the seeds.
    """
    squares = components.expected(questions, seeds)
    spread = math.sqrt(max(squares.msq + squares.mss - squares.mse, 0.0) / (questions * seeds))
    if spread == 0:
        return 0.0  # nothing is claimed where nothing is known of the spread
    mss, weights = np.zeros(1), np.ones(1)
    if seeds > 1:
        inverse, weights = _over_chi_square(seeds - 1)
        mss = squares.mss / inverse
    half = np.max([test.half_width(alpha) for test in _tests(squares, mss)], axis=0)
    found = ndtr((difference - half) / spread) + ndtr((-difference - half) / spread)
    return float(weights @ found)


@dataclass(frozen=True, kw_only=True)
class Needed:
    """The size of a study that finds a difference with probability `POWER`; None where none that is proposed does."""

    seeds: int | None
    """With as many questions."""
    questions: int | None
    """With as many seeds."""


def needed(difference: float, components: Components, questions: int, seeds: int, alpha: float = 1 - LEVEL) -> Needed:
    """How many seeds, or how many questions, would be needed to see a difference."""

    def seen(questions: int, seeds: int) -> bool:
        return power(difference, components, questions, seeds, alpha) >= POWER

    few = next((number for number in range(2, CROSSED_SEEDS) if seen(questions, number)), None)
    return Needed(
        seeds=few or _first(lambda number: seen(questions, number), CROSSED_SEEDS, MOST_SEEDS),
        questions=_first(lambda number: seen(number, seeds), 2, MOST_QUESTIONS),
    )


def _first(holds: Callable[[int], bool], low: int, high: int) -> int | None:
    """The first number from `low` to `high` from which on something holds; None if it does not hold of `high`."""
    if not holds(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return high


@dataclass(frozen=True, kw_only=True)
class _T:
    """A t test of the mean: over seeds, or over questions; for each of several mean squares."""

    over: Over
    error: Floats
    freedom: int

    @property
    def spread(self) -> bool:
        return bool((self.error > 0).any())

    def p(self, distance: float) -> Floats:
        return np.asarray(2 * stdtr(self.freedom, -distance / self.error))

    def half_width(self, alpha: float) -> Floats:
        return np.asarray(self.error * stdtrit(self.freedom, 1 - alpha / 2))


@dataclass(frozen=True, kw_only=True)
class _Generalized:
    """The generalized test over questions and seeds, for each of several mean squares of the seeds."""

    squares: MeanSquares
    mss: Floats
    over: Over = "questions and seeds"

    @property
    def errors(self) -> Floats:
        """(mean squares, nodes): standard error if chi square is at the node."""
        inverse, _ = _over_chi_square(self.squares.seeds - 1)
        of_questions = max(self.squares.msq - self.squares.mse, 0.0)
        return np.asarray(
            np.sqrt((of_questions + self.mss[:, None] * inverse) / (self.squares.questions * self.squares.seeds))
        )

    @property
    def spread(self) -> bool:
        return bool((self.errors > 0).any())

    def p(self, distance: float | Floats) -> Floats:
        _, weights = _over_chi_square(self.squares.seeds - 1)
        errors = self.errors
        z = np.divide(np.reshape(distance, (-1, 1)), errors, out=np.full_like(errors, np.inf), where=errors > 0)
        return np.asarray(2 * stdtr(self.squares.questions - 1, -z) @ weights)

    def half_width(self, alpha: float) -> Floats:
        squares = self.squares
        widest = np.sqrt((max(squares.msq - squares.mse, 0.0) + self.mss) / (squares.questions * squares.seeds))
        low, high = (
            np.zeros_like(self.mss),
            2 * widest * stdtrit(min(squares.seeds, squares.questions) - 1, 1 - alpha / 4),
        )
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            outside = self.p(middle) < alpha
            low, high = np.where(outside, low, middle), np.where(outside, middle, high)
        return np.asarray(high)


@cache
def _over_chi_square(freedom: int) -> tuple[Floats, Floats]:
    """Nodes (freedom / X, for X a chi square) and weights of a mean over X.

    By Gauss and Legendre over w, with P(X < x) = w^4, so that the small X, which decide small p-values, are resolved.
    """
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    w = (nodes + 1) / 2
    return freedom / (2 * gammaincinv(freedom / 2, w**4)), weights / 2 * 4 * w**3


def _tests(squares: MeanSquares, mss: Floats) -> list[_T | _Generalized]:
    """First the test whose interval is offered; a claim must pass all of them.

    `mss` are mean squares of the seeds, in the place of that in `squares`.
    """
    questions, seeds, cells = squares.questions, squares.seeds, squares.questions * squares.seeds
    over_questions = _T(
        over="questions", error=np.full_like(mss, math.sqrt(squares.msq / cells)), freedom=questions - 1
    )
    if seeds == 1:
        return [over_questions]
    if seeds < CROSSED_SEEDS:
        return [_T(over="seeds", error=np.sqrt(mss / cells), freedom=seeds - 1), over_questions]
    return [_Generalized(squares=squares, mss=mss)]
