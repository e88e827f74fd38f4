"""What Hydra's sweep syntax means in a search."""

from __future__ import annotations

import math

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from regraft.config.ranges import ConfigError
from regraft.sweeps.space import Choice, Interval, dimension, edges, middle, size, written


def parsed(text: str) -> Choice | Interval:
    return dimension(OverridesParser.create().parse_override(f"key={text}"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ce,kl", Choice(options=("ce", "kl"))),
        ("choice(0.1,0.5)", Choice(options=("0.1", "0.5"))),
        ("shuffle(b,a)", Choice(options=("a", "b"))),
        ("'a b','c=d'", Choice(options=("'a b'", "'c=d'"))),
        ("[1,2],[3]", Choice(options=("[1,2]", "[3]"))),
        ("interval(0.1,0.9)", Interval(low=0.1, high=0.9)),
        ("interval(1,9)", Interval(low=1.0, high=9.0)),
        ("int(interval(1,9))", Interval(low=1, high=9, integer=True)),
        ("tag(log,interval(1e-5,1e-2))", Interval(low=1e-5, high=1e-2, log=True)),
        ("tag(int,log,interval(1,64))", Interval(low=1, high=64, integer=True, log=True)),
        ("range(1,4)", Interval(low=1, high=3, integer=True, step=1)),  # a range ends before its second number
        ("range(0,10,4)", Interval(low=0, high=8, integer=True, step=4)),
        ("range(0,1,0.25)", Interval(low=0.0, high=0.75, step=0.25)),
        ("range(4,0,-2)", Interval(low=2, high=4, integer=True, step=2)),
    ],
)
def test_sweep_syntax(text: str, expected: Choice | Interval) -> None:
    assert parsed(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("interval(3,1)", "the lower first"),
        ("interval(0,inf)", "two finite numbers"),
        ("tag(log,interval(0,1))", "above 0"),
        ("tag(lgo,interval(1,2))", "only the tags int, log in a search, not lgo"),
        ("tag(log,range(1,4))", "no tag in a search, not log"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        parsed(text)
    assert str(refused.value).startswith("key=")


def test_points_that_stand_for_a_space() -> None:
    space = {
        "loss": Choice(options=("ce", "kl")),
        "+w.0": Interval(low=0.0, high=1.0),
        "steps": parsed("range(0,10,4)"),
    }
    assert written(middle(space)) == ["loss=ce", "+w.0=0.5", "steps=4"]
    assert [list(point.values()) for point in edges(space)] == [
        ["ce", 0.5, 4],
        ["kl", 0.5, 4],
        ["ce", 0.0, 4],
        ["ce", 1.0, 4],
        ["ce", 0.5, 0],
        ["ce", 0.5, 8],
    ]
    assert size(space) == math.inf
    assert size({name: space[name] for name in ("loss", "steps")}) == 6
