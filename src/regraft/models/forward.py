"""The forward pass of a packed batch: logits only where they count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regraft.interfaces import Batch, ModelOutputs

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

UNSUPPORTED_SCALES = ("logits_scaling", "logit_scale", "lm_head_multiplier")
"""Settings of a few architectures that scale the logits after the head, which this forward pass does not do."""


def forward(model: PreTrainedModel, batch: Batch, hidden_states: bool = False) -> ModelOutputs:
    """What `model` says at the positions that `batch` reads.

    The head is applied to the read positions only, which are few. Runs with or without gradient and under autocast.

    Args:
        model: Any causal language model of transformers with `sdpa` or `eager` attention.
        batch: On the model's device.
        hidden_states: Whether to return those of every layer as well; the last one is after the final norm.

    Raises:
        ValueError: The model's attention takes no mask of pairs, or its head is followed by a scale.
    """
    import torch

    config = model.config.get_text_config()
    for name in UNSUPPORTED_SCALES:
        if (getattr(config, name, None) or 1) != 1:
            raise ValueError(
                f"{config.model_type}: {name}={getattr(config, name)} is not supported. Use another model."
            )
    outputs = model.base_model(
        input_ids=batch.input_ids,
        attention_mask=_attention_mask(model, batch),
        position_ids=batch.position_ids,
        use_cache=False,
        output_hidden_states=hidden_states,
        return_dict=True,
    )

    def at_reads(states: torch.Tensor) -> torch.Tensor:
        return states.flatten(0, 1).index_select(0, batch.read)

    logits = model.get_output_embeddings()(at_reads(outputs.last_hidden_state))
    cap = getattr(config, "final_logit_softcapping", None)
    if cap is not None:
        logits = torch.tanh(logits / cap) * cap
    layers = tuple(at_reads(states) for states in outputs.hidden_states) if hidden_states else None
    return ModelOutputs(logits=logits, hidden_states=layers)


def _attention_mask(model: PreTrainedModel, batch: Batch) -> Any:
    """The mask as the architecture wants it: one, or one for each type of layer."""
    config = model.config.get_text_config()
    window: int | None = getattr(config, "sliding_window", None)
    layer_types = set(getattr(config, "layer_types", None) or ())
    if "sliding_attention" in layer_types:
        assert window is not None, "layers with a sliding window have a width of it"
        return {
            "full_attention": _for_attention(model, batch.visible),
            "sliding_attention": _for_attention(model, _within(batch, window)),
        }
    visible = _within(batch, window) if window is not None and not layer_types else batch.visible
    return _for_attention(model, visible)


def _within(batch: Batch, window: int) -> torch.Tensor:
    """Visible pairs (batch, 1, seq, seq) fewer than `window` positions apart."""
    distance = batch.position_ids[:, None, :, None] - batch.position_ids[:, None, None, :]
    return batch.visible & (distance < window)


def _for_attention(model: PreTrainedModel, visible: torch.Tensor) -> torch.Tensor:
    import torch

    implementation = model.config._attn_implementation
    if implementation == "sdpa":
        return visible
    if implementation == "eager":
        mask = torch.zeros(visible.shape, dtype=model.dtype, device=visible.device)
        return mask.masked_fill_(~visible, torch.finfo(model.dtype).min)
    raise ValueError(f"Attention {implementation} takes no mask of pairs. Load the model with sdpa or eager attention.")
