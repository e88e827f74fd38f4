"""One threshold for all groups: by hand, against the slow way, and what must hold of any scores."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from units import Made, scored

from regraft.config.ranges import ConfigError
from regraft.interfaces import Allocation, LanguageModel
from regraft.pruning.allocation.global_threshold import GlobalThreshold
from regraft.pruning.allocation.layerwise import removed
from regraft.pruning.allocation.standardised import Standardised, standardised

GONE = float("-inf")
BOTH = [GlobalThreshold, Standardised]
groups = st.lists(st.lists(st.integers(-8, 8).map(float), min_size=2, max_size=12), min_size=1, max_size=5)


class Masked(Made):
    """Units whose score is minus infinity are gone."""

    def __init__(self, scores: list[torch.Tensor]) -> None:
        super().__init__(*({"up": torch.zeros(len(score), 1)} for score in scores))
        self.there_are = [int(score.isfinite().sum()) for score in scores]

    def left(self, model: LanguageModel) -> list[int]:
        return self.there_are


def losses(
    allocation: Allocation, scores: list[list[float]], sparsity: float, dense: list[int] | None = None
) -> list[int]:
    given = [torch.tensor(score, dtype=torch.float64) for score in scores]
    made = scored(given, dense or [len(score) for score in scores])
    return allocation.losses(replace(made, structure=Masked(given)), sparsity)


def one_by_one(scores: list[list[float]], total: int, floor: float) -> list[int]:
    """Take the lowest unit that may go, then the next: of equal ones the first group's, then the lower number."""
    lost = [0] * len(scores)
    for _, group, _ in sorted((s, group, unit) for group, each in enumerate(scores) for unit, s in enumerate(each)):
        units = len(scores[group])
        if sum(lost) < total and lost[group] < units - max(1, math.ceil(floor * units)):
            lost[group] += 1
    return lost


@pytest.mark.parametrize(
    ("scores", "sparsity", "floor", "expected"),
    [
        ([[1, 2, 3, 4], [5, 6, 7, 8]], 0.25, 0.0, [2, 0]),
        ([[1, 2, 3, 4], [5, 6, 7, 8]], 0.5, 0.0, [3, 1]),  # one unit stays
        ([[1, 2, 3, 4], [5, 6, 7, 8]], 0.5, 0.5, [2, 2]),
        ([[1, 6, 3, 8], [5, 2, 7, 4]], 0.5, 0.0, [2, 2]),
        ([[1, 1, 1, 1], [1, 1, 1, 1]], 0.25, 0.0, [2, 0]),  # a tie: the first group first
        ([[1, 2], [1, 2, 1, 1, 2, 1]], 0.5, 0.0, [1, 3]),
        ([[-5, 9, 9, 9], [0, 1, 2, 3]], 0.375, 0.0, [1, 2]),
        ([[1, 2, 3, 4]], 0.0, 0.0, [0]),
    ],
)
def test_global_by_hand(scores: list[list[float]], sparsity: float, floor: float, expected: list[int]) -> None:
    assert losses(GlobalThreshold(floor=floor), scores, sparsity) == expected


@given(scores=groups, sparsity=st.floats(0, 0.95), floor=st.sampled_from([0.0, 0.05, 0.3]))
def test_global_is_what_one_by_one_takes(scores: list[list[float]], sparsity: float, floor: float) -> None:
    total = removed(sum(map(len, scores)), sparsity)
    expected = one_by_one(scores, total, floor)
    if sum(expected) == total:
        assert losses(GlobalThreshold(floor=floor), scores, sparsity) == expected
    else:
        with pytest.raises(ConfigError, match=rf"pruner.allocation.floor={floor}, .* at most 0\.\d+\. Lower"):
            losses(GlobalThreshold(floor=floor), scores, sparsity)


def test_standardised_scores_by_hand() -> None:
    assert standardised(torch.tensor([1.0, 2.0, 3.0])).tolist() == [-1, 0, 1]  # the sample's deviation is 1
    assert standardised(torch.tensor([10.0, GONE, 30.0])).tolist() == pytest.approx([-(2**-0.5), GONE, 2**-0.5])
    assert standardised(torch.tensor([0.1, 0.1, 0.1])).tolist() == [0, 0, 0]
    assert standardised(torch.tensor([5.0])).tolist() == [0]
    assert standardised(torch.tensor([GONE, 5.0])).tolist() == [GONE, 0]


def test_standardised_looks_at_the_place_among_its_own() -> None:
    # group 1 is a hundred times as large: a global threshold takes group 0 only
    scores = [[1.0, 2.0, 3.0, 4.0], [100.0, 200.0, 300.0, 400.0]]
    assert losses(Standardised(), scores, 0.5) == [2, 2]
    assert losses(GlobalThreshold(), scores, 0.5) == [3, 1]
    # z of the lows: (1 - 3.5) / 1.290994 .. and far below: -1.5 (of 0), 0.5, 0.5, 0.5
    scores = [[0.0, 4.0, 4.0, 4.0], [2.0, 3.0, 4.0, 5.0]]
    assert losses(Standardised(), scores, 0.125) == [1, 0]
    assert losses(Standardised(), scores, 0.375) == [1, 2]


@given(scores=groups, sparsity=st.floats(0, 0.9))
def test_standardised_is_global_on_the_formula(scores: list[list[float]], sparsity: float) -> None:
    def formula(score: list[float]) -> list[float]:
        # integers: their mean and deviation are exact enough that ties stay ties
        if len(set(score)) == 1:
            return [0.0] * len(score)
        mean, deviation = statistics.fmean(score), statistics.stdev(score)
        return [round((each - mean) / deviation, 9) for each in score]

    floor = 0.05
    total = removed(sum(map(len, scores)), sparsity)
    expected = one_by_one([formula(score) for score in scores], total, floor)
    if sum(expected) == total:
        found = losses(Standardised(floor=floor), scores, sparsity)
        taken = sorted(sorted(formula(score))[:lost] for score, lost in zip(scores, found, strict=True))
        wanted = sorted(sorted(formula(score))[:lost] for score, lost in zip(scores, expected, strict=True))
        # rounding may settle a tie between groups otherwise, never take a unit that scores higher
        assert sorted(sum(taken, [])) == sorted(sum(wanted, []))


@settings(max_examples=60)
@given(scores=groups, floor=st.sampled_from([0.0, 0.05, 0.3]), allocation=st.sampled_from(BOTH))
def test_the_total_is_exact_the_floor_holds_and_more_sparsity_takes_more(
    scores: list[list[float]], floor: float, allocation: type[GlobalThreshold | Standardised]
) -> None:
    before = [0] * len(scores)
    units = [len(score) for score in scores]
    for percent in range(0, 100, 7):
        try:
            now = losses(allocation(floor=floor), scores, percent / 100)
        except ConfigError:
            break
        assert sum(now) == removed(sum(units), percent / 100)
        assert all(
            left >= max(1, floor * number) for left, number in zip(map(int.__sub__, units, now), units, strict=True)
        )
        assert all(map(int.__ge__, now, before))
        before = now


@pytest.mark.parametrize("allocation", BOTH)
def test_units_that_are_gone_count_and_stay_gone(allocation: type[GlobalThreshold | Standardised]) -> None:
    # group 0 has lost 3 of 6: cut out of the model, or masked
    for first in ([1.0, 2.0, 3.0], [GONE, 1.0, GONE, 2.0, 3.0, GONE]):
        scores = [first, [1.5, 2.5, 3.5, 4.5, 5.5, 6.5]]
        assert losses(allocation(), scores, 0.25, dense=[6, 6]) == [3, 0]
        assert losses(allocation(), scores, 0.1, dense=[6, 6]) == [3, 0]  # more is gone than asked for
        assert sum(losses(allocation(), scores, 0.5, dense=[6, 6])) == 6


@pytest.mark.parametrize("allocation", BOTH)
@pytest.mark.parametrize("floor", [-0.1, 1.0, float("nan")])
def test_the_floor_is_a_share(allocation: type[GlobalThreshold | Standardised], floor: float) -> None:
    with pytest.raises(ConfigError, match="floor="):
        allocation(floor=floor)
