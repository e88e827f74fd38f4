"""Blocks are found by structure, and what is not known is refused with what was looked for and what was found."""

from __future__ import annotations

import pytest
import torch
from architectures import ARCHITECTURES, HIDDEN, INTERMEDIATE, LAYERS, VOCABULARY, tiny_model
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from regraft.models.architecture import Projection, attention_blocks, decoder_layers, mlp_blocks

SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
"""Sizes of architectures that nobody promised: they work by structure or are refused."""


def other(model_type: str, **overrides) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **(SMALL | overrides))).eval()


def names(model: PreTrainedModel, *modules: nn.Module | Projection | None) -> list[str]:
    """Where in the model these modules are, without the layer."""
    inner = [module.module if isinstance(module, Projection) else module for module in modules]
    where = {id(module): name for name, module in model.named_modules()}
    return [".".join(where[id(module)].split(".")[-2:]) for module in inner if module is not None]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_blocks_of_each_architecture(architecture: str) -> None:
    model = tiny_model(architecture)
    layers = decoder_layers(model)
    assert len(layers) == LAYERS == model.config.num_hidden_layers
    for layer, mlp, attention in zip(layers, mlp_blocks(model), attention_blocks(model), strict=True):
        inside = set(layer.modules())
        assert all(projection.module in inside for projection in mlp.projections.values())
        assert mlp.units == INTERMEDIATE
        assert mlp.up.shape == (INTERMEDIATE, HIDDEN) and mlp.down.shape == (HIDDEN, INTERMEDIATE)
        assert (attention.heads, attention.head_dim) == (4, 8)
        if architecture == "gpt2":
            assert names(model, mlp.gate, mlp.up, mlp.down) == ["mlp.c_fc", "mlp.c_proj"]
            assert names(model, attention.fused, attention.output) == ["attn.c_attn", "attn.c_proj"]
            assert attention.query is attention.key is attention.value is None
            assert attention.key_value_heads == 4
        else:
            assert names(model, mlp.gate, mlp.up, mlp.down) == ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
            found = names(model, attention.query, attention.key, attention.value, attention.output)
            assert found == [f"self_attn.{letter}_proj" for letter in "qkvo"]
            assert attention.fused is None and attention.key_value_heads == 2


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_square_block_is_told_apart_by_its_names(architecture: str) -> None:
    width = {"n_inner": HIDDEN} if architecture == "gpt2" else {"intermediate_size": HIDDEN, "num_key_value_heads": 4}
    model = tiny_model(architecture, **width)
    (mlp, *_), (attention, *_) = mlp_blocks(model), attention_blocks(model)
    assert names(model, mlp.up, mlp.down)[-1] == ("mlp.c_proj" if architecture == "gpt2" else "mlp.down_proj")
    assert names(model, attention.output) == ["attn.c_proj" if architecture == "gpt2" else "self_attn.o_proj"]
    assert attention.key_value_heads == 4


def test_heads_whose_width_is_not_the_hidden_size() -> None:
    (attention, *_) = attention_blocks(tiny_model("qwen3", head_dim=16, num_key_value_heads=1))
    assert (attention.heads, attention.key_value_heads, attention.head_dim) == (4, 1, 16)


@pytest.mark.parametrize(
    ("model_type", "overrides", "gated"),
    [
        ("mistral", {"intermediate_size": 48, "num_key_value_heads": 2}, True),
        ("qwen2", {"intermediate_size": 48, "num_key_value_heads": 2}, True),
        ("gpt_neox", {"intermediate_size": 48}, False),
        ("opt", {"ffn_dim": 48, "word_embed_proj_dim": 32}, False),
    ],
)
def test_models_of_the_same_build_work_though_nobody_named_them(model_type: str, overrides: dict, gated: bool) -> None:
    model = other(model_type, **overrides)
    assert [block.units for block in mlp_blocks(model)] == [48, 48]
    assert all((block.gate is not None) == gated for block in mlp_blocks(model))
    assert [(block.heads, block.head_dim) for block in attention_blocks(model)] == [(4, 8), (4, 8)]


def test_a_fused_gate_is_refused_with_what_was_found() -> None:
    model = other("phi3", intermediate_size=48, num_key_value_heads=2)
    with pytest.raises(ValueError) as refused:
        mlp_blocks(model)
    message = str(refused.value)
    for part in ("Phi3ForCausalLM", "Phi3DecoderLayer", "fused", "mlp.gate_up_proj Linear (96, 32)", "OLMo2"):
        assert part in message
    # the fused attention of the same model is known
    assert [block.key_value_heads for block in attention_blocks(model)] == [2, 2]


def test_experts_are_refused() -> None:
    experts = {"num_local_experts": 3, "intermediate_size": 48, "num_key_value_heads": 2}
    with pytest.raises(ValueError, match="experts, are not known. Found self_attn.q_proj"):
        mlp_blocks(other("mixtral", **experts))


def test_a_longer_list_inside_a_layer_is_not_taken_for_the_layers() -> None:
    model = tiny_model("llama")
    for layer in model.model.layers:  # type: ignore[union-attr]
        layer.adapters = nn.ModuleList(nn.Linear(HIDDEN, HIDDEN) for _ in range(2 * LAYERS))
    assert decoder_layers(model) == list(model.model.layers)  # type: ignore[union-attr]
    assert [block.units for block in mlp_blocks(model)] == [INTERMEDIATE] * LAYERS


def test_a_model_without_layers_is_refused() -> None:
    model = tiny_model("llama")
    model.model.layers = nn.Sequential(*model.model.layers)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="list of like decoder layers. Found embed_tokens Embedding"):
        decoder_layers(model)


def test_a_projection_reads_the_same_in_either_layout() -> None:
    model = tiny_model("gpt2")
    (mlp, *_) = mlp_blocks(model)
    states = torch.randn(5, HIDDEN)
    expected = states @ mlp.up.weight.T + mlp.up.module.bias  # type: ignore[operator]
    torch.testing.assert_close(mlp.up.module(states), expected)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_cutting_inputs_and_outputs(architecture: str) -> None:
    model = tiny_model(architecture, **({"mlp_bias": True} if architecture == "llama" else {}))
    (mlp, *_) = mlp_blocks(model)
    keep = torch.tensor([0, 3, 47])
    states = torch.randn(5, HIDDEN)
    outputs = mlp.up.module(states)[:, keep]
    mlp.up.cut(keep, inputs=False)
    torch.testing.assert_close(mlp.up.module(states), outputs)
    inputs = torch.zeros(5, INTERMEDIATE)
    inputs[:, keep] = torch.randn(5, 3)
    outputs = mlp.down.module(inputs)
    mlp.down.cut(keep, inputs=True)
    torch.testing.assert_close(mlp.down.module(inputs[:, keep]), outputs)
    assert mlp.down.module.bias.shape == (HIDDEN,)  # type: ignore[union-attr]
