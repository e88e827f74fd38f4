"""Colours and marks: told apart by the colour-blind, the same thing in the same colour, too many refused."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from analysis.collect import AnalysisError
from analysis.figures import style

SIGHT = {
    "all colours": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}
"""What linear sRGB becomes to such eyes (Machado et al. 2009, doi:10.1109/TVCG.2009.113, severity 1)."""
TO_XYZ = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
WHITE = [0.95047, 1.0, 1.08883]
APART = 15.0
"""Distance in CIE Lab. Large patches side by side are just told apart at 2.3 (Mahy et al. 1994); lines a point wide and
marks of three points, away from each other, are given more than six times that."""
NEXT = 9.0
"""The same for neighbouring shades of a scale, of which the order tells too."""


def _lab(colour: str, sight: object) -> np.ndarray:
    given = np.array(to_rgb(colour))
    linear = np.where(given <= 0.04045, given / 12.92, ((given + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.asarray(sight) @ linear, 0, 1)
    ratio = np.array(TO_XYZ) @ seen / np.array(WHITE)
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def _closest(colours: Sequence[str], sight: str) -> float:
    seen = [_lab(colour, SIGHT[sight]) for colour in colours]
    return float(min(np.linalg.norm(one - other) for one, other in itertools.combinations(seen, 2)))


def _looks(column: str, values: Sequence[object]) -> list[style.Look]:
    return list(style.looks([column], [(value,) for value in values]).values())


def test_the_distance_is_that_of_cie() -> None:
    assert _lab("#ffffff", SIGHT["all colours"]) == pytest.approx([100, 0, 0], abs=0.02)
    assert _lab("#ff0000", SIGHT["all colours"]) == pytest.approx([53.24, 80.09, 67.20], abs=0.05)
    red_and_green = [_closest(("#c04040", "#508000"), sight) for sight in SIGHT]
    assert red_and_green[0] > 5 * red_and_green[1]


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("loss", ["none", "ce", "kl", "ce_kl", "pseudo_label"]),
        ("loss", ["none", "ce", "kl", "hidden", "cosine"]),
        ("criterion", ["random", "l1", "l2", "activation", "taylor", "wanda"]),
        ("schedule", [f"schedule{number}" for number in range(8)]),
        ("sparsity", [0.0, 0.5, 0.7, 0.8, 0.9, 0.98]),
    ],
)
def test_lines_are_told_apart_by_all_eyes(sight: str, column: str, values: list[object]) -> None:
    found = _looks(column, values)
    assert _closest([colour for colour, _, _ in found], sight) > APART
    assert len({marker for _, marker, _ in found}) == len(values)


@pytest.mark.parametrize("sight", SIGHT)
def test_shades_of_many_numbers_are_told_apart_and_ordered(sight: str) -> None:
    shades = [colour for colour, _, _ in _looks("sparsity", [number / 8 for number in range(8)])]
    assert _closest(shades, sight) > NEXT
    lightness = [_lab(shade, SIGHT[sight])[0] for shade in shades]
    assert lightness == sorted(lightness)


@pytest.mark.parametrize("sight", SIGHT)
def test_every_colour_shows_on_white(sight: str) -> None:
    known = [colour for column in style.COLOURS.values() for colour, _ in column.values()]
    for colour in [*known, *(colour for colour, _ in style.CYCLE)]:
        assert _closest([colour, "#ffffff"], sight) > APART


def test_a_value_keeps_its_colour_whatever_else_is_drawn() -> None:
    alone = style.looks(["loss"], [("kl",)])[("kl",)]
    among = style.looks(["loss"], [("mine",), ("kl",), ("ce",)])
    assert among[("kl",)] == alone
    assert among[("mine",)][:2] not in [look[:2] for line, look in among.items() if line != ("mine",)]


def test_other_conditions_are_told_by_dashes() -> None:
    found = style.looks(["loss", "schedule"], [("kl", "one_shot"), ("ce", "one_shot"), ("kl", "iterative")])
    assert found["kl", "one_shot"][:2] == found["kl", "iterative"][:2] != found["ce", "one_shot"][:2]
    assert found["kl", "one_shot"][2] == found["ce", "one_shot"][2] != found["kl", "iterative"][2]


@pytest.mark.parametrize(
    ("columns", "lines", "next_step"),
    [
        (["loss", "train_size"], [("kl", str(size)) for size in (7, 100, 20, 30, 400, 50)], "train_size=7,400"),
        (["schedule"], [(f"s{number}",) for number in range(9)], "schedule=s0,s8"),
        (
            ["loss", "variant"],
            [("kl", f"recovery.lr={number} loss.temperature=2") for number in range(6)],
            "recovery.lr=5",
        ),
    ],
)
def test_too_many_lines_are_refused_with_a_filter_that_helps(
    columns: list[str], lines: list[tuple[object, ...]], next_step: str
) -> None:
    with pytest.raises(AnalysisError, match="cannot be told apart") as refused:
        style.looks(columns, lines)
    assert str(refused.value).endswith(f"--where {next_step}.")


def test_settings_do_not_outlive_a_figure() -> None:
    before = dict(matplotlib.rcParams)
    with style.style(style.VENUES["acl"]):
        assert matplotlib.rcParams["font.family"] == ["STIXGeneral"]
    assert dict(matplotlib.rcParams) == before
