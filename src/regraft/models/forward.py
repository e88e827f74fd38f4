"""The forward pass of a packed batch: logits only where they count, and when they are asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from regraft.interfaces import Batch, Head, LossNeed, ModelOutputs
from regraft.models import cost
from regraft.models.architecture import final_norm

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

UNSUPPORTED_SCALES = ("logits_scaling", "logit_scale", "lm_head_multiplier")
"""Settings of a few architectures that scale the logits after the head, which this forward pass does not do."""


def forward(model: PreTrainedModel, batch: Batch, needs: Collection[LossNeed] = ()) -> ModelOutputs:
    """What `model` says at the positions that `batch` reads.

    The head is applied to the read positions only, when somebody asks for logits. Runs with or without gradient and
    under autocast.

    Args:
        model: Any causal language model of transformers with `sdpa` or `eager` attention.
        batch: On the model's device.
        needs: What a loss asks for besides logits: `hidden_states`, `attentions`.

    Raises:
        ValueError: The model's attention takes no mask of pairs, or its head is followed by a scale.
    """
    from torch import nn

    config = model.config.get_text_config()
    for name in UNSUPPORTED_SCALES:
        if (getattr(config, name, None) or 1) != 1:
            raise ValueError(
                f"{config.model_type}: {name}={getattr(config, name)} is not supported. Use another model."
            )
    hidden_states, attentions = "hidden_states" in needs, "attentions" in needs
    with _eager(model) if attentions else nullcontext():
        outputs = model.base_model(
            input_ids=batch.input_ids,
            attention_mask=_attention_mask(model, batch),
            position_ids=batch.position_ids,
            use_cache=False,
            output_hidden_states=hidden_states,
            output_attentions=attentions,
            return_dict=True,
        )

    if (counts := cost.ledger()) is not None:
        counts.passed(model, cost.Extent.of(batch))

    def at_reads(states: torch.Tensor) -> torch.Tensor:
        return states.flatten(0, 1).index_select(0, batch.read)

    def looked(attention: torch.Tensor) -> torch.Tensor:
        """(batch, heads, seq, seq) -> (reads, heads, seq)."""
        return at_reads(attention.transpose(1, 2))

    module: Any = model.get_output_embeddings()
    states = at_reads(outputs.last_hidden_state)
    assert module is not None
    head = _head(model, module)
    # a head that somebody watches is applied here, and one that is no plain linear map
    watched = type(module) is not nn.Linear or module._forward_pre_hooks or module._forward_hooks
    return ModelOutputs(
        states=states,
        head=head,
        logits=head.capped(module(states)) if watched else None,
        hidden_states=tuple(map(at_reads, outputs.hidden_states)) if hidden_states else None,
        attentions=tuple(map(looked, outputs.attentions)) if attentions else None,
        norm=final_norm(model) if hidden_states else None,
    )


def _head(model: PreTrainedModel, module: Any) -> Head:
    import torch

    from regraft.models.precision import computed_in

    weight, bias = module.weight, getattr(module, "bias", None)
    if not torch.is_grad_enabled():
        weight, bias = weight.detach(), None if bias is None else bias.detach()
    return Head(
        weight=weight,
        bias=bias,
        softcap=getattr(model.config.get_text_config(), "final_logit_softcapping", None),
        dtype=computed_in(weight),
    )


@contextmanager
def _eager(model: PreTrainedModel) -> Iterator[None]:
    """Attention that tells where it looks."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


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
