"""Budgets: the formula is the count, and what is solved is the smallest cut that meets the budget."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch
from architectures import ARCHITECTURES, tiny_model
from questions import Made
from silence import logits
from units import flags

from regraft.config.ranges import ConfigError
from regraft.evaluation.size import measure
from regraft.interfaces import Budget, Criterion, Kind, LanguageModel, PruningContext, Scored, Structure
from regraft.models.latency import milliseconds_per_token, time_beside
from regraft.pruning.allocation.layerwise import Layerwise
from regraft.pruning.allocation.per_layer import PerLayer
from regraft.pruning.budgets.latency import Latency
from regraft.pruning.budgets.macs import Macs
from regraft.pruning.budgets.parameters import Parameters
from regraft.pruning.budgets.units import Units
from regraft.pruning.combined import Combined, Share
from regraft.pruning.criteria.flap import FLAP
from regraft.pruning.criteria.l2 import L2
from regraft.pruning.criteria.random import Random
from regraft.pruning.pruner import Pruner, Pruning
from regraft.pruning.shapes import Shapes
from regraft.pruning.structures.hidden import Hidden
from regraft.pruning.structures.kv_groups import KvGroups
from regraft.pruning.structures.layers import Layers
from regraft.pruning.structures.mlp_neurons import MlpNeurons

CONTEXT = 20
"""Tokens at which MACs are counted."""
dense_model = functools.cache(tiny_model)


def wrapped(architecture: str, **more: Any) -> LanguageModel:
    return LanguageModel(model=copy.deepcopy(dense_model(architecture, **more)), tokenizer=None)  # type: ignore[arg-type]


def pruned(
    pruning: Pruning, model: LanguageModel, *sparsities: float, architecture: str = "llama", **more: Any
) -> dict[str, Any]:
    """Prunes `model` in steps; what the last one reported of its budget."""
    dense = LanguageModel(model=dense_model(architecture, **more), tokenizer=None)  # type: ignore[arg-type]
    told: dict[str, Any] = {}
    for sparsity in sparsities:
        context = PruningContext(
            generator=torch.Generator().manual_seed(0),
            sparsity=sparsity,
            dense=lambda: dense,
            length=lambda: CONTEXT,
            is_last=sparsity == sparsities[-1],
            report=told.update,
            data=Made(batch_size=3),
        )
        pruning.prune(model, pruning.left(dense), sparsity, context)
    return dict(told.get("budget", {}))


def pruner(structure: Structure, budget: Budget, criterion: Criterion | None = None) -> Pruner:
    return Pruner(criterion=criterion or L2(), structure=structure, allocation=Layerwise(), budget=budget)


@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_formula_is_the_count(architecture: str, uniform: bool) -> None:
    """For each structure alone, and for all of them together: what they share is taken away once."""
    structures: list[Structure] = [Layers(), MlpNeurons(), KvGroups(), Hidden()]
    structures = structures[: 3 if architecture == "gpt2" else 4]
    kept: dict[str, list[torch.Tensor]] = {}
    for structure in structures:
        model = wrapped(architecture)
        kept[structure.name] = [
            flags(group.units, range(max(group.units // (2 if uniform else 2 + number), 1)))
            for number, group in enumerate(structure.groups(model.model))
        ]
        if structure.name == "layers":
            kept["layers"] = [flags(3, [0, 2])]
        alone = Shapes(model)
        alone.take(structure.groups(model.model), kept[structure.name])
        structure.remove(model, kept[structure.name])
        size = measure(model.model, CONTEXT)
        assert (alone.parameters(), alone.macs(CONTEXT)) == (size.parameters, size.macs_per_token)
    model = wrapped(architecture)
    together = Shapes(model)
    before = measure(model.model, CONTEXT)
    assert (together.parameters(), together.macs(CONTEXT)) == (before.parameters, before.macs_per_token)
    for structure in structures:
        together.take(structure.groups(model.model), kept[structure.name])
    for structure in structures:
        keep = kept[structure.name]
        structure.remove(model, keep if len(keep) == 1 else [keep[0], keep[2]])
    size = measure(model.model, CONTEXT)
    assert (together.parameters(), together.macs(CONTEXT)) == (size.parameters, size.macs_per_token)


def test_masked_weights_are_no_parameters() -> None:
    model = wrapped("llama")
    model.masks["model.layers.0.mlp.up_proj.weight"] = torch.arange(48 * 32).view(48, 32) % 2 == 0
    assert Shapes(model).parameters() == measure(model.model, CONTEXT, model.masks).parameters


@pytest.mark.parametrize("budget", [Parameters(), Macs()], ids=["parameters", "macs"])
@pytest.mark.parametrize(
    ("structure", "architecture", "sparsity", "step"),
    [
        (MlpNeurons(), "llama", 0.2, 3),
        (MlpNeurons(), "gpt2", 0.2, 3),
        (Hidden(), "gemma3", 0.5, 1),
        (KvGroups(), "olmo2", 0.1, 3),
        (Layers(), "qwen3", 0.3, 1),
    ],
)
def test_the_fewest_units_that_meet_the_budget_go(
    budget: Budget, structure: Structure, architecture: str, sparsity: float, step: int
) -> None:
    """`step` groups lose one unit each, at once: with one such step less the budget would not hold."""
    model = wrapped(architecture)
    told = pruned(pruner(structure, budget), model, sparsity, architecture=architecture)

    def cost(model: LanguageModel) -> int:
        size = measure(model.model, CONTEXT)
        return size.parameters if isinstance(budget, Parameters) else size.macs_per_token

    dense = cost(wrapped(architecture))
    assert told["reached"] == cost(model) <= (1 - sparsity) * dense == told["allowed"]
    assert told["dense"] == dense
    less = wrapped(architecture)
    keep = []
    for group, gone in zip(structure.groups(less.model), model.removed[structure.name], strict=True):
        assert gone
        keep.append(flags(group.units, set(range(group.units)) - set(gone[1:])))
    assert len(keep) == step
    structure.remove(less, keep)
    assert cost(less) > (1 - sparsity) * dense


def test_steps_of_a_budget_end_where_one_shot_does() -> None:
    at_once, in_steps = wrapped("llama"), wrapped("llama")
    of = pruner(MlpNeurons(), Parameters(), Random())
    pruned(of, at_once, 0.3)
    pruned(of, in_steps, 0.1, 0.2, 0.3)
    assert at_once.removed == in_steps.removed


def test_another_allocation_meets_the_same_budget() -> None:
    model = wrapped("llama")
    of = Pruner(
        criterion=L2(), structure=MlpNeurons(), allocation=PerLayer(weights={0: 0.0, 2: 3.0}), budget=Parameters()
    )
    told = pruned(of, model, 0.2)
    lost = [len(layer) for layer in model.removed["mlp_neurons"]]
    assert lost[0] == 0 < lost[1] < lost[2]
    allowed, reached = told["allowed"], measure(model.model, CONTEXT).parameters
    assert reached <= allowed < reached + 3 * 32


def test_what_cannot_be_reached_says_what_can() -> None:
    model = wrapped("llama")
    with pytest.raises(ConfigError, match=r"sparsity=0\.9: .* of 29472 parameters at least 15936 stay.*most 0\.4592"):
        pruned(pruner(MlpNeurons(), Parameters()), model, 0.9)
    assert not model.removed
    pruned(pruner(MlpNeurons(), Parameters()), model, 0.4592)
    assert measure(model.model, CONTEXT).parameters == 15936


def test_at_most_takes_the_least_that_is_enough() -> None:
    model = wrapped("llama")
    told = pruned(pruner(MlpNeurons(), Parameters(at_most=25_000)), model, 0.5)
    lost = len(model.removed["mlp_neurons"][0])
    each = 3 * 3 * 32  # one neuron of three layers
    assert told["reached"] == 29_472 - lost * each <= 25_000 < 29_472 - (lost - 1) * each
    same = wrapped("llama")
    pruned(pruner(MlpNeurons(), Parameters(at_most=30_000)), same, 0.5)
    assert torch.equal(logits(same.model), logits(dense_model("llama")))


def test_at_most_beyond_the_highest_sparsity_is_refused_at_the_end_only() -> None:
    of = pruner(MlpNeurons(), Parameters(at_most=20_000))
    with pytest.raises(ConfigError, match=r"at_most=20000: .* at sparsity=0\.5 22560 parameters are left of 29472"):
        pruned(of, wrapped("llama"), 0.5)
    model = wrapped("llama")
    pruned(of, model, 0.25, 0.75)  # the first step goes as far as it may
    assert 19_000 < measure(model.model, CONTEXT).parameters <= 20_000


def _counted(models: Sequence[Any], context: int, repeats: int) -> list[list[float]]:
    """A clock that counts a microsecond for each parameter."""
    return [[1e-6 * model.num_parameters()] * repeats for model in models]


@pytest.mark.parametrize("at_most", [None, 15.0])
def test_a_latency_is_met_as_measured(at_most: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that counts parameters: found to within 1/256 of the units, and nothing is measured twice."""
    measured = []

    def clock(models: Any, context: int, repeats: int) -> list[list[float]]:
        assert (context, repeats) == (CONTEXT, 7)
        measured.append(models[0].num_parameters())
        return _counted(models, context, repeats)

    monkeypatch.setattr("regraft.models.latency.seconds_in_turn", clock)
    model = wrapped("llama")
    told = pruned(pruner(Layers(), Latency(at_most=at_most, repeats=7)), model, 0.4 if at_most is None else 0.99)
    assert told["allowed"] == pytest.approx(0.6 * 29.472 if at_most is None else 15.0)
    assert told["reached"] == pytest.approx(model.model.num_parameters() / 1000) and told["reached"] <= told["allowed"]
    assert told["of"] == "milliseconds a token" and len(measured) <= 11
    assert len(model.removed["layers"][0]) == 2


def test_what_was_measured_once_decides_again() -> None:
    """As a stage that is done again has it: another clock would find another model."""
    kept: dict[str, Any] = {}

    def once(name: str, measure: Any) -> Any:
        return kept.setdefault(name, measure())

    removed = []
    for _ in range(2):
        model = wrapped("llama")
        dense = wrapped("llama")
        context = PruningContext(
            generator=torch.Generator(), dense=lambda dense=dense: dense, length=lambda: CONTEXT, once=once
        )
        of = pruner(MlpNeurons(), Latency(repeats=1, at_most=1e6))
        of.prune(model, of.left(dense), 0.5, context)
        removed.append(model.removed)
        names = sorted(kept)
    assert removed[0] == removed[1] and sorted(kept) == names and "dense" in kept


@pytest.mark.parametrize("architecture", ["gpt2", "gemma3"])
def test_a_token_takes_time_and_leaves_the_model_alone(architecture: str) -> None:
    model = tiny_model(architecture).train()
    assert 0 < milliseconds_per_token(model, 10, repeats=2) < 10_000
    assert milliseconds_per_token(model, 1000, repeats=2) > 0  # longer than its longest text
    assert model.training


def test_a_load_on_the_machine_is_no_speedup(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that runs by the parameters that are read, ever faster as the load goes away."""
    now, load = [0.0], [1.0]
    monkeypatch.setattr("regraft.models.latency.time.perf_counter", lambda: now[0])
    models = [tiny_model("llama"), tiny_model("llama", layers=1)]

    def passes(model: Any, inputs: Any, outputs: Any) -> None:
        now[0] += load[0] * model.num_parameters()
        load[0] *= 0.99

    for model in models:
        model.register_forward_hook(passes)
    large, small = models
    exact = small.num_parameters() / large.num_parameters()
    apart = milliseconds_per_token(small, 5) / milliseconds_per_token(large, 5)
    assert time_beside(small, large, 5) == pytest.approx(exact, rel=0.02)
    assert abs(apart / exact - 1) > 0.1


def test_the_dense_model_is_measured_once_for_all_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regraft.models.latency.seconds_in_turn", _counted)
    kept: dict[str, Any] = {}
    dense = wrapped("llama")
    for sparsity in (0.2, 0.4):
        context = PruningContext(
            generator=torch.Generator(),
            dense=lambda: dense,
            length=lambda: CONTEXT,
            once_of_dense=lambda name, measure: kept.setdefault(name, measure()),
        )
        model = wrapped("llama")
        of = pruner(MlpNeurons(), Latency(repeats=3))
        of.prune(model, of.left(dense), sparsity, context)
    assert kept == {f"3 tokens after {CONTEXT}": pytest.approx(29.472)}


def share(structure: Structure, **more: Any) -> Share:
    return Share(**({"criterion": L2(), "structure": structure, "allocation": Layerwise()} | more))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noted(Layerwise):
    """Keeps what it was asked for last, with how many layers the model had."""

    asked: ClassVar[dict[str, tuple[float, int]]] = {}

    def losses(self, scored: Scored, sparsity: float) -> list[int]:
        layers = scored.model.model.config.num_hidden_layers
        self.asked[scored.structure.name] = (sparsity, layers)
        return super().losses(scored, sparsity)


WIDE = {"layers": 4, "num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 4, "intermediate_size": 200}


def test_depth_and_width_share_one_budget() -> None:
    parts = {
        "neurons": share(MlpNeurons(), weight=1.0, allocation=Noted()),
        "channels": share(Hidden(), weight=0.25, allocation=Noted()),
        "depth": share(Layers(), weight=0.5, most=0.25, allocation=Noted()),
    }
    model = wrapped("llama", **WIDE)
    told = pruned(Combined(parts=parts), model, 0.6, **WIDE)
    dense, size = dense_model("llama", **WIDE).num_parameters(), measure(model.model, CONTEXT).parameters
    assert told["reached"] == size <= 0.4 * dense == pytest.approx(told["allowed"])
    channel = size / model.model.config.hidden_size
    assert size + 1.1 * channel > 0.4 * dense, "the last part meets the budget to one of its units"
    amounts = {name: amount for name, (amount, _) in Noted.asked.items()}
    assert amounts["layers"] == 0.25 and len(model.removed["layers"][0]) == 1, "no more than its most"
    # lambda is found anew for the last part, which makes up for the rounding of those before
    assert amounts["mlp_neurons"] / amounts["hidden"] == pytest.approx(4, rel=0.3)
    assert [layers for _, layers in Noted.asked.values()] == [4, 3, 3], "depth goes first"
    assert [len(layer) for layer in model.removed["mlp_neurons"]].count(0) == 1, "the layer that went lost nothing else"


def test_layers_keep_their_numbers_when_others_go() -> None:
    model = wrapped("llama", layers=4)
    Layers().remove(model, [flags(4, [0, 2, 3])])
    of = Pruner(criterion=L2(), structure=MlpNeurons(), allocation=PerLayer(weights={2: 0.0}))
    pruned(of, model, 0.25, layers=4)
    assert [len(layer) for layer in model.removed["mlp_neurons"]] == [18, 0, 0, 18]


@pytest.mark.parametrize("budget", [Parameters(), Macs()], ids=["parameters", "macs"])
def test_a_combination_in_steps_never_gives_back(budget: Budget) -> None:
    parts = {"depth": share(Layers(), criterion=Random()), "heads": share(KvGroups()), "neurons": share(MlpNeurons())}
    combined = Combined(parts=parts, budget=budget)
    model = wrapped("qwen3", layers=4)
    gone: dict[str, Any] = {}
    for steps in ((0.2,), (0.4,), (0.6,)):
        told = pruned(combined, model, *steps, architecture="qwen3", layers=4)
        assert told["reached"] <= told["allowed"]
        for name, groups in gone.items():
            assert all(set(before) <= set(after) for before, after in zip(groups, model.removed[name], strict=True))
        gone = dict(model.removed)
    left = combined.left(model)
    assert [len(units) for units in left.values()] == [1, 4, 4]
    lost = {number for number, units in enumerate(left["mlp_neurons"]) if units == 0}
    assert lost == set(model.removed["layers"][0]) and lost


def test_a_combination_by_units_multiplies_by_the_weights() -> None:
    parts = {"heads": share(KvGroups(), weight=2.0, most=0.5), "neurons": share(MlpNeurons(), weight=0.5)}
    model = wrapped("llama")
    pruned(Combined(parts=parts, budget=Units()), model, 0.5)
    assert [len(layer) for layer in model.removed["kv_groups"]] == [1] * 3
    assert [len(layer) for layer in model.removed["mlp_neurons"]] == [12] * 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Telling(Layerwise):
    """Tells the sparsity that its part is scored for, and keeps something."""

    def losses(self, scored: Scored, sparsity: float) -> list[int]:
        assert not scored.context.measured
        scored.context.measured["kept"] = True
        scored.context.report({"share": scored.context.sparsity})
        return super().losses(scored, sparsity)


def test_parts_of_a_combination_tell_and_keep_their_own() -> None:
    parts = {
        "heads": share(KvGroups(), weight=2.0, most=0.5, allocation=Telling()),
        "neurons": share(MlpNeurons(), weight=0.5, allocation=Telling()),
    }
    told: dict[str, Any] = {}
    context = PruningContext(generator=torch.Generator(), sparsity=0.5, report=told.update)
    model, combined = wrapped("llama"), Combined(parts=parts, budget=Units())
    combined.prune(model, combined.left(model), 0.5, context)
    assert told == {"parts": {"kv_groups": {"share": 0.5}, "mlp_neurons": {"share": 0.25}}}


def test_a_latency_of_a_combination_is_that_of_what_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regraft.models.latency.seconds_in_turn", _counted)
    parts = {"depth": share(Layers()), "channels": share(Hidden()), "neurons": share(MlpNeurons())}
    timed, counted = wrapped("olmo2"), wrapped("olmo2")
    told = pruned(Combined(parts=parts, budget=Latency()), timed, 0.5, architecture="olmo2")
    exact = pruned(Combined(parts=parts), counted, 0.5, architecture="olmo2")
    assert told["reached"] == pytest.approx(timed.model.num_parameters() / 1000) and told["reached"] <= told["allowed"]
    assert told["allowed"] == pytest.approx(exact["allowed"] / 1000)
    assert 1000 * told["reached"] == pytest.approx(exact["reached"], rel=0.05)


@pytest.mark.parametrize("architecture", ["llama", "olmo2", "gpt2"])
@pytest.mark.parametrize("sparsities", [(0.3,), (0.2, 0.3)], ids=["at once", "in steps"])
def test_biases_that_make_up_for_units_are_counted(architecture: str, sparsities: tuple[float, ...]) -> None:
    """Llama's config gives all maps of a block biases, OLMo2's says nothing of them, GPT-2 has them."""
    neurons = share(MlpNeurons(), criterion=FLAP())
    for pruning in (
        Combined(parts={"heads": share(KvGroups(), criterion=FLAP(), most=0.5), "neurons": neurons}),
        Combined(parts={"depth": share(Layers(), most=0.4), "neurons": neurons}),
        pruner(MlpNeurons(), Parameters(), FLAP()),
    ):
        model = wrapped(architecture)
        told = pruned(pruning, model, *sparsities, architecture=architecture)
        assert told["reached"] == measure(model.model, CONTEXT).parameters <= told["allowed"]
        assert all(any(groups) for groups in model.removed.values())


@pytest.mark.parametrize("architecture", ["llama", "olmo2"])
def test_biases_that_make_up_for_units_take_their_time(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regraft.models.latency.seconds_in_turn", _counted)
    neurons = share(MlpNeurons(), criterion=FLAP())
    heads = share(KvGroups(), criterion=FLAP(), most=0.5)
    for pruning in (
        pruner(MlpNeurons(), Latency(), FLAP()),
        Combined(parts={"heads": heads, "neurons": neurons}, budget=Latency()),
    ):
        model = wrapped(architecture)
        told = pruned(pruning, model, 0.3, architecture=architecture)
        assert told["reached"] == pytest.approx(model.model.num_parameters() / 1000)
        assert any(module.bias is not None for module in model.model.modules() if isinstance(module, torch.nn.Linear))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights(MlpNeurons):
    kind: ClassVar[Kind] = "weights"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "one part or more"),
        ({"one": share(MlpNeurons()), "two": share(MlpNeurons())}, "parts of different structures"),
        ({"one": share(Weights())}, "single weights are masked in matrices whose shapes"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(parts: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Combined(parts=parts)


@pytest.mark.parametrize(("key", "value"), [("weight", 0.0), ("most", 1.0), ("most", 0.0)])
def test_the_ranges_of_a_share(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{key}={value}: must be"):
        share(MlpNeurons(), **{key: value})
