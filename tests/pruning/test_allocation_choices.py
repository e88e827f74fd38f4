"""Allocations as the command line composes them, and which structures they go with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from regraft.__main__ import conf
from regraft.config.ranges import ConfigError
from regraft.config.schema import RunConfig
from regraft.distillation.losses.cross_entropy import CrossEntropy
from regraft.distillation.losses.kl import KL
from regraft.interfaces import Allocation
from regraft.pruning.allocation.amc import Amc
from regraft.pruning.allocation.evolutionary import Evolutionary
from regraft.pruning.allocation.global_threshold import GlobalThreshold
from regraft.pruning.allocation.greedy import Greedy
from regraft.pruning.allocation.layerwise import Layerwise
from regraft.pruning.allocation.optuna_search import OptunaSearch
from regraft.pruning.allocation.owl import Owl
from regraft.pruning.allocation.standardised import Standardised
from regraft.pruning.structures.hidden import Hidden
from regraft.pruning.structures.layers import Layers
from regraft.pruning.structures.n_m import NM
from regraft.pruning.structures.weights import Weights
from regraft.sweeps.composition import Composer
from regraft.sweeps.identity import register

CHOICES: dict[str, Allocation] = {
    "layerwise": Layerwise(),
    "global": GlobalThreshold(),
    "standardised": Standardised(),
    "owl": Owl(),
    "greedy": Greedy(loss=CrossEntropy()),
    "evolutionary": Evolutionary(loss=CrossEntropy()),
    "optuna": OptunaSearch(loss=CrossEntropy()),
    "amc": Amc(loss=CrossEntropy()),
}


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    register()
    with initialize_config_dir(str(conf()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        yield Composer(loader, loader.load_configuration("config", ["sweep=mine"], run_mode=RunMode.MULTIRUN))


def composed(composer: Composer, *job: str) -> RunConfig:
    return composer.config(list(job))


@pytest.mark.parametrize("choice", CHOICES)
def test_a_file_is_the_class_with_its_defaults(composer: Composer, choice: str) -> None:
    config = composed(composer, f"pruner/allocation={choice}")
    assert config.pruner.allocation == CHOICES[choice]
    assert config.pruner.uses_seed == (choice in ("evolutionary", "optuna", "amc"))


def test_a_search_may_need_no_labels(composer: Composer) -> None:
    allocation = composed(composer, "pruner/allocation=amc", "loss@pruner.allocation.loss=kl").pruner.allocation
    assert allocation == Amc(loss=KL())
    assert "labels" not in allocation.needs


def test_what_has_nothing_to_share_out_is_refused(composer: Composer) -> None:
    config = composed(composer)
    for allocation in CHOICES.values():
        replace(config, pruner=replace(config.pruner, structure=Weights(), allocation=allocation))
        for structure in (Layers(), Hidden(), NM()):
            pruner = replace(config.pruner, structure=structure, allocation=allocation)
            if isinstance(allocation, Layerwise):
                assert replace(config, pruner=pruner).pruner == pruner
                continue
            told = rf"{type(allocation).__name__}: .*{type(structure).__name__} has one group.*allocation=layerwise"
            with pytest.raises(ConfigError, match=told):
                replace(config, pruner=pruner)
