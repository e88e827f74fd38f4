"""Metrics against independent references and cases worked by hand."""

import math

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, rel_entr, softmax
from scipy.stats import entropy
from statsmodels.stats.proportion import proportion_confint

from regraft.evaluation import metrics


def random_scores(n=200, choices=5, seed=0):
    generator = numpy.random.default_rng(seed)
    return generator.normal(scale=3, size=(n, choices)), generator.integers(choices, size=n)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_that_of_statsmodels(case):
    right, n = case
    assert metrics.wilson(right, n) == pytest.approx(proportion_confint(right, n, method="wilson"), abs=1e-12)


def test_accuracy_counts_highest_scores():
    scores = numpy.log([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7], [0.3, 0.4, 0.3], [0.5, 0.4, 0.1]])
    found = metrics.accuracy(scores, numpy.array([0, 2, 0, 1]))
    assert (found.value, found.n) == (0.5, 4)
    assert (found.ci_low, found.ci_high) == pytest.approx(proportion_confint(2, 4, method="wilson"))


def test_likelihoods_by_hand():
    scores = numpy.log([[0.8, 0.2], [0.4, 0.6]]) + numpy.array([[-3.0], [5.0]])  # a constant a question has no effect
    found = metrics.likelihoods(scores, numpy.array([0, 0]))
    assert found["nll"].value == pytest.approx(-(math.log(0.8) + math.log(0.4)) / 2)
    assert found["brier"].value == pytest.approx((2 * 0.2**2 + 2 * 0.6**2) / 2)
    uncertain = [-p * math.log(p) - (1 - p) * math.log(1 - p) for p in (0.8, 0.6)]
    assert found["entropy"].value == pytest.approx(sum(uncertain) / 2)
    assert found["ece"].value == pytest.approx(((1 - 0.8) + 0.6) / 2)


def test_likelihoods_are_those_of_scipy():
    scores, gold = random_scores()
    found = metrics.likelihoods(scores, gold)
    p = softmax(scores, axis=1)
    assert found["nll"].value == pytest.approx(-log_softmax(scores, axis=1)[numpy.arange(len(gold)), gold].mean())
    assert found["brier"].value == pytest.approx(((p - numpy.eye(5)[gold]) ** 2).sum(axis=1).mean())
    assert found["entropy"].value == pytest.approx(entropy(p, axis=1).mean())


def test_calibration_error_by_hand():
    confidence = numpy.array([0.25, 0.30, 0.95, 0.91, 1.0])  # bins (0.2, 0.3] and (0.9, 1.0]
    right = numpy.array([True, False, True, True, False])
    expected = 2 / 5 * abs(0.5 - 0.275) + 3 / 5 * abs(2 / 3 - (0.95 + 0.91 + 1.0) / 3)
    assert metrics.expected_calibration_error(confidence, right) == pytest.approx(expected)


def test_a_calibrated_model_has_little_calibration_error_and_an_overconfident_one_more():
    generator = numpy.random.default_rng(0)
    scores = generator.normal(size=(20_000, 5))
    p = softmax(scores, axis=1)
    gold = (p.cumsum(axis=1) < generator.random((len(p), 1))).sum(axis=1).clip(max=4)
    assert metrics.likelihoods(scores, gold)["ece"].value < 0.015
    assert metrics.likelihoods(4 * scores, gold)["ece"].value > 0.2


def test_a_missing_choice_changes_nothing():
    scores, gold = random_scores(choices=3)
    dense, _ = random_scores(choices=3, seed=1)
    absent = numpy.full((len(gold), 1), -numpy.inf)
    padded, padded_dense = numpy.hstack([scores, absent]), numpy.hstack([dense, absent])
    with numpy.errstate(all="raise"):
        for one, other in (
            (metrics.likelihoods(scores, gold), metrics.likelihoods(padded, gold)),
            (metrics.against_dense(scores, dense), metrics.against_dense(padded, padded_dense)),
        ):
            for name, found in one.items():
                assert other[name].value == pytest.approx(found.value, abs=1e-12), name


def test_against_dense_is_that_of_scipy():
    (scores, _), (dense, _) = random_scores(), random_scores(seed=1)
    found = metrics.against_dense(scores, dense)
    kl = rel_entr(softmax(dense, axis=1), softmax(scores, axis=1)).sum(axis=1).mean()
    assert found["dense_kl"].value == pytest.approx(kl)
    reverse = metrics.against_dense(dense, scores)["dense_kl"].value
    assert abs(reverse - kl) > 1e-3  # the direction matters
    same = int((scores.argmax(axis=1) == dense.argmax(axis=1)).sum())
    assert found["dense_agreement"].value == same / 200
    interval = (found["dense_agreement"].ci_low, found["dense_agreement"].ci_high)
    assert interval == pytest.approx(proportion_confint(same, 200, method="wilson"))


def test_a_model_agrees_with_itself():
    scores, _ = random_scores()
    found = metrics.against_dense(scores, scores)
    assert found["dense_agreement"].value == 1
    assert found["dense_kl"].value == 0
