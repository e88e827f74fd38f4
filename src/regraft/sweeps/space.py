"""The space of a search, from Hydra's sweep syntax."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from regraft.config.ranges import ConfigError, require

Value = str | int | float


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of some values, in no order: `loss=ce,kl`."""

    options: tuple[str, ...]
    """As an override writes them."""

    @property
    def middle(self) -> Value:
        return self.options[0]

    @property
    def edges(self) -> tuple[Value, ...]:
        return self.options

    @property
    def size(self) -> float:
        return len(self.options)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A number from `low` to `high`, both included: `interval(0, 1)`, `range(1, 8)`."""

    low: float
    high: float
    integer: bool = False
    log: bool = False
    step: float | None = None
    """Distance of the values, from `low`; None takes any (any whole number if `integer`)."""

    @property
    def middle(self) -> Value:
        if self.step is not None:
            return self.low + self.step * round((self.high - self.low) / self.step / 2)
        return int((self.low + self.high) // 2) if self.integer else (self.low + self.high) / 2

    @property
    def edges(self) -> tuple[Value, ...]:
        return (self.low, self.high)

    @property
    def size(self) -> float:
        if self.step is None and not self.integer:
            return math.inf if self.high > self.low else 1
        return round((self.high - self.low) / (self.step or 1)) + 1


Space = Mapping[str, Choice | Interval]
"""Key as in an override, a `+` included -> what it may be."""


def dimension(override: Override) -> Choice | Interval:
    """What a sweep override lets its key be.

    Raises:
        ConfigError: An interval is empty, or a tag unknown.
    """
    value = override.value()
    written = f"{override.get_key_element()}={override.get_value_string()}"
    tags = set(getattr(value, "tags", ()) or ())
    if isinstance(value, IntervalSweep):
        _only(tags, {"log", "int"}, written)
        low, high = value.start, value.end
        assert low is not None and high is not None
        integer = "int" in tags or isinstance(low, int)
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ConfigError(f"{written}: must be an interval of two finite numbers, the lower first.")
        if "log" in tags and low <= 0:
            raise ConfigError(f"{written}: must begin above 0 with the tag log.")
        if integer and math.ceil(low) > math.floor(high):
            raise ConfigError(f"{written}: must hold a whole number.")
        if integer:
            return Interval(low=math.ceil(low), high=math.floor(high), integer=True, log="log" in tags)
        return Interval(low=low, high=high, log="log" in tags)
    _only(tags, set(), written)
    if isinstance(value, RangeSweep):
        numbers = sorted(float(str(number)) for number in override.sweep_iterator())
        if not numbers:
            raise ConfigError(f"{written}: must hold at least one number; a range ends before its second number.")
        integer = all(isinstance(number, int) for number in (value.start, value.stop, value.step))
        step = abs(value.step)
        if integer:
            return Interval(low=int(numbers[0]), high=int(numbers[-1]), integer=True, step=int(step))
        return Interval(low=numbers[0], high=numbers[-1], step=float(step))
    options = tuple(dict.fromkeys(override.sweep_string_iterator()))
    require(len(options) > 0, override.get_key_element(), override.get_value_string(), "a pattern that names choices")
    # a shuffled choice is the same choice
    return Choice(options=tuple(sorted(options)) if getattr(value, "shuffle", False) else options)


def written(point: Mapping[str, Value]) -> list[str]:
    """A point of the space as overrides."""
    return [f"{key}={value if isinstance(value, str) else repr(value)}" for key, value in point.items()]


def middle(space: Space) -> dict[str, Value]:
    """A point that stands for the space."""
    return {key: each.middle for key, each in space.items()}


def edges(space: Space) -> list[dict[str, Value]]:
    """The middle, and for each key each of its choices or bounds with the others in the middle."""
    centre = middle(space)
    points = [centre, *(centre | {key: value} for key, each in space.items() for value in each.edges)]
    return [point for number, point in enumerate(points) if point not in points[:number]]


def size(space: Space) -> float:
    """Number of points."""
    return math.prod(each.size for each in space.values())


def plain(space: Space) -> dict[str, Any]:
    """The space as plain data, as JSON gives it back."""
    return {
        key: asdict(each) | ({"options": list(each.options)} if isinstance(each, Choice) else {})
        for key, each in space.items()
    }


def _only(tags: set[str], known: set[str], written: str) -> None:
    if unknown := sorted(tags - known):
        allowed = f"only the tags {', '.join(sorted(known))}" if known else "no tag"
        raise ConfigError(f"{written}: must have {allowed} in a search, not {', '.join(unknown)}.")
