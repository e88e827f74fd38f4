"""The model over questions and seeds: against scipy, statsmodels and simulation."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas
import pytest
from scipy import stats
from statsmodels.formula.api import mixedlm, ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.power import TTestPower

from analysis.crossed import POWER, Components, MeanSquares, estimate, needed, power
from benchmarks.coverage import SPREADS, World, rates


def made(questions: int, seeds: int, *, seed_spread: float = 0.5, draw: int = 0) -> npt.NDArray[np.float64]:
    """A table with effects of question, seed and rest."""
    generator = np.random.default_rng(draw)
    table = 0.3 + generator.normal(0, 1, (questions, 1)) + generator.normal(0, seed_spread, (1, seeds))
    return table + generator.normal(0, 0.7, (questions, seeds))


def long(table: npt.NDArray[np.float64]) -> pandas.DataFrame:
    questions, seeds = table.shape
    grid = pandas.MultiIndex.from_product([range(questions), range(seeds)], names=["question", "seed"])
    return pandas.DataFrame({"d": table.ravel()}, index=grid).reset_index()


def test_mean_squares_are_those_of_the_analysis_of_variance() -> None:
    table = made(12, 5)
    expected = anova_lm(ols("d ~ C(question) + C(seed)", long(table)).fit())["mean_sq"]
    found = MeanSquares.of(table)
    assert found.msq == pytest.approx(expected["C(question)"])
    assert found.mss == pytest.approx(expected["C(seed)"])
    assert found.mse == pytest.approx(expected["Residual"])


def test_mean_squares_of_a_table_that_fits_on_a_hand() -> None:
    # means of questions 1, 0; of seeds 1/2, 1/2: rest of each cell is +-1/2
    found = MeanSquares.of([[1, 1], [1, -1], [-1, 1]])
    assert (found.msq, found.mss, found.mse) == pytest.approx((2 * (4 / 9 + 2 * 1 / 9) / 2, 0, 2))


def test_components_and_error_are_those_of_a_mixed_model_fitted_by_reml() -> None:
    table = made(25, 6, draw=3)
    found = MeanSquares.of(table)
    assert found.components.seed > 0 and found.components.question > 0
    fitted = mixedlm(
        "d ~ 1",
        long(table).assign(all=1),
        groups="all",
        re_formula="0",
        vc_formula={"question": "0 + C(question)", "seed": "0 + C(seed)"},
    ).fit(reml=True)
    components = dict(zip(fitted.model.exog_vc.names, fitted.vcomp, strict=True))
    assert found.components.question == pytest.approx(components["question"], rel=1e-3)
    assert found.components.seed == pytest.approx(components["seed"], rel=1e-3)
    assert found.components.rest == pytest.approx(fitted.scale, rel=1e-3)
    variance = (found.msq + found.mss - found.mse) / table.size
    assert math.sqrt(variance) == pytest.approx(fitted.bse["Intercept"], rel=1e-3)


@pytest.mark.parametrize(("seeds", "spread"), [(5, 0.0), (5, 0.3), (8, 1.0), (20, 0.1)])
def test_the_generalized_test_is_what_drawing_chi_squares_gives(seeds: int, spread: float) -> None:
    table = made(80, seeds, seed_spread=spread, draw=seeds) - 0.1
    found, estimated = MeanSquares.of(table), estimate(table)
    assert estimated is not None and estimated.over == "questions and seeds"
    generator = np.random.default_rng(1)
    expected_mss = found.mss * (seeds - 1) / generator.chisquare(seeds - 1, 1_000_000)
    errors = np.sqrt((found.msq - found.mse + expected_mss) / table.size)
    distances = np.abs(errors * generator.standard_t(79, 1_000_000))
    assert estimated.high - estimated.mean == pytest.approx(np.quantile(distances, 0.95), rel=0.01)
    assert estimated.mean - estimated.low == pytest.approx(estimated.high - estimated.mean)
    assert estimated.p == pytest.approx((distances > abs(estimated.mean)).mean(), abs=0.002)


@pytest.mark.parametrize("seeds", [5, 9])
def test_where_seeds_alone_differ_it_is_the_t_test_over_seeds(seeds: int) -> None:
    table = np.random.default_rng(seeds).normal(0.5, 1, (1, seeds)).repeat(4000, axis=0)
    expected = stats.ttest_1samp(table[0], 0)
    estimated = estimate(table)
    assert estimated is not None
    assert estimated.p == pytest.approx(expected.pvalue, rel=2e-3)
    assert (estimated.low, estimated.high) == pytest.approx(tuple(expected.confidence_interval()), rel=2e-3)


def test_where_seeds_do_not_matter_it_is_the_t_test_over_questions() -> None:
    table = np.random.default_rng(2).normal(0.1, 1, (4000, 1)).repeat(10, axis=1)
    expected = stats.ttest_1samp(table[:, 0], 0)
    estimated = estimate(table)
    assert estimated is not None
    assert estimated.p == pytest.approx(expected.pvalue)
    assert (estimated.low, estimated.high) == pytest.approx(tuple(expected.confidence_interval()))


@pytest.mark.parametrize("seeds", [2, 3, 4])
@pytest.mark.parametrize("spread", [0.0, 2.0])
def test_few_seeds_have_an_interval_over_seeds_and_a_claim_must_pass_both_tests(seeds: int, spread: float) -> None:
    table = made(60, seeds, seed_spread=spread, draw=7)
    over_seeds = stats.ttest_1samp(table.mean(axis=0), 0)
    over_questions = stats.ttest_1samp(table.mean(axis=1), 0)
    estimated = estimate(table)
    assert estimated is not None and estimated.over == "seeds"
    assert (estimated.low, estimated.high) == pytest.approx(tuple(over_seeds.confidence_interval()))
    assert estimated.p == pytest.approx(max(over_seeds.pvalue, over_questions.pvalue))


def test_one_seed_has_an_interval_over_questions() -> None:
    table = made(60, 1)
    expected = stats.ttest_1samp(table[:, 0], 0)
    estimated = estimate(table)
    assert estimated is not None and estimated.over == "questions"
    assert (estimated.low, estimated.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert estimated.p == pytest.approx(expected.pvalue)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.03])
@pytest.mark.parametrize("seeds", [1, 3, 6])
def test_without_any_spread_no_interval_is_invented(value: float, seeds: int) -> None:
    assert estimate(np.full((50, seeds), value)) is None


def test_few_questions_widen_the_interval_to_what_its_test_does_not_refuse() -> None:
    table = np.random.default_rng(0).normal(0, 1, (2, 8))
    estimated = estimate(table)
    assert estimated is not None
    moved = estimate(table - estimated.high)
    assert moved is not None and moved.p == pytest.approx(0.05, abs=1e-4)


def test_without_spread_nothing_is_found() -> None:
    assert power(0.03, Components(question=0.0, seed=0.0, rest=0.0), 100, 5) == 0


def test_seeds_that_come_to_the_same_mean_tell_no_spread() -> None:
    table = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]])
    estimated = estimate(table)
    assert estimated is not None and estimated.over == "questions"


def test_turning_the_sides_turns_the_interval() -> None:
    table = made(30, 6)
    one, other = estimate(table), estimate(-table)
    assert one is not None and other is not None
    assert (other.mean, other.low, other.high, other.p) == pytest.approx((-one.mean, -one.high, -one.low, one.p))


@pytest.mark.parametrize("difference", [0.0, 0.02, 0.05])
def test_power_over_questions_is_that_of_a_t_test(difference: float) -> None:
    components = Components(question=0.2, seed=0.0, rest=0.0)
    expected = TTestPower().power(difference / math.sqrt(0.2), nobs=900, alpha=0.05)
    assert power(difference, components, 900, 1) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("seeds", [2, 3, 4])
def test_power_over_seeds_is_that_of_a_t_test(seeds: int) -> None:
    components = Components(question=0.0, seed=1.0, rest=0.0)
    expected = TTestPower().power(2.0, nobs=seeds, alpha=0.05)
    assert power(2.0, components, 500, seeds) == pytest.approx(expected, abs=5e-3)


def test_what_is_needed_is_enough_and_no_more_than_enough() -> None:
    components = Components(question=0.05, seed=0.0001, rest=0.1)
    found = needed(0.03, components, 800, 5, alpha=0.01)
    assert found.seeds is not None and found.questions is not None
    assert (
        power(0.03, components, 800, found.seeds, 0.01) >= POWER > power(0.03, components, 800, found.seeds - 1, 0.01)
    )
    assert power(0.03, components, found.questions, 5, 0.01) >= POWER
    assert power(0.03, components, found.questions - 1, 5, 0.01) < POWER


def test_what_no_number_can_do_is_not_promised() -> None:
    differ_by_question = Components(question=0.5, seed=0.0, rest=0.0)
    assert needed(0.01, differ_by_question, 100, 5).seeds is None
    differ_by_seed = Components(question=0.0, seed=0.01, rest=0.1)
    assert needed(0.01, differ_by_seed, 100, 5).questions is None


def check(seeds: int, questions: int, spread: float, sweeps: int = 2000) -> None:
    """What docs/statistics.md says of simulated sweeps, but for the noise of the simulation."""
    found = rates(World(spread=spread), np.random.default_rng(seeds), sweeps=sweeps, questions=questions, seeds=seeds)
    noise = math.sqrt(0.05 * 0.95 / sweeps)
    assert 0.93 - noise <= found.coverage <= 0.97 + noise
    assert 0.93 - noise <= found.accuracy_coverage <= 0.97 + noise
    assert found.claimed <= 0.05 + 2 * noise
    assert abs(found.found - found.predicted) <= 0.05


def test_intervals_cover_claims_are_seldom_false_and_power_is_as_predicted() -> None:
    check(3, 200, 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("questions", [200, 480, 1221])
@pytest.mark.parametrize("seeds", [3, 5, 10, 20])
def test_the_same_for_more_questions_and_other_spreads(seeds: int, questions: int, spread: float) -> None:
    check(seeds, questions, spread)
