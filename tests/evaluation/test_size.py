"""Sizes against independent counts: by hand, by transformers, and by torch's counter of operations."""

from __future__ import annotations

import copy

import pytest
import torch
from architectures import ARCHITECTURES, HIDDEN, INTERMEDIATE, LAYERS, VOCABULARY, tiny_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from regraft.evaluation.size import measure
from regraft.interfaces import LanguageModel
from regraft.pruning.structures.mlp_neurons import MlpNeurons


def as_language_model(model: PreTrainedModel) -> LanguageModel:
    return LanguageModel(model=model, tokenizer=None)  # type: ignore[arg-type]


def operations(model: PreTrainedModel, tokens: int) -> int:
    """Floating-point operations of one forward pass over `tokens` tokens, as torch counts them."""
    model.set_attn_implementation("eager")  # the counter sees no fused attention on the CPU
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(input_ids=torch.arange(tokens)[None], use_cache=False)
    return counter.get_total_flops()


def cut(model: PreTrainedModel, *widths: int) -> PreTrainedModel:
    smaller = copy.deepcopy(model)
    MlpNeurons().remove(as_language_model(smaller), [torch.arange(INTERMEDIATE) < width for width in widths])
    return smaller


MODELS = [(name, {}) for name in ARCHITECTURES] + [
    ("qwen3", {"head_dim": 16}),
    ("llama", {"num_key_value_heads": 1, "tie_word_embeddings": True}),
]


@pytest.mark.parametrize("widths", [(48, 48, 48), (20, 20, 20), (1, 30, 48)])
@pytest.mark.parametrize(("architecture", "more"), MODELS)
def test_macs_are_those_that_torch_counts(architecture: str, more: dict, widths: tuple[int, ...]) -> None:
    # without a causal discount each of T tokens attends to T: T times the last one's work, two operations a MAC
    model = cut(tiny_model(architecture, **more), *widths)
    for tokens in (1, 12):
        assert 2 * tokens * measure(model, tokens).macs_per_token == operations(model, tokens)


def test_macs_by_hand() -> None:
    attention = HIDDEN * 32 + 2 * HIDDEN * 16 + 32 * HIDDEN  # query; key and value of half the heads; output
    for context in (1, 100):
        expected = LAYERS * (attention + 3 * HIDDEN * INTERMEDIATE + 2 * context * 4 * 8) + VOCABULARY * HIDDEN
        size = measure(tiny_model("llama"), context)
        assert (size.macs_per_token, size.context) == (expected, context)


@pytest.mark.parametrize(("architecture", "more"), MODELS)
def test_parameters_and_bytes(architecture: str, more: dict) -> None:
    model = tiny_model(architecture, **more)
    size = measure(model, 10)
    assert size.parameters == model.num_parameters()
    assert (size.bytes, size.bits) == (4 * size.parameters, 32)
    tables = VOCABULARY * HIDDEN * (1 if model.config.tie_word_embeddings else 2)
    positions = 128 * HIDDEN if architecture == "gpt2" else 0
    assert size.non_embedding_parameters == size.parameters - tables - positions
    half = measure(model.to(torch.bfloat16), 10)  # type: ignore[arg-type]
    assert (half.bytes, half.bits) == (2 * size.parameters, 16)


def test_pruning_takes_exactly_its_neurons_away() -> None:
    dense = tiny_model("llama")
    before, after = measure(dense, 10), measure(cut(dense, 40, 30, 48), 10)
    gone = (8 + 18) * 3 * HIDDEN
    assert before.parameters - after.parameters == gone
    assert before.non_embedding_parameters - after.non_embedding_parameters == gone
    assert before.macs_per_token - after.macs_per_token == gone


def test_olmo2_7b_by_its_config_alone() -> None:
    config = AutoConfig.for_model(
        "olmo2",
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        vocab_size=100352,
        tie_word_embeddings=False,
        pad_token_id=100277,
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    dense = measure(model, 100)
    assert dense.parameters == pytest.approx(7.298e9, rel=1e-3)
    neurons = 32 * 3 * 4096 * 11008
    assert neurons / dense.parameters == pytest.approx(0.593, abs=5e-4)
    assert dense.parameters - dense.non_embedding_parameters == 2 * 100352 * 4096
    MlpNeurons().remove(as_language_model(model), [torch.arange(11008) < 11008 // 2] * 32)
    half = measure(model, 100)
    assert half.parameters == dense.parameters - neurons // 2
    assert half.parameters / dense.parameters == pytest.approx(0.703, abs=5e-4)
