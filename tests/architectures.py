"""Models of a few thousand parameters, one for each architecture that Regraft promises to handle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ARCHITECTURES = ("llama", "olmo2", "qwen3", "gemma3", "gpt2")
VOCABULARY = 97
HIDDEN = 32
INTERMEDIATE = 48
LAYERS = 3


def tiny_model(architecture: str, *, seed: int = 0, layers: int = LAYERS, **overrides: Any) -> PreTrainedModel:
    """A random model in evaluation mode and fp32: 4 query heads and, but for GPT-2, 2 key-value heads.

    Norms and biases are moved off their neutral initial values, so that a mistake in them shows.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shape: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    if architecture == "gpt2":
        shape |= {"n_embd": HIDDEN, "n_inner": INTERMEDIATE, "n_layer": layers, "n_head": 4, "n_positions": 128}
    else:
        shape |= {
            "hidden_size": HIDDEN,
            "intermediate_size": INTERMEDIATE,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128,
        }
    if architecture in ("qwen3", "gemma3"):
        shape |= {"head_dim": 8}
    if architecture == "gemma3":
        shape |= {"sliding_window": 16, "query_pre_attn_scalar": 8}
    model_type = {"gemma3": "gemma3_text"}.get(architecture, architecture)
    config = AutoConfig.for_model(model_type, **(shape | overrides))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.data.add_(0.1 * torch.randn_like(parameter))
            else:
                parameter.data.normal_(std=0.15)
    return model
