"""Which units go, and how many: worked out by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from units import kept, scored

from regraft.config.ranges import ConfigError
from regraft.pruning.allocation.layerwise import Layerwise


def keep(scores: list[list[float]], dense: list[int], sparsity: float) -> list[list[int]]:
    return kept(Layerwise(), scores, dense, sparsity)


def test_each_layer_keeps_its_highest_in_order() -> None:
    scores = [[0.3, 0.9, 0.1, 0.5], [10.0, 40.0, 30.0, 20.0]]
    assert keep(scores, [4, 4], 0.5) == [[1, 3], [1, 2]]
    assert keep(scores, [4, 4], 0.25) == [[0, 1, 3], [1, 2, 3]]


@pytest.mark.parametrize(
    ("units", "sparsity", "removed"),
    [
        (4, 0.0, 0),
        (4, 0.124, 0),
        (4, 0.125, 1),  # a half goes up
        (4, 0.374, 1),
        (4, 0.375, 2),
        (10, 0.25, 3),
        (10, 0.35, 4),
        (10, 0.3, 3),
        (10, 0.1 + 0.2, 3),
        (100, 0.145, 15),  # 14.499999999999998 in floating point
        (11008, 0.3, 3302),
        (3, 0.5, 2),
    ],
)
def test_the_number_is_rounded_halves_up(units: int, sparsity: float, removed: int) -> None:
    (left,) = keep([[float(unit) for unit in range(units)]], [units], sparsity)
    assert left == list(range(removed, units))


def test_of_equal_scores_the_lower_number_goes_first() -> None:
    assert keep([[1.0] * 64], [64], 0.25) == [list(range(16, 64))]
    assert keep([[2.0, 1.0, 1.0, 1.0, 2.0]], [5], 0.4) == [[0, 3, 4]]


def test_the_share_is_that_of_the_dense_units() -> None:
    assert keep([[5.0, 1.0, 2.0, 3.0]], [8], 0.75) == [[0, 3]]
    assert keep([[5.0, 1.0, 2.0, 3.0]], [8], 0.5) == [[0, 1, 2, 3]]
    assert keep([[5.0, 1.0, 2.0, 3.0]], [8], 0.25) == [[0, 1, 2, 3]]  # more is gone than asked for: nothing comes back


def test_layers_of_unlike_width_lose_the_same_share() -> None:
    assert keep([[1.0, 2.0], [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]], [2, 6], 0.5) == [[1], [0, 1, 2]]


@pytest.mark.parametrize(("units", "sparsity"), [(4, 0.875), (4, 0.9), (2, 0.75), (1, 0.5)])
def test_a_layer_is_never_emptied(units: int, sparsity: float) -> None:
    with pytest.raises(ConfigError, match=f"sparsity={sparsity}: .*layer 1"):
        keep([[1.0] * 64, [1.0] * units], [64, units], sparsity)


@given(units=st.integers(2, 20_000))
def test_the_sparsity_that_the_message_offers_works(units: int) -> None:
    scores = torch.zeros(units)
    with pytest.raises(ConfigError) as refused:
        Layerwise().losses(scored([scores], [units]), 1 - 0.1 / units)
    offered = float(str(refused.value).split("Choose at most ")[1].rstrip("."))
    assert Layerwise().losses(scored([scores], [units]), offered)[0] < units


@given(
    scores=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40),
    sparsity=st.floats(0, 0.95),
)
def test_nothing_that_goes_scores_above_what_stays(scores: list[float], sparsity: float) -> None:
    try:
        (left,) = keep([scores], [len(scores)], sparsity)
    except ConfigError:
        return
    gone = set(range(len(scores))) - set(left)
    assert left == sorted(set(left))
    assert abs(len(gone) - sparsity * len(scores)) <= 0.5 + 1e-6
    assert all((scores[unit], unit) < (scores[other], other) for unit in gone for other in left)
