"""Sliced equals masked: what is cut out of a model is what silencing those neurons in the dense model takes away."""

from __future__ import annotations

import copy
import functools
import pkgutil
import subprocess
import sys
from collections.abc import Sequence

import pytest
import torch
from architectures import ARCHITECTURES, HIDDEN, INTERMEDIATE, LAYERS, VOCABULARY, tiny_model
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from transformers import PreTrainedModel
from units import flags

import regraft.pruning
from regraft.__main__ import conf
from regraft.config.components import Allowed, build
from regraft.config.ranges import ConfigError
from regraft.interfaces import Allocation, Criterion, LanguageModel, PruningContext
from regraft.pruning.allocation.layerwise import Layerwise
from regraft.pruning.criteria.l1 import L1
from regraft.pruning.criteria.l2 import L2
from regraft.pruning.criteria.random import Random
from regraft.pruning.pruner import Pruner
from regraft.pruning.schedules.iterative import Iterative
from regraft.pruning.structures.mlp_neurons import MlpNeurons

DENSE = {"mlp_neurons": [INTERMEDIATE] * LAYERS}
MODELS = [(name, {}) for name in ARCHITECTURES] + [("llama", {"mlp_bias": True, "attention_bias": True})]
"""Every architecture, and biases where they are a choice; those of GPT-2 are not."""

dense_model = functools.cache(tiny_model)
"""A model that no test changes."""


def pruned(model: PreTrainedModel, pruner: Pruner, *sparsities: float, seed: int = 0) -> LanguageModel:
    """A copy of `model`, pruned once for each sparsity; the generator starts anew each time, as in a run."""
    language_model = LanguageModel(model=copy.deepcopy(model), tokenizer=None)  # type: ignore[arg-type]
    for sparsity in sparsities:
        context = PruningContext(generator=torch.Generator().manual_seed(seed))
        pruner.prune(language_model, DENSE, sparsity, context)
    return language_model


def mlp(criterion: Criterion, allocation: Allocation | None = None) -> Pruner:
    return Pruner(criterion=criterion, structure=MlpNeurons(), allocation=allocation or Layerwise())


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    tokens = torch.arange(3, 51).remainder(VOCABULARY).view(2, 24)
    return model(input_ids=tokens).logits


def silenced(model: PreTrainedModel, removed: Sequence[Sequence[int]]) -> torch.Tensor:
    """Logits of the dense model with the intermediate activations of `removed` set to zero."""
    names = ("mlp.down_proj", "mlp.c_proj")
    ways_back = [module for name, module in model.named_modules() if name.endswith(names)]
    assert len(ways_back) == len(removed)

    def silence(units, module, arguments):
        (activations,) = arguments
        activations = activations.clone()
        activations[..., list(units)] = 0
        return (activations,)

    hooks = [
        module.register_forward_pre_hook(functools.partial(silence, units))
        for module, units in zip(ways_back, removed, strict=True)
    ]
    try:
        return logits(model)
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("criterion", [L2(), L1(), Random()], ids=["l2", "l1", "random"])
@pytest.mark.parametrize(("architecture", "more"), MODELS)
def test_sliced_equals_masked(architecture: str, more: dict, criterion: Criterion) -> None:
    dense = tiny_model(architecture, **more)
    smaller = pruned(dense, mlp(criterion), 0.6)
    removed = smaller.removed["mlp_neurons"]
    assert [len(layer) for layer in removed] == [29] * LAYERS
    assert MlpNeurons().units(smaller.model) == [INTERMEDIATE - 29] * LAYERS
    torch.testing.assert_close(logits(smaller.model), silenced(dense, removed), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(logits(smaller.model), logits(dense), atol=1e-2)


@pytest.mark.parametrize(("architecture", "more"), MODELS)
def test_sliced_equals_masked_with_a_width_for_each_layer(architecture: str, more: dict) -> None:
    dense = tiny_model(architecture, **more)
    generator = torch.Generator().manual_seed(1)
    stays = [torch.randperm(INTERMEDIATE, generator=generator)[:width].tolist() for width in (48, 1, 17)]
    smaller = LanguageModel(model=copy.deepcopy(dense), tokenizer=None)  # type: ignore[arg-type]
    MlpNeurons().remove(smaller, [flags(INTERMEDIATE, kept) for kept in stays])
    assert MlpNeurons().units(smaller.model) == [48, 1, 17]
    removed = [tuple(sorted(set(range(INTERMEDIATE)) - set(kept))) for kept in stays]
    assert smaller.removed == {"mlp_neurons": tuple(removed)}
    torch.testing.assert_close(logits(smaller.model), silenced(dense, removed), atol=1e-5, rtol=1e-5)


@settings(max_examples=12, deadline=None)
@given(
    architecture=st.sampled_from(ARCHITECTURES),
    criterion=st.sampled_from([L2(), L1(projections=("up",), combine="max"), Random()]),
    steps=st.integers(2, 5),
    spacing=st.sampled_from(["linear", "geometric"]),
    sparsity=st.floats(0.05, 0.9),
    seed=st.integers(0, 5),
)
def test_pruning_in_steps_keeps_the_dense_numbering(
    architecture: str, criterion: Criterion, steps: int, spacing: str, sparsity: float, seed: int
) -> None:
    dense = dense_model(architecture)
    targets = Iterative(steps=steps, spacing=spacing).targets(sparsity)  # type: ignore[arg-type]
    stepwise = pruned(dense, mlp(criterion), *targets, seed=seed)
    removed = stepwise.removed["mlp_neurons"]
    assert all(list(layer) == sorted(set(layer)) for layer in removed)
    torch.testing.assert_close(logits(stepwise.model), silenced(dense, removed), atol=1e-5, rtol=1e-5)
    # no recovery in between: the scores of what is left do not move, so steps and one shot agree
    assert removed == pruned(dense, mlp(criterion), sparsity, seed=seed).removed["mlp_neurons"]


def test_a_later_step_scores_what_recovery_changed() -> None:
    model = pruned(dense_model("llama"), mlp(L2()), 0.25)
    first = set(model.removed["mlp_neurons"][0])
    left = sorted(set(range(INTERMEDIATE)) - first)
    layer = model.model.model.layers[0].mlp  # type: ignore[union-attr]
    for projection in (layer.gate_proj.weight, layer.up_proj.weight, layer.down_proj.weight.T):
        projection.data[-1] = 0  # the last neuron that is left dies
    mlp(L2()).prune(model, DENSE, 0.5, PruningContext(generator=torch.Generator()))
    second = set(model.removed["mlp_neurons"][0])
    assert first < second and left[-1] in second and len(second) == INTERMEDIATE // 2


def test_random_removes_other_units_with_another_seed_and_the_same_with_the_same() -> None:
    one, same, other = (pruned(dense_model("olmo2"), mlp(Random()), 0.5, seed=seed).removed for seed in (0, 0, 1))
    assert one == same != other


def test_a_higher_sparsity_removes_what_a_lower_one_does_and_more() -> None:
    for criterion in (L2(), Random()):
        low, high = (pruned(dense_model("qwen3"), mlp(criterion), sparsity).removed for sparsity in (0.3, 0.6))
        pairs = zip(low["mlp_neurons"], high["mlp_neurons"], strict=True)
        assert all(set(fewer) < set(more) for fewer, more in pairs)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sparsity_zero_changes_nothing(architecture: str) -> None:
    dense = dense_model(architecture)
    same = pruned(dense, mlp(L2()), 0.0)
    assert same.removed == {"mlp_neurons": ((),) * LAYERS}
    assert torch.equal(logits(same.model), logits(dense))
    assert same.model.config.to_dict() == dense.config.to_dict()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_left_keeps_its_kind(architecture: str) -> None:
    dense = tiny_model(architecture).to(torch.bfloat16)  # type: ignore[arg-type]
    for name, parameter in dense.named_parameters():
        parameter.requires_grad_("mlp" not in name)
    tied = dense.get_input_embeddings().weight is dense.get_output_embeddings().weight  # type: ignore[union-attr]
    smaller = pruned(dense, mlp(L2()), 0.5).model
    assert (smaller.get_input_embeddings().weight is smaller.get_output_embeddings().weight) == tied  # type: ignore[union-attr]
    left = dict(smaller.named_parameters())
    for name, parameter in dense.named_parameters():
        assert left[name].dtype == torch.bfloat16
        assert left[name].requires_grad == parameter.requires_grad
        assert left[name].is_contiguous()
        assert torch.equal(left[name], parameter) or "mlp" in name
    each = 2 if architecture == "gpt2" else 3
    fewer = sum(parameter.numel() for parameter in dense.parameters()) - smaller.num_parameters()
    assert fewer == LAYERS * INTERMEDIATE // 2 * (each * HIDDEN + (architecture == "gpt2"))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_pruned_model_trains(architecture: str) -> None:
    model = pruned(dense_model(architecture), mlp(L2()), 0.5).model.train()
    model(input_ids=torch.arange(1, 9)[None]).logits.logsumexp(-1).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.shape == parameter.shape, name


def test_the_modules_say_their_new_shape() -> None:
    llama = pruned(dense_model("llama"), mlp(L2()), 0.5).model
    assert llama.config.intermediate_size == 24
    block = llama.model.layers[0].mlp  # type: ignore[union-attr]
    assert (block.up_proj.out_features, block.down_proj.in_features) == (24, 24)
    gpt2 = pruned(dense_model("gpt2"), mlp(L2()), 0.5).model
    assert gpt2.config.n_inner == 24
    block = gpt2.transformer.h[0].mlp  # type: ignore[union-attr]
    assert (block.c_fc.nf, block.c_fc.nx, block.c_proj.nf, block.c_proj.nx) == (24, HIDDEN, HIDDEN, 24)


def test_widths_that_differ_leave_the_config_alone() -> None:
    model = LanguageModel(model=copy.deepcopy(dense_model("llama")), tokenizer=None)  # type: ignore[arg-type]
    MlpNeurons().remove(model, [flags(INTERMEDIATE, range(width)) for width in (3, 4, 5)])
    assert model.model.config.intermediate_size == INTERMEDIATE


def test_scores_that_are_not_finite_are_refused_before_anything_is_cut() -> None:
    model = LanguageModel(model=tiny_model("llama"), tokenizer=None)  # type: ignore[arg-type]
    model.model.model.layers[1].mlp.up_proj.weight.data[5, 5] = float("nan")  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="L2: a score in MLP of layer 1 is not finite"):
        mlp(L2()).prune(model, DENSE, 0.5, PruningContext(generator=torch.Generator()))
    assert MlpNeurons().left(model) == DENSE["mlp_neurons"] and not model.removed


def test_emptying_a_layer_cuts_nothing() -> None:
    model = LanguageModel(model=tiny_model("llama"), tokenizer=None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="sparsity=0.99"):
        mlp(L2()).prune(model, DENSE, 0.99, PruningContext(generator=torch.Generator()))
    assert MlpNeurons().left(model) == DENSE["mlp_neurons"] and not model.removed


def test_the_dense_model_of_a_copy_stays_whole() -> None:
    dense = tiny_model("gemma3")
    before = logits(dense)
    pruned(dense, mlp(L2()), 0.5)
    assert dense.config.intermediate_size == INTERMEDIATE and torch.equal(logits(dense), before)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], mlp(L2())),
        (["pruner/criterion=random"], mlp(Random())),
        (["pruner/criterion=l1", "pruner.criterion.combine=max"], mlp(L1(combine="max"))),
        (["pruner.criterion.projections=[down]"], mlp(L2(projections=("down",)))),
    ],
)
def test_the_command_line_builds_a_pruner(overrides: list[str], expected: Pruner) -> None:
    with initialize_config_dir(str(conf()), version_base="1.3"):
        config = compose(overrides=["+pruner=mlp", *overrides])
    plain = OmegaConf.to_container(config, resolve=True)
    assert build(plain, "", Allowed())["pruner"] == expected


def test_nothing_imports_torch_before_it_prunes() -> None:
    modules = [item.name for item in pkgutil.walk_packages(regraft.pruning.__path__, "regraft.pruning.")]
    assert "regraft.pruning.criteria.l2" in modules
    code = f"import sys, {', '.join(modules)}; assert not {{'torch', 'transformers', 'numpy'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
