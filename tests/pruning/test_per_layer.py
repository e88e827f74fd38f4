"""How much each layer loses: worked out by hand, and what must hold of any weights."""

from __future__ import annotations

import heapq
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from units import kept, scored

from regraft.config.ranges import ConfigError
from regraft.pruning.allocation.layerwise import removed
from regraft.pruning.allocation.per_layer import PerLayer


def losses(weights: dict[int, float], units: list[int], sparsity: float) -> list[int]:
    return PerLayer(weights=weights).losses(scored([torch.zeros(layer) for layer in units], units), sparsity)


@pytest.mark.parametrize(
    ("weights", "units", "sparsity", "expected"),
    [
        ({}, [10, 10], 0.5, [5, 5]),
        ({}, [10, 30], 0.5, [5, 15]),  # the same share, not the same number
        ({}, [10, 10, 10], 0.5, [5, 5, 5]),
        ({}, [10, 10, 10, 10], 0.25, [3, 3, 2, 2]),  # ten in all, though 2.5 each would be rounded to twelve
        ({}, [10, 10], 0.0, [0, 0]),
        ({0: 0.0}, [10, 10], 0.25, [0, 5]),
        ({0: 2.0}, [10, 10], 0.3, [4, 2]),  # 2 : 1
        ({0: 0.5}, [10, 10], 0.3, [2, 4]),
        ({0: 0.4, 1: 0.8}, [10, 10], 0.3, [2, 4]),  # only proportions count
        ({0: 3.0}, [10, 10], 0.3, [5, 1]),  # 4.5 : 1.5, a tie: the lower layer first
        ({0: 100.0}, [10, 10], 0.6, [9, 3]),  # one unit stays, the other layer makes up for it
        ({0: 100.0, 1: 100.0}, [4, 4, 10], 0.5, [3, 3, 3]),
        ({2: 0.0}, [4, 4, 4], 0.5, [3, 3, 0]),  # just enough
        ({}, [2, 2], 0.5, [1, 1]),
        ({}, [100], 0.145, [15]),  # 14.499999999999998 in floating point
        ({}, [1, 9], 0.5, [0, 5]),  # a layer of one unit keeps it
    ],
)
def test_by_hand(weights: dict[int, float], units: list[int], sparsity: float, expected: list[int]) -> None:
    assert losses(weights, units, sparsity) == expected


def test_each_layer_keeps_its_highest_in_order() -> None:
    scores = [[0.3, 0.9, 0.1, 0.5], [10.0, 40.0, 30.0, 20.0]]
    assert kept(PerLayer(weights={0: 3.0}), scores, [4, 4], 0.5) == [[1], [1, 2, 3]]


def test_what_is_gone_does_not_come_back() -> None:
    assert kept(PerLayer(), [[5.0, 1.0, 2.0, 3.0]], [8], 0.25) == [[0, 1, 2, 3]]


@pytest.mark.parametrize(
    ("weights", "units", "sparsity", "message"),
    [
        ({7: 0.5}, [4, 4], 0.5, "weights.7=0.5: must name a layer of the model, 0 to 1"),
        ({0: 0.0}, [4, 4], 0.5, "sparsity=0.5: .* at most 0.375"),
        ({0: 0.0, 1: 0.0}, [4, 4], 0.5, "at most 0.0"),
        ({}, [4, 4], 0.95, "at most 0.75"),
    ],
)
def test_too_few_units_are_said(weights: dict[int, float], units: list[int], sparsity: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        losses(weights, units, sparsity)


@pytest.mark.parametrize("weights", [{0: -0.1}, {0: math.nan}, {0: math.inf}, {-1: 1.0}])
def test_weights_are_checked(weights: dict[int, float]) -> None:
    with pytest.raises(ConfigError, match="weights"):
        PerLayer(weights=weights)


UNITS = st.lists(st.integers(1, 60), min_size=1, max_size=8)
WEIGHTS = st.dictionaries(st.integers(0, 7), st.floats(0, 10), max_size=8)


def possible(weights: dict[int, float], units: list[int]) -> tuple[dict[int, float], int]:
    named = {layer: weight for layer, weight in weights.items() if layer < len(units)}
    return named, sum(most - 1 for layer, most in enumerate(units) if named.get(layer, 1.0) > 0)


@given(weights=WEIGHTS, units=UNITS, sparsity=st.floats(0, 0.999))
def test_total_is_exact_and_shares_follow_weights(weights: dict[int, float], units: list[int], sparsity: float) -> None:
    weights, most = possible(weights, units)
    total = removed(sum(units), sparsity)
    if total > most:
        with pytest.raises(ConfigError):
            losses(weights, units, sparsity)
        return
    found = losses(weights, units, sparsity)
    assert sum(found) == total
    for layer, (lost, dense) in enumerate(zip(found, units, strict=True)):
        weight = weights.get(layer, 1.0)
        assert 0 <= lost <= (dense - 1 if weight else 0)
    # one unit more here and one less there is never nearer to the proportions: Webster's condition
    for gives, dense in enumerate(units):
        for takes, other in enumerate(units):
            if found[gives] and found[takes] < (other - 1 if weights.get(takes, 1.0) else 0):
                given_up = weights.get(gives, 1.0) * dense / (2 * found[gives] - 1)
                gained = weights.get(takes, 1.0) * other / (2 * found[takes] + 1)
                assert given_up >= gained * (1 - 1e-12)


@given(weights=WEIGHTS, units=UNITS, sparsity=st.floats(0, 0.999))
def test_equal_to_handing_out_one_by_one(weights: dict[int, float], units: list[int], sparsity: float) -> None:
    weights, most = possible(weights, units)
    total = removed(sum(units), sparsity)
    if total > most:
        return
    lost = [0] * len(units)
    queue = [(-weights.get(layer, 1.0) * dense, layer) for layer, dense in enumerate(units) if weights.get(layer, 1.0)]
    heapq.heapify(queue)
    while sum(lost) < total:
        _, layer = heapq.heappop(queue)
        if lost[layer] < units[layer] - 1:
            lost[layer] += 1
            heapq.heappush(queue, (-weights.get(layer, 1.0) * units[layer] / (2 * lost[layer] + 1), layer))
    assert losses(weights, units, sparsity) == lost


@given(weights=WEIGHTS, units=UNITS, first=st.floats(0, 0.999), second=st.floats(0, 0.999))
def test_more_sparsity_takes_no_less_of_any_layer(
    weights: dict[int, float], units: list[int], first: float, second: float
) -> None:
    weights, most = possible(weights, units)
    low, high = sorted((first, second))
    if removed(sum(units), high) > most:
        return
    before, after = losses(weights, units, low), losses(weights, units, high)
    assert all(less <= more for less, more in zip(before, after, strict=True))
