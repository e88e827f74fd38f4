"""When how much is removed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.config.ranges import ConfigError
from regraft.interfaces import Schedule
from regraft.pruning.schedules.iterative import Iterative
from regraft.pruning.schedules.one_shot import OneShot
from regraft.pruning.schedules.rounds import Rounds

SCHEDULES = st.one_of(
    st.just(OneShot()),
    st.builds(Rounds, fraction=st.floats(0.05, 0.9)),
    st.builds(Iterative, steps=st.integers(1, 50), spacing=st.sampled_from(["linear", "geometric", "cubic"])),
)


def test_one_shot_is_one_step() -> None:
    assert OneShot().targets(0.35) == (0.35,)
    assert OneShot().share_of_recovery(0.35) == (1.0,)


def test_linear_steps_remove_the_same_number() -> None:
    assert Iterative(steps=4).targets(0.6) == (0.15, 0.3, 0.45, 0.6)
    assert Iterative(steps=1).targets(0.6) == (0.6,)


def test_geometric_steps_remove_the_same_share_of_what_is_left() -> None:
    assert Iterative(steps=2, spacing="geometric").targets(0.75) == (0.5, 0.75)
    targets = Iterative(steps=3, spacing="geometric").targets(0.488)
    assert targets == pytest.approx((0.2, 0.36, 0.488))


def test_cubic_steps_remove_most_at_first() -> None:
    sparsity, first, after, steps = 0.8, 0.0, 0, 4
    literal = [sparsity + (first - sparsity) * (1 - (t - after) / (steps * 1)) ** 3 for t in (1, 2, 3, 4)]
    assert Iterative(steps=4, spacing="cubic").targets(0.8) == pytest.approx(literal)


@given(schedule=SCHEDULES, sparsity=st.floats(0.001, 0.999))
def test_targets_rise_to_the_sparsity(schedule: Schedule, sparsity: float) -> None:
    targets = schedule.targets(sparsity)
    assert targets[-1] == sparsity
    assert targets[0] > 0
    assert all(one < other for one, other in zip(targets, targets[1:], strict=False))
    shares = schedule.share_of_recovery(sparsity)
    assert len(shares) == len(targets) and min(shares) > 0
    assert math.fsum(shares) == pytest.approx(1, abs=1e-12)


@given(schedule=SCHEDULES)
def test_sparsity_zero_is_one_step_of_nothing(schedule: Schedule) -> None:
    assert schedule.targets(0.0) == (0.0,)
    assert schedule.share_of_recovery(0.0) == (1.0,)


@pytest.mark.parametrize("steps", [0, -1])
def test_there_is_at_least_one_step(steps: int) -> None:
    with pytest.raises(ConfigError, match=f"steps={steps}: must be at least 1"):
        Iterative(steps=steps)


def test_rounds_take_the_same_fraction_of_what_is_left() -> None:
    assert Rounds().targets(0.488) == pytest.approx((0.2, 0.36, 0.488))
    assert Rounds().targets(0.36) == (0.2, 0.36)
    assert Rounds().targets(0.5) == (0.2, 0.36, 0.488, 0.5)
    assert Rounds(fraction=0.5).targets(0.1) == (0.1,)
    with pytest.raises(ConfigError, match="fraction=1"):
        Rounds(fraction=1.0)
