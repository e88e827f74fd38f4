"""Every choice of the config groups that a run is composed of, and few combinations that hold every pair of them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from regraft.__main__ import conf
from regraft.config.components import Allowed, build
from regraft.config.schema import RunConfig, load

GROUPS = ("pruner/criterion", "pruner/structure", "pruner/allocation", "schedule", "loss")
MICRO = (
    *("model.hidden_size=32", "model.intermediate_size=32", "model.num_hidden_layers=4", "model.num_key_value_heads=2"),
    *("model.vocab_size=300", "model.steps=2", "model.threads=1", "model.batch_size=8"),
    *("model.world.entities=12", "model.world.types=4", "model.world.relations=4", "task.test_relations=1"),
    *("task.world.entities=12", "task.world.types=4", "task.world.relations=4"),
    *("recovery.steps=2", "recovery.batch_size=4", "calibration.questions=4", "calibration.batch_size=4"),
    *("evaluation.questions=4", "pipeline=evaluate_last", "tracker=none", "runtime.progress=false", "sparsity=0.5"),
)
"""Overrides of a model of some twenty thousand parameters and a run of a tenth of a second."""

CANDIDATES = 100
"""That are looked at for each pair."""

Combination = tuple[str, ...]
"""A choice of each of `GROUPS`."""


def choices(group: str) -> list[str]:
    """The YAML files of a group."""
    return sorted(path.stem for path in (Path(conf()) / group).glob("*.yaml"))


def composed(*overrides: str) -> dict[str, Any]:
    """The plain config of MICRO and `overrides`."""
    with initialize_config_dir(str(conf()), version_base="1.3"):
        plain = OmegaConf.to_container(compose("config", overrides=[*MICRO, *overrides]), resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if key != "hydra"}


@functools.cache
def components(group: str) -> dict[str, Any]:
    """Choice -> its component."""
    *path, last = group.split("/")
    found = {}
    for choice in choices(group):
        node = composed(f"{group}={choice}")
        for key in path:
            node = node[key]
        found[choice] = build(node[last], group, Allowed())
    return found


def sorts_of_losses() -> list[str]:
    """One loss of each sort, by what it asks for: those of a sort go together with the same prunings."""
    found: dict[Any, str] = {}
    for choice, loss in components("loss").items():
        found.setdefault((loss.trains, loss.needs), choice)
    return sorted(found.values())


def all_of() -> list[Combination]:
    """Of the losses one of each sort."""
    return list(itertools.product(*map(choices, GROUPS[:-1]), sorts_of_losses()))


def put_together(base: RunConfig, parts: Mapping[str, Any]) -> RunConfig:
    """`base` with other components, checked as any config is: `parts` are by group.

    Raises:
        ConfigError: They do not go together.
    """
    pruner = {group.removeprefix("pruner/"): part for group, part in parts.items() if group.startswith("pruner/")}
    others = {group: part for group, part in parts.items() if not group.startswith("pruner/")}
    return replace(base, pruner=replace(base.pruner, **pruner), **others)


def base() -> RunConfig:
    return load(composed())


Pair = tuple[int, str, int, str]


def pairs(combination: Combination) -> list[Pair]:
    """Any two of its choices, with their places."""
    places = itertools.combinations(range(len(combination)), 2)
    return [(one, combination[one], other, combination[other]) for one, other in places]


def covering(combinations: Sequence[Combination]) -> list[Combination]:
    """Combinations that hold every pair of choices that any of the given ones holds.

    Greedy: for the next pair that is missing, of some candidates that hold it the one with most other missing pairs.
    """
    holding: dict[Pair, list[Combination]] = {}
    for combination in combinations:
        for pair in pairs(combination):
            holding.setdefault(pair, []).append(combination)
    missing = dict.fromkeys(holding)
    chosen = []
    while missing:
        candidates = holding[next(iter(missing))]
        step = max(len(candidates) // CANDIDATES, 1)
        best = max(candidates[::step], key=lambda combination: sum(pair in missing for pair in pairs(combination)))
        chosen.append(best)
        for pair in pairs(best):
            missing.pop(pair, None)
    return chosen
