"""A packed batch says the same as separate plain sequences, on every architecture."""

import pytest
import torch
from architectures import ARCHITECTURES, tiny_model
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Qwen3Config,
)

from regraft.interfaces import EncodedQuestion
from regraft.models.architecture import decoder_list
from regraft.models.forward import forward
from regraft.tasks.packing import pack

SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CONFIGS = {
    "llama": LlamaConfig(**SIZES),
    "olmo2": Olmo2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=8),
    "gemma3": Gemma3TextConfig(
        **SIZES,
        head_dim=8,
        sliding_window=5,
        layer_types=["sliding_attention", "full_attention"],
        final_logit_softcapping=2.0,
    ),
    "gpt2": GPT2Config(vocab_size=61, n_positions=64, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2),
    "mistral": MistralConfig(**SIZES, head_dim=8, sliding_window=4),
}
QUESTIONS = [
    EncodedQuestion(id="a", context=(5, 6, 7, 8, 9, 10, 11), choices=((12,), (13, 14, 15), (16, 17)), answer=1),
    EncodedQuestion(id="b", context=(20, 21, 22), choices=((23, 24), (25, 26, 27, 28)), answer=0),
    EncodedQuestion(id="c", context=(30,), choices=((31,), (32,)), answer=1),
]


def tiny(name, attention="sdpa"):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation=attention).eval()
    with torch.no_grad():  # initial weights are so small that a wrong mask could hide below the tolerance
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(std=0.3)
    return model


def separate(model, tokens):
    return model(input_ids=torch.tensor([tokens])).logits[0]


def expected_reads(model, reads, positions):
    """Logits at the read positions, in order, from one plain sequence for each choice."""
    rows = []
    for question in QUESTIONS:
        size = len(question.context)
        logits = separate(model, question.context)
        rows.extend(logits[: size - 1] if positions == "all" else [])
        rows.append(logits[size - 1])
        chosen = {"gold": [question.answer], "question": [], "choices": range(len(question.choices))}[reads]
        for choice in chosen:
            tokens = question.choices[choice]
            rows.extend(separate(model, question.context + tokens)[size : size + len(tokens) - 1])
    return torch.stack(rows)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_packed_logits_equal_those_of_separate_sequences(name, attention):
    model = tiny(name, attention)
    for reads in ("gold", "question", "choices"):
        for positions in ("answer", "all"):
            batch = pack(QUESTIONS, reads, positions, pad_token_id=0, labelled=True)
            logits = forward(model, batch).logits
            torch.testing.assert_close(logits, expected_reads(model, reads, positions), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_hidden_states_are_those_of_separate_sequences(name):
    model = tiny(name)
    batch = pack(QUESTIONS, "question", "answer", pad_token_id=0, labelled=False)
    states = forward(model, batch, {"hidden_states"}).hidden_states
    assert len(states) == 3
    for row, question in enumerate(QUESTIONS):
        plain = model(input_ids=torch.tensor([question.context]), output_hidden_states=True).hidden_states
        for packed, layer in zip(states, plain, strict=True):
            torch.testing.assert_close(packed[row], layer[0, -1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_equal_those_of_separate_sequences(name):
    model = tiny(name)
    batch = pack(QUESTIONS, "choices", "answer", pad_token_id=0, labelled=False)
    forward(model, batch).logits.logsumexp(-1).sum().backward()
    packed = {key: parameter.grad.clone() for key, parameter in model.named_parameters()}
    model.zero_grad()
    expected_reads(model, "choices", "answer").logsumexp(-1).sum().backward()
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(
            packed[key], parameter.grad, atol=1e-4, rtol=1e-3, msg=lambda text, key=key: key + text
        )


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", CONFIGS)
def test_training_step_under_bfloat16_autocast_is_finite_and_near(name, attention):
    model = tiny(name, attention).train()
    batch = pack(QUESTIONS, "choices", "all", pad_token_id=0, labelled=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = forward(model, batch).logits
    assert logits.shape == (batch.read.numel(), 61)
    logits.float().logsumexp(-1).mean().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    with torch.no_grad():
        exact = expected_reads(model.eval(), "choices", "all")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = forward(model, batch).logits.float()
    assert (rounded - exact).norm() / exact.norm() < 0.1


LOOKING = {
    **dict.fromkeys(("llama", "olmo2", "qwen3", "gpt2"), {}),
    "gemma3": {"sliding_window": 3, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
}


@pytest.mark.parametrize("name", LOOKING)
def test_attentions_look_where_they_may_and_change_nothing(name):
    """Rows of each head sum to 1, are 0 where nothing is seen, and logits, states and gradients are those of sdpa."""
    model = tiny_model(name, **LOOKING[name])
    batch = pack(QUESTIONS, "choices", "all", pad_token_id=0, labelled=False)
    plain, said = (forward(model, batch, {"hidden_states", *more}) for more in ((), ("attentions",)))
    assert model.config._attn_implementation == "sdpa"
    rows, columns = batch.read // batch.input_ids.shape[1], batch.read % batch.input_ids.shape[1]
    seen = batch.visible[:, 0][rows, columns]
    positions = batch.position_ids[rows]
    near = batch.position_ids.flatten()[batch.read][:, None] - positions < 3
    kinds = LOOKING[name].get("layer_types", ["full_attention"] * 3)
    assert len(said.attentions) == len(kinds) == 3
    for kind, attention in zip(kinds, said.attentions, strict=True):
        assert attention.shape == (len(batch.read), 4, batch.input_ids.shape[1])
        torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:2]), atol=1e-5, rtol=0)
        may = seen & near if kind == "sliding_attention" else seen
        assert not attention.masked_fill(may[:, None, :], 0.0).any()
        assert (attention.masked_fill(~may[:, None, :], 1.0) > 0).all()
    torch.testing.assert_close(said.logits, plain.logits, atol=1e-5, rtol=1e-5)
    for one, other in zip(said.hidden_states, plain.hidden_states, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    sum(attention.square().sum() for attention in said.attentions).backward()
    (first, *_, last) = model.get_decoder().parameters()
    assert first.grad is not None and first.grad.isfinite().all() and first.grad.any()
    assert last.grad is None  # the final norm comes after all attention


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_an_exit_says_what_a_model_of_so_many_layers_says(name):
    model = tiny_model(name)
    batch = pack(QUESTIONS, "choices", "all", pad_token_id=0, labelled=False)
    said = forward(model, batch, {"hidden_states"})
    assert torch.equal(said.after(3).logits, said.logits)
    for layers in (2, 1):
        del decoder_list(model)[layers]
        model.config.num_hidden_layers = layers
        assert torch.equal(said.after(layers).logits, forward(model, batch).logits)


def test_attention_without_a_mask_of_pairs_is_refused():
    model = tiny("llama")
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="sdpa or eager"):
        forward(model, pack(QUESTIONS, "question", "answer", pad_token_id=0, labelled=False))


def test_logits_scaled_after_the_head_are_refused():
    model = tiny("llama")
    model.config.logits_scaling = 8.0
    with pytest.raises(ValueError, match="logits_scaling=8.0"):
        forward(model, pack(QUESTIONS, "question", "answer", pad_token_id=0, labelled=False))
