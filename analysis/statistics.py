"""Intervals. Each says what it is over: questions, or seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit

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
