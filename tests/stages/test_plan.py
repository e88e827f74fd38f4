"""Identity: what moves a key and what does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import open_dict

from regraft.__main__ import conf
from regraft.config.ranges import ConfigError
from regraft.config.schema import RunConfig
from regraft.pruning.allocation.layerwise import Layerwise
from regraft.pruning.budgets.units import Units
from regraft.pruning.structures.mlp_neurons import MlpNeurons
from regraft.stages.plan import PlannedStage, plan, run_id
from regraft.sweeps.identity import register, typed

Composed = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def composed() -> Composed:
    register()

    def make(*overrides: str) -> RunConfig:
        with initialize_config_dir(str(conf()), version_base="1.3"):
            config = compose("config", list(overrides), return_hydra_config=True)
        hydra = config.hydra
        with open_dict(config):
            del config["hydra"]
        return typed(config, hydra)

    return make


def keys(config: RunConfig) -> dict[str, str]:
    return {f"{stage.index} {stage.name}": stage.key for stage in plan(config)}


def stages(config: RunConfig, name: str) -> list[PlannedStage]:
    return [stage for stage in plan(config) if stage.name == name]


def test_the_default_run_is_measured_before_and_after_recovery(composed: Composed) -> None:
    assert list(keys(composed())) == ["0 prepare", "1 evaluate", "2 prune", "3 evaluate", "4 recover", "5 evaluate"]
    assert list(keys(composed("pipeline=evaluate_last"))) == [
        "0 prepare",
        "1 evaluate",
        "2 prune",
        "3 recover",
        "4 evaluate",
    ]


def test_what_is_measured_before_recovery_is_what_no_recovery_measures(composed: Composed) -> None:
    assert keys(composed("loss=kl"))["3 evaluate"] == keys(composed("loss=none"))["5 evaluate"]


@pytest.mark.parametrize(
    "neutral",
    [
        *("tracker=none", "save_model=true", "sweep=other", "runtime.threads=2", "runtime.cache=elsewhere"),
        *("save_model=true export=padded", "export=remote_code", "export=gguf export.weights=float16"),
    ],
)
def test_what_cannot_change_the_result_moves_no_id(composed: Composed, neutral: str) -> None:
    assert run_id(composed(*neutral.split())) == run_id(composed())


def test_adapters_move_the_ids_of_what_trains_by_them(composed: Composed) -> None:
    plain, lora = composed("recovery=small_model"), composed("recovery=small_model_lora")
    assert [keys(plain)[key] == keys(lora)[key] for key in keys(plain)] == [True] * 4 + [False] * 2
    assert run_id(composed("recovery=small_model_lora", "recovery.lora.rank=4")) != run_id(lora)
    same = composed("recovery=small_model_lora", "recovery.lora=null", "recovery.learning_rate=3e-4")
    assert run_id(same) == run_id(plain)


def test_a_plain_checkpoint_of_uneven_layers_is_refused_before_anything_runs(composed: Composed) -> None:
    uneven = ["pruner/allocation=per_layer", "save_model=true"]
    with pytest.raises(ConfigError, match="export=plain: must be export=padded .* or export=remote_code"):
        composed(*uneven)
    for choice in (["export=padded"], ["export=remote_code"], ["export=gguf"], ["sparsity=0"], ["save_model=false"]):
        composed(*uneven, *choice)


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        (["recovery=small_model_lora"], r"recovery\.lora: needs the package peft: .*regraft\[lora\]"),
        (["save_model=true", "export=onnx"], r"export: needs the package onnxscript: .*regraft\[onnx\]"),
    ],
)
def test_a_library_that_is_missing_is_told_before_anything_runs(
    composed: Composed, monkeypatch: pytest.MonkeyPatch, choices: list[str], told: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=told):
        composed(*choices)


def test_runs_of_one_prefix_share_its_keys(composed: Composed) -> None:
    ce, kl = keys(composed("loss=ce")), keys(composed("loss=kl"))
    assert [ce[key] == kl[key] for key in ce] == [True, True, True, True, False, False]


def test_the_seed_moves_recovery_but_not_l2(composed: Composed) -> None:
    one, other = keys(composed("seed=0")), keys(composed("seed=1"))
    assert [one[key] == other[key] for key in one] == [True, True, True, True, False, False]
    one, other = (keys(composed("pruner/criterion=random", f"seed={seed}")) for seed in (0, 1))
    assert [one[key] == other[key] for key in one] == [True, True, False, False, False, False]


def test_the_teacher_matters_only_to_a_loss_that_asks_it(composed: Composed) -> None:
    other = ["teacher=other", "model@teacher.model=smollm2_135m"]
    assert run_id(composed("loss=ce")) == run_id(composed("loss=ce", *other))
    assert run_id(composed("loss=kl")) != run_id(composed("loss=kl", *other))


def test_a_teacher_that_writes_alone_is_known_by_what_it_writes(composed: Composed) -> None:
    other = ["teacher=other", "model@teacher.model=smollm2_135m"]
    alone = ["batches=teacher_written", "loss=lm", "loss.reads=choices"]
    one = run_id(composed(*alone))
    # the same texts: from memory or from the cache; the first recovery is after the dense model
    assert one == run_id(composed(*alone, "teacher=cached")) == run_id(composed(*alone, "teacher=previous"))
    assert len({one, run_id(composed(*alone, *other)), run_id(composed(*alone, "teacher.precision=bfloat16"))}) == 3
    assert run_id(composed(*alone[:1])) != run_id(composed(*alone[:1], "teacher=cached")), "a loss that asks it too"


def test_no_recovery_and_sparsity_zero_hand_the_model_on(composed: Composed) -> None:
    (prune,) = stages(composed("sparsity=0"), "prune")
    (recover,) = stages(composed("loss=none"), "recover")
    assert prune.model_after == prune.model_before and recover.model_after == recover.model_before
    last = [plan(composed("sparsity=0", "loss=none", f"seed={seed}"))[-1].key for seed in (0, 1)]
    assert last[0] == last[1]


def test_each_point_of_a_grid_has_its_own_name(composed: Composed) -> None:
    points = [
        ["sparsity=0", "pruner/criterion=l2"],
        ["sparsity=0", "pruner/criterion=random"],
        ["loss=none", "seed=0"],
        ["loss=none", "seed=1"],
        ["schedule=iterative"],
        ["task.train_size=64"],
        [],
    ]
    assert len({run_id(composed(*point)) for point in points}) == len(points)


def test_train_size_leaves_the_dense_model_alone(composed: Composed) -> None:
    one, other = keys(composed("preparation=fine_tune")), keys(composed("preparation=fine_tune", "task.train_size=64"))
    # the dense model is asked the recovery questions too
    assert [one[key] == other[key] for key in one] == [True, False, True, True, False, False]


def test_iterative_has_the_same_total_of_recovery_as_one_shot(composed: Composed) -> None:
    recover = stages(composed("schedule=iterative"), "recover")
    assert len(recover) > 1
    assert recover[0].first_share == 0 and recover[-1].last_share == pytest.approx(1)
    assert all(one.last_share == other.first_share for one, other in zip(recover, recover[1:], strict=False))


def test_golden_ids(composed: Composed) -> None:
    """Ids of runs that people have on disk. If they must move, raise `plan.FORMAT` and say so in the changelog."""
    golden = Path(__file__).with_name("golden_ids.txt").read_text(encoding="utf-8").splitlines()
    assert len(golden) >= 5
    for line in golden:
        name, *overrides = line.split()
        assert run_id(composed(*overrides)) == name, overrides


@pytest.mark.parametrize("sparsity", ["1", "1.5", "-0.1", "nan", "inf"])
def test_a_sparsity_out_of_range_is_refused(composed: Composed, sparsity: str) -> None:
    with pytest.raises(ConfigError, match=r"sparsity=.*: must be a number in \[0, 1\)"):
        composed(f"sparsity={sparsity}")


def test_a_pipeline_must_end_with_a_measurement(composed: Composed) -> None:
    with pytest.raises(ConfigError, match=r"pipeline\.repeat=\['prune'\]: must be a list that ends with evaluate"):
        composed("pipeline.repeat=[prune]")


def test_a_budget_moves_what_it_decides_and_no_more(composed: Composed) -> None:
    plain = composed()
    assert run_id(composed("pruner/budget=units")) == run_id(plain)
    assert run_id(composed("evaluation.latency=false")) == run_id(plain)
    parameters, macs = composed("pruner/budget=parameters"), composed("pruner/budget=macs")
    assert len({run_id(config) for config in (plain, parameters, macs)}) == 3
    # how long the evaluation's questions are decides what a token multiplies, not how many parameters there are
    for budget, moved in (("parameters", False), ("macs", True), ("latency", True)):
        for other in ("task.test_relations=2", "evaluation.questions=5"):
            one, another = (keys(composed(f"pruner/budget={budget}", *more))["2 prune"] for more in ((), (other,)))
            assert (one != another) == moved, (budget, other)
    # the questions that are asked first are those whose length counts
    for split, size in (("recovery", "train_size"), ("preparation", "preparation_size")):
        asked = ("pruner/budget=macs", f"evaluation.splits=[{split}]")
        assert keys(composed(*asked))["2 prune"] != keys(composed(*asked, f"task.{size}=5"))["2 prune"], split
    # at a step before the last a budget may stay unmet: that is another stage
    of = ("pruner/budget=parameters", "pruner.budget.at_most=9")
    stepwise = composed(*of, "schedule=iterative", "schedule.steps=2", "sparsity=0.5")
    assert keys(stepwise)["2 prune"] != keys(composed(*of, "sparsity=0.25"))["2 prune"]


def test_a_combination_is_built_from_the_command_line(composed: Composed) -> None:
    config = composed("pruner=combined", "pruner/criterion@pruner.parts.depth.criterion=random", "pruner/budget=macs")
    assert [pruner.structure.name for pruner in config.pruner.pruners] == ["layers", "kv_groups", "mlp_neurons"]
    assert config.pruner.uses_seed and not config.pruner.needs
    assert not composed("pruner=combined").pruner.uses_seed
    assert run_id(config) != run_id(composed("pruner=combined"))


def test_what_saves_nothing_of_a_budget_is_refused(composed: Composed) -> None:
    config = composed("pruner/budget=macs")

    class Weights(MlpNeurons):
        kind = "weights"

    class Searched(Layerwise):
        searches = True

    with pytest.raises(ConfigError, match="pruner/budget=macs: .*as much without its weights.*budget=units"):
        replace(config, pruner=replace(config.pruner, structure=Weights()))  # type: ignore[type-var]
    with pytest.raises(ConfigError, match="pruner/budget=macs: must be units with pruner.allocation=Searched"):
        replace(config, pruner=replace(config.pruner, allocation=Searched()))  # type: ignore[type-var]
    replace(config, pruner=replace(config.pruner, allocation=Searched(), budget=Units()))  # type: ignore[type-var]
