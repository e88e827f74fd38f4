"""Channels of the residual stream: the hidden size.

A channel is a column of the embedding and of the head, a row of every matrix that writes to the residual stream, a
column of every matrix that reads from it, and a weight of each norm in between (Minitron, arXiv 2407.14679).

An RMS norm then runs over the channels that are left, with their weights as they were: what is left computes as the
dense model does with these channels at zero and left out of each mean of squares. A norm that subtracts a mean
(LayerNorm) is refused: there a channel at zero comes out as something else, so that nothing is equal to removing it.

Some models scale their embeddings by the root of the hidden size (Gemma). The scale stays that of the dense model: what
a smaller config would scale less is put into the embedding's weights, and taken out again before the head by the
weights of the last norm, since the head may be the same table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from regraft.interfaces import Group, Kind, Part
from regraft.pruning.structures.cut import Cut

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Hidden(Cut):
    """Channels of the residual stream, removed for real: one group that spans the model."""

    kind: ClassVar[Kind] = "hidden"
    matrices: ClassVar[tuple[str, ...]] = (
        *("embedding", "head"),
        *("query", "key", "value", "output"),
        *("gate", "up", "down"),
    )

    name: str = "hidden"
    """Name of the structure in records."""

    def groups(self, model: PreTrainedModel) -> list[Group]:
        """One: `embedding`, `output` and `down` write a channel, the other matrices read it, the norms scale it.

        A head that is tied to the embedding is no part of its own, so it is not among the group's readers.
        """
        size = model.config.get_text_config().hidden_size
        return [Group(name="residual stream", units=size, parts=tuple(_parts(model, size)))]

    def check(self, model: PreTrainedModel) -> None:
        size = model.config.get_text_config().hidden_size
        parts = _parts(model, size)
        for part in parts:
            found = part.parameter.shape[part.dimension]
            if found != size:
                raise ValueError(
                    f"{type(model).__name__}: {part.name} has {found} channels where the residual stream has {size}, "
                    "so what belongs to a channel is not known. Choose another model or pruner/structure."
                )
        for part in parts:
            if part.side == "scales" and part.attribute == "weight" and not _leaves_zero_at_zero(part.module, size):
                raise ValueError(
                    f"{type(model).__name__}: {type(part.module).__name__} subtracts the mean of all channels or adds "
                    "a bias, so a channel at zero is not one that is gone, and no smaller model equals the masked "
                    "one. Choose a model with RMS norms (Llama, OLMo2, Qwen3, Gemma3) or another pruner/structure."
                )
        if not _enters_as_embedded(model) or (_scale(model.get_input_embeddings()) != 1 and _last_norm(model) is None):
            raise ValueError(
                f"{type(model).__name__}: what is done to the embeddings before the first layer, or to the residual "
                "stream after the last, is not known. Choose another model or pruner/structure."
            )
        known = {id(part.parameter) for part in parts} | _inside_blocks(model)
        unknown = [name for name, parameter in model.named_parameters() if id(parameter) not in known]
        if unknown:
            raise ValueError(
                f"{type(model).__name__}: it is not known what a channel of the residual stream owns of "
                f"{', '.join(unknown[:5])}. Choose another model or pruner/structure."
            )

    def resize(self, model: PreTrainedModel) -> None:
        """The config follows, and with it what is computed from the hidden size."""
        from regraft.models.architecture import attention_blocks
        from regraft.models.surgery import tell_size

        embedding: Any = model.get_input_embeddings()
        head: Any = model.get_output_embeddings()
        config = model.config.get_text_config()
        if head is not None and head.weight.shape[1] != embedding.weight.shape[1]:
            # the table was shared, and has been cut under its other name
            head.weight = embedding.weight
            tell_size(head)
        if config.hidden_size != embedding.weight.shape[1]:
            config.hidden_size = embedding.weight.shape[1]
            config.head_dim = attention_blocks(model)[0].head_dim
            _keep_scale(model)


def _parts(model: PreTrainedModel, size: int) -> list[Part]:
    from torch import nn

    from regraft.models.architecture import attention_blocks, mlp_blocks
    from regraft.models.surgery import consecutive, owned

    index = consecutive(size)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tables: list[tuple[str, Any, Literal["writes", "reads"]]] = [("embedding", embedding, "writes")]
    if head is not None and head.weight is not embedding.weight:
        tables.append(("head", head, "reads"))
    parts = [
        Part(name=name, module=module, attribute="weight", dimension=1, index=index, side=side)
        for name, module, side in tables
    ]
    attention, mlp = attention_blocks(model), mlp_blocks(model)
    for block, feed_forward in zip(attention, mlp, strict=True):
        for name, projection in {**block.inward, **feed_forward.projections, "output": block.output}.items():
            parts += owned(name, projection, index, "writes" if name in ("output", "down") else "reads")
    inside = {id(module) for block in attention for module in block.module.modules()}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if id(module) not in inside and isinstance(weight, nn.Parameter) and weight.ndim == 1:
            parts += [
                Part(name=name, module=module, attribute=attribute, dimension=0, index=index, side="scales")
                for attribute in ("weight", "bias")
                if getattr(module, attribute, None) is not None
            ]
    return parts


def _inside_blocks(model: PreTrainedModel) -> set[int]:
    """Parameters that know nothing of the residual stream: biases of what reads it, norms of queries and keys."""
    from regraft.models.architecture import attention_blocks, mlp_blocks

    inside = set()
    for block, feed_forward in zip(attention_blocks(model), mlp_blocks(model), strict=True):
        inward = [*block.inward.values(), feed_forward.up, *([feed_forward.gate] if feed_forward.gate else [])]
        inside |= {id(projection.module.bias) for projection in inward}
        inside |= {id(parameter) for norm in block.norms.values() for parameter in norm.parameters()}
    return inside


def _leaves_zero_at_zero(norm: nn.Module, size: int) -> bool:
    """Whether a channel at zero comes out at zero whatever the others are."""
    import torch

    weight: Any = norm.weight
    states = torch.linspace(1, 2, size, dtype=weight.dtype, device=weight.device)[None].clone()
    states[:, 0] = 0
    with torch.no_grad():
        return not norm(states)[:, 0].any()


def _scale(embedding: Any) -> float:
    """What the embedding multiplies its table by."""
    import torch

    ones = torch.ones(embedding.weight.shape[0], 1, device=embedding.weight.device)
    row = torch.zeros(1, dtype=torch.long, device=ones.device)
    with torch.no_grad():
        return float(torch.func.functional_call(embedding, {"weight": ones}, (row,)))


def _enters_as_embedded(model: PreTrainedModel) -> bool:
    """Whether the first layer gets what the embedding gives."""
    import torch

    from regraft.models.architecture import decoder_layers

    embedding = model.get_input_embeddings()
    seen: list[Any] = []
    hooks = [
        embedding.register_forward_hook(lambda module, arguments, output: seen.append(output)),
        decoder_layers(model)[0].register_forward_pre_hook(
            lambda module, arguments, named: seen.append(arguments[0] if arguments else named["hidden_states"]),
            with_kwargs=True,
        ),
    ]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(input_ids=torch.zeros(1, 2, dtype=torch.long, device=model.device), use_cache=False)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    embedded, entered = seen
    return torch.equal(embedded, entered)


def _last_norm(model: PreTrainedModel) -> Any:
    """The one norm that lies in no decoder layer, or None."""
    from regraft.models.architecture import decoder_layers

    inside = {id(module) for layer in decoder_layers(model) for module in layer.modules()}
    found = [
        part.module
        for part in _parts(model, model.config.get_text_config().hidden_size)
        if part.side == "scales" and part.attribute == "weight" and id(part.module) not in inside
    ]
    return found[0] if len(found) == 1 else None


def _keep_scale(model: PreTrainedModel) -> None:
    """Have the config's own scale of the embedding, and the function that the model had."""
    import torch

    from regraft.models.surgery import rebuilt

    embedding: Any = model.get_input_embeddings()
    before = _scale(embedding)
    if before == 1:
        return
    rows = (embedding.padding_idx or 0) + 1
    made = rebuilt(model, "cpu", num_hidden_layers=0, vocab_size=rows).get_input_embeddings()
    factor = before / _scale(made)
    for name, buffer in made.named_buffers():
        embedding.get_buffer(name).copy_(buffer)
    for name, value in vars(made).items():
        if isinstance(value, float):
            setattr(embedding, name, value)
    with torch.no_grad():
        embedding.weight.mul_(factor)
        head: Any = model.get_output_embeddings()
        if head is not None and head.weight is embedding.weight:
            weight = _last_norm(model).weight
            offset = _offset(_last_norm(model))
            weight.copy_((weight.double() + offset) / factor - offset)


def _offset(norm: Any) -> int:
    """1 if the norm multiplies by 1 + weight, 0 if by its weight."""
    import torch

    zeros = torch.zeros_like(norm.weight)
    with torch.no_grad():
        output = torch.func.functional_call(norm, {"weight": zeros}, (torch.ones_like(zeros)[None],))
    return int(output.any())
