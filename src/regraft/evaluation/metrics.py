"""Metrics of multiple-choice predictions, from the score of each choice."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy

Z_95 = 1.959963984540054
"""The normal quantile of a two-sided 95 % interval."""
BINS = 10
"""Equal-width bins of confidence in the expected calibration error."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over questions, with a 95 % interval where there is one."""

    value: float
    n: int
    ci_low: float | None = None
    ci_high: float | None = None


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson 1927)."""
    share = successes / n
    centre = share + Z_95**2 / (2 * n)
    half = Z_95 * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2))
    scale = 1 + Z_95**2 / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def log_probabilities(scores: numpy.ndarray) -> numpy.ndarray:
    """(n, choices) log-likelihoods -> log-probabilities of the choices; a choice that is not there has score -inf."""
    import numpy

    shifted = scores - scores.max(axis=1, keepdims=True)
    return shifted - numpy.log(numpy.exp(shifted).sum(axis=1, keepdims=True))


def accuracy(scores: numpy.ndarray, gold: numpy.ndarray) -> Estimate:
    """Share of questions whose right choice has the highest score (the first among equals), with Wilson interval."""
    right = int((scores.argmax(axis=1) == gold).sum())
    low, high = wilson(right, len(gold))
    return Estimate(value=right / len(gold), n=len(gold), ci_low=low, ci_high=high)


def likelihoods(scores: numpy.ndarray, gold: numpy.ndarray) -> dict[str, Estimate]:
    """How probable the right choice is held, and how well confidence fits.

    With p the softmax over the scores of the choices and y the right one:
    `nll` = mean -log p_y (nats); `brier` = mean sum_c (p_c - [c = y])^2, from 0 to 2; `entropy` = mean -sum p log p
    (nats); `ece` = sum over bins of |accuracy - mean confidence| weighted by the bin's share (Guo et al. 2017,
    arXiv 1706.04599).
    """
    import numpy

    log_p = log_probabilities(scores)
    p = numpy.exp(log_p)
    n = len(gold)
    right = numpy.zeros_like(p)
    right[numpy.arange(n), gold] = 1
    numbers = {
        "nll": -log_p[numpy.arange(n), gold].mean(),
        "brier": ((p - right) ** 2).sum(axis=1).mean(),
        "entropy": -numpy.where(p > 0, p * numpy.where(p > 0, log_p, 0), 0).sum(axis=1).mean(),
        "ece": expected_calibration_error(p.max(axis=1), scores.argmax(axis=1) == gold),
    }
    return {name: Estimate(value=float(value), n=n) for name, value in numbers.items()}


def expected_calibration_error(confidence: numpy.ndarray, right: numpy.ndarray) -> float:
    """Weighted mean distance between accuracy and confidence over bins (low, high]."""
    import numpy

    bins = numpy.clip(numpy.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    return float(
        sum(
            abs(right[bins == number].mean() - confidence[bins == number].mean()) * (bins == number).mean()
            for number in numpy.unique(bins)
        )
    )


def against_dense(scores: numpy.ndarray, dense: numpy.ndarray) -> dict[str, Estimate]:
    """How close the model is to the dense one on the same questions.

    `dense_agreement` = share of questions with the same prediction, with Wilson interval; `dense_kl` = mean over
    questions of KL(dense || model) between the distributions over the choices (nats).
    """
    import numpy

    n = len(scores)
    same = int((scores.argmax(axis=1) == dense.argmax(axis=1)).sum())
    low, high = wilson(same, n)
    log_p, log_q = log_probabilities(dense), log_probabilities(scores)
    p = numpy.exp(log_p)
    there = p > 0
    kl = numpy.where(there, p * (numpy.where(there, log_p, 0) - numpy.where(there, log_q, 0)), 0).sum(axis=1).mean()
    return {
        "dense_agreement": Estimate(value=same / n, n=n, ci_low=low, ci_high=high),
        "dense_kl": Estimate(value=max(float(kl), 0.0), n=n),
    }
