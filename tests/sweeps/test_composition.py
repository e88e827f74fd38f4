"""What is composed the short way is what Hydra composes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode

from regraft.__main__ import conf
from regraft.config.ranges import ConfigError
from regraft.stages.plan import run_id
from regraft.sweeps.composition import Composer
from regraft.sweeps.identity import register, typed

STRANGER = Path(__file__).parents[1] / "stranger"


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    register()
    with initialize_config_dir(str(conf()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        yield Composer(loader, loader.load_configuration("config", ["sweep=mine"], run_mode=RunMode.MULTIRUN))


@pytest.mark.parametrize(
    "job",
    [
        "",
        "sparsity=0.25 seed=3",
        "loss=ce sparsity=0.25",
        "loss=ce_kl loss.weights.kl=0.5",
        "loss.temperature=2 loss.reads=question",
        "pruner/criterion=random pruner.criterion=null seed=2",
        "pruner/criterion=l1 schedule=iterative schedule.steps=3",
        "pruner/allocation=per_layer +pruner.allocation.weights.0=0.5",
        "task.train_size=null recovery.betas=[0.8,0.9]",
        "recovery={learning_rate:0.01,batch_size:8}",
        "~recovery.weight_decay sparsity=0.4",
        "task.name='a b' sparsity=0.3",
        'task.name="a=b"',
        "experiment=quickstart sparsity=0.7",
        "model=smollm2_135m task=commonsense_qa preparation=fine_tune preparation.training.epochs=2",
        "teacher=other model@teacher.model=smollm2_135m teacher.model.name=big",
        "hydra.sweep.dir=elsewhere sparsity=0.2",
        "sweep=other tracker=none runtime.threads=2",
    ],
)
def test_a_job_is_what_hydra_composes(composer: Composer, job: str) -> None:
    overrides = job.split(" ") if "'" not in job else [job.rsplit(" ", 1)[0], job.rsplit(" ", 1)[1]]
    overrides = [override for override in overrides if override]
    try:
        whole = composer.whole(overrides)
        expected = typed(whole, whole.hydra)
    except ConfigError as error:
        with pytest.raises(ConfigError) as found:
            composer.config(overrides)
        assert str(found.value).endswith(str(error))
        return
    found_config = composer.config(overrides)
    assert found_config == expected
    assert run_id(found_config) == run_id(expected)
    # and again, from what was composed before
    assert composer.config(overrides) == expected


def test_one_job_leaves_no_trace_in_the_next(composer: Composer) -> None:
    before = composer.config(["seed=1"])
    composer.config(["seed=1", "sparsity=0.9", "loss.temperature=3", "recovery.betas=[0.1,0.2]"])
    assert composer.config(["seed=1"]) == before


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (["los=kl"], "los"),
        (["loss=kll"], "Could not find 'loss/kll'"),
        (["recovery.rate=1"], "Could not override 'recovery.rate'"),
        (["seed=1", "sparsity=7"], "seed=1 sparsity=7: sparsity=7.0: must be a number in [0, 1)."),
    ],
)
def test_what_is_wrong_is_told_as_hydra_tells_it(composer: Composer, job: list[str], message: str) -> None:
    with pytest.raises((HydraException, ConfigError)) as told:
        composer.config(job)
    assert message in str(told.value)


def test_files_are_read_once_for_all_jobs_that_differ_in_values(composer: Composer, monkeypatch) -> None:
    read: list[tuple[str, ...]] = []
    original = composer.whole
    monkeypatch.setattr(composer, "whole", lambda job: read.append(tuple(job)) or original(job))
    for seed in range(20):
        composer.config([f"seed={seed}", "sparsity=0.1", "pipeline=evaluate_last"])
    assert read == [("pipeline=evaluate_last",)]
