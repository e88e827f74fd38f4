"""Weights drawn anew: as the architecture draws them, by a seed, whatever was cut or masked."""

from __future__ import annotations

import pytest
import torch
from architectures import ARCHITECTURES, tiny_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from regraft.interfaces import LanguageModel, PruningContext
from regraft.models.initialise import initialise
from regraft.pruning.allocation.layerwise import Layerwise
from regraft.pruning.criteria.l2 import L2
from regraft.pruning.pruner import Pruner
from regraft.pruning.structures.mlp_neurons import MlpNeurons


def language_model(model: PreTrainedModel) -> LanguageModel:
    return LanguageModel(model=model, tokenizer=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_uncut_model_gets_what_its_architecture_draws(architecture: str) -> None:
    model = tiny_model(architecture)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        fresh = AutoModelForCausalLM.from_config(model.config)
        torch.manual_seed(7)
        fresh.apply(lambda module: setattr(module, "_is_hf_initialized", False))
        fresh.init_weights()
    initialise(language_model(model), 7)
    state = model.state_dict()
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(state[name], tensor), name


def test_a_cut_model_keeps_its_shape_and_is_drawn_by_the_seed_alone() -> None:
    states = []
    for trained, seed in ((0, 3), (5, 3), (0, 4)):
        model = language_model(tiny_model("olmo2", seed=trained))
        pruner = Pruner(criterion=L2(), structure=MlpNeurons(), allocation=Layerwise())
        pruner.prune(model, pruner.left(model), 0.5, PruningContext(generator=torch.Generator()))
        before = torch.get_rng_state()
        initialise(model, seed)
        assert torch.equal(torch.get_rng_state(), before)
        states.append(model.model.state_dict())
    up = "model.layers.0.mlp.up_proj.weight"
    assert states[0][up].shape == (24, 32)
    assert float(states[0][up].std()) == pytest.approx(0.02, rel=0.15)
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert not torch.equal(states[0][up], states[2][up])


def test_what_is_loaded_or_masked_is_drawn_too_and_masks_hold(tmp_path) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    model = language_model(AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16))
    name = "model.layers.1.mlp.gate_proj.weight"
    before = {key: tensor.clone() for key, tensor in model.model.state_dict().items()}
    mask = torch.rand(48, 32) > 0.5
    model.masks[name] = mask
    initialise(model, 0)
    after = model.model.state_dict()
    assert not after[name][~mask].any() and after[name][mask].all()
    for key, tensor in after.items():
        assert tensor.dtype == torch.bfloat16
        # norms begin at one, embeddings may share their table
        assert not torch.equal(tensor, before[key]), key
