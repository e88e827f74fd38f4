"""Intervals and tests. Each says what it is over: questions, or seeds. `crossed` holds the one over both."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, ndtri, stdtrit

LEVEL = 0.95


def wilson(successes: float, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Score interval of a share, over questions (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    Args:
        successes: Questions answered rightly.
        n: Questions asked, at least 1.
        level: Coverage.
    """
    assert n >= 1 and 0 <= successes <= n
    z = float(ndtri((1 + level) / 2))
    share = successes / n
    centre = share + z**2 / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    scale = 1 + z**2 / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def t_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """Interval of the mean over seeds: mean +- t_{k-1} s / sqrt(k) (Student 1908), for k >= 2 seeds."""
    assert len(values) >= 2
    array = np.asarray(values, dtype=float)
    quantile = float(stdtrit(len(array) - 1, (1 + level) / 2))
    half = quantile * float(array.std(ddof=1)) / math.sqrt(len(array))
    mean = float(array.mean())
    return mean - half, mean + half


def stratified_t_interval(strata: Sequence[Sequence[float]], level: float = LEVEL) -> tuple[float, float]:
    """Interval of the mean of the strata's means, over the seeds within each stratum, all strata weighing the same.

    Seeds of different strata are different trainings, so the variances of their means add; degrees of freedom by
    Welch (1947, doi:10.1093/biomet/34.1-2.28). One stratum gives `t_interval`.

    Args:
        strata: The values of at least 2 seeds for each stratum (such as a task); not all of them constant.
        level: Coverage.
    """
    arrays = [np.asarray(values, dtype=float) for values in strata]
    assert arrays and min(map(len, arrays)) >= 2
    variances = np.array([array.var(ddof=1) / len(array) for array in arrays])
    freedom = np.array([len(array) - 1 for array in arrays])
    assert variances.sum() > 0
    quantile = float(stdtrit(variances.sum() ** 2 / (variances**2 / freedom).sum(), (1 + level) / 2))
    half = quantile * math.sqrt(variances.sum()) / len(arrays)
    mean = float(np.mean([array.mean() for array in arrays]))
    return mean - half, mean + half


def mcnemar(differences: npt.ArrayLike) -> float:
    """Exact two-sided p-value of one pair of models (McNemar 1947, doi:10.1007/BF02295996).

    Where the two do equally well, each question that only one of them answers rightly favours either side with
    probability 1/2.

    Args:
        differences: (questions,) right under the first minus right under the second: -1, 0 or 1.
    """
    array = np.asarray(differences)
    first, second = int((array == 1).sum()), int((array == -1).sum())
    return min(1.0, 2 * float(bdtr(min(first, second), first + second, 0.5))) if first + second else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for the number of tests in the family (Holm 1979, www.jstor.org/stable/4615733).

    To claim all with an adjusted p below 0.05 is wrong about one or more of them in at most 5 % of families.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = highest
    return adjusted


def odds_ratio(differences: npt.ArrayLike) -> float:
    """Questions that only the first answers rightly, against those that only the second does; 1/2 is added to both.

    The effect size that belongs to McNemar's test; the addition (Haldane 1956) keeps it finite.
    """
    array = np.asarray(differences)
    return float(((array == 1).sum() + 0.5) / ((array == -1).sum() + 0.5))


def paired_bootstrap(
    differences: npt.ArrayLike, level: float = LEVEL, resamples: int = 20_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of a mean paired difference, over questions, with the seeds as they are.

    A question is drawn together with its differences under every seed: the seeds answer the same questions, so a
    question that favours one side does so under all of them, and drawing it anew for each seed would make the
    interval too narrow. A resample depends only on how often each value of the per-question mean is drawn, so it is
    one draw from a multinomial distribution.

    Args:
        differences: (questions, seeds); right under the first condition minus right under the second.
        level: Coverage.
        resamples: Number of resamples.
        seed: Of the random numbers; fixed, so that the same records give the same interval.
    """
    array = np.asarray(differences, dtype=float)
    assert array.ndim == 2 and array.size
    values, counts = np.unique(array.mean(axis=1).round(12), return_counts=True)
    questions = len(array)
    drawn = np.random.default_rng(seed).multinomial(questions, counts / questions, size=resamples)
    means = drawn @ values / questions
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
