from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats import contingency_tables, multitest
from statsmodels.stats.proportion import proportion_confint

from analysis.statistics import (
    holm,
    mcnemar,
    odds_ratio,
    paired_bootstrap,
    stratified_t_interval,
    t_interval,
    wilson,
)


@given(n=st.integers(1, 5000), share=st.floats(0, 1), level=st.sampled_from([0.9, 0.95, 0.99]))
def test_wilson_equals_statsmodels(n: int, share: float, level: float) -> None:
    successes = round(share * n)
    expected = proportion_confint(successes, n, alpha=1 - level, method="wilson")
    assert wilson(successes, n, level) == pytest.approx(expected, abs=1e-9)


def test_wilson_by_hand() -> None:
    # 1 of 2 at z = 1.959964: centre 0.5, half z sqrt(1/8 + z^2/16) / (1 + z^2/2)
    assert wilson(1, 2) == pytest.approx((0.0945312, 0.9054688), abs=1e-6)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20).filter(lambda values: np.std(values) > 1e-6))
def test_t_interval_equals_scipy(values: list[float]) -> None:
    expected = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert t_interval(values) == pytest.approx(expected, abs=1e-9)


def test_paired_bootstrap_equals_scipy() -> None:
    rng = np.random.default_rng(3)
    differences = rng.choice([-1.0, 0.0, 1.0], p=[0.1, 0.7, 0.2], size=(300, 3))
    result = stats.bootstrap(
        (differences.mean(axis=1),), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    )
    assert paired_bootstrap(differences) == pytest.approx(tuple(result.confidence_interval), abs=2e-3)


def test_paired_bootstrap_is_the_same_each_time() -> None:
    differences = np.random.default_rng(0).choice([-1, 0, 1], size=(50, 2))
    assert paired_bootstrap(differences) == paired_bootstrap(differences)


def test_paired_bootstrap_covers_the_mean_over_questions_that_the_seeds_share() -> None:
    """Questions favour one side under every seed; an interval that drew them anew for each seed would cover 78 %."""
    rng = np.random.default_rng(5)
    truth, covered, sweeps = 0.1, 0, 400
    for _ in range(sweeps):
        favour = rng.choice([-1, 0, 1], p=[0.15, 0.6, 0.25], size=200)
        differences = np.repeat(favour[:, None], 3, axis=1)
        low, high = paired_bootstrap(differences, resamples=1000)
        covered += low <= truth <= high
    assert 0.92 <= covered / sweeps <= 0.98


def test_a_stratified_interval_is_welch_s_for_two_strata_and_t_s_for_one() -> None:
    a, b = [0.5, 0.55, 0.61, 0.48], [0.7, 0.72, 0.66]
    assert stratified_t_interval([a]) == pytest.approx(t_interval(a))
    # the mean of two means is half the difference of a and -b
    found = stats.ttest_ind(a, [-value for value in b], equal_var=False).confidence_interval()
    assert stratified_t_interval([a, b]) == pytest.approx((found.low / 2, found.high / 2))


def test_strata_weigh_the_same_however_many_seeds_they_have() -> None:
    low, high = stratified_t_interval([[0.0, 0.2] * 10, [0.9, 1.1]])
    assert (low + high) / 2 == pytest.approx(0.55)


@given(st.lists(st.integers(-1, 1), min_size=1, max_size=60))
def test_mcnemar_is_that_of_statsmodels(differences: list[int]) -> None:
    table = [[5, differences.count(1)], [differences.count(-1), 7]]
    assert mcnemar(differences) == pytest.approx(contingency_tables.mcnemar(table, exact=True).pvalue)


def test_mcnemar_by_hand() -> None:
    # five questions for one side and one for the other: 2 (1 + 6) / 2**6
    assert mcnemar([1, 1, 1, 1, 1, -1, 0, 0]) == pytest.approx(14 / 64)
    assert mcnemar([0, 0]) == 1


@pytest.mark.parametrize("number", [1, 2, 7, 20])
def test_holm_is_that_of_statsmodels(number: int) -> None:
    p_values = list(np.random.default_rng(number).random(number) ** 3)
    p_values[-1] = p_values[0]
    assert holm(p_values) == pytest.approx(list(multitest.multipletests(p_values, method="holm")[1]))


def test_the_odds_ratio_counts_what_one_side_alone_answers() -> None:
    assert odds_ratio([1, 1, 1, -1, 0, 0]) == pytest.approx(3.5 / 1.5)
    assert odds_ratio([0, 0]) == 1
