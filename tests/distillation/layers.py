"""What losses that look inside are tested on: questions, and made-up outputs of models of two depths."""

from __future__ import annotations

import torch

from regraft.interfaces import Batch, EncodedQuestion, ModelOutputs
from regraft.tasks.packing import pack

QUESTIONS = [
    EncodedQuestion(id="a", context=(1, 2, 3), choices=((4, 5), (6,), (7, 8, 9)), answer=2),
    EncodedQuestion(id="b", context=(2, 1), choices=((5,), (6, 4)), answer=0),
    EncodedQuestion(id="c", context=(9,), choices=((5, 3), (2,)), answer=1),
]
VOCAB = 11


def batch(reads: str = "choices", positions: str = "answer", questions: int = 3) -> Batch:
    return pack(QUESTIONS[:questions], reads, positions, 0, labelled=False)  # type: ignore[arg-type]


def states(of: Batch, layers: int, hidden: int, seed: int) -> tuple[torch.Tensor, ...]:
    """Hidden states after the embedding and each layer: (reads, hidden) leaves."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        (2 * torch.randn(len(of.read), hidden, generator=generator)).requires_grad_() for _ in range(layers + 1)
    )


def looks(of: Batch, layers: int, heads: int, seed: int) -> tuple[torch.Tensor, ...]:
    """Attention scores of each layer, (reads, heads, seq) leaves; `attention` makes the maps."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(of.read), heads, of.input_ids.shape[1])
    return tuple(torch.randn(shape, generator=generator).requires_grad_() for _ in range(layers))


def attention(of: Batch, scores: torch.Tensor) -> torch.Tensor:
    """(reads, heads, seq): softmax over what each read position sees."""
    seen = of.visible[:, 0].flatten(0, 1)[of.read][:, None, :]
    return torch.softmax(scores.masked_fill(~seen, -torch.inf), dim=-1)


def outputs(
    of: Batch,
    *,
    hidden_states: tuple[torch.Tensor, ...] | None = None,
    attentions: tuple[torch.Tensor, ...] | None = None,
) -> ModelOutputs:
    return ModelOutputs(logits=torch.zeros(len(of.read), VOCAB), hidden_states=hidden_states, attentions=attentions)


def doubled(tensors: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """The same leaves in float64."""
    return tuple(tensor.detach().double().requires_grad_() for tensor in tensors)


def same_gradients(ours: tuple[torch.Tensor, ...], literal: tuple[torch.Tensor, ...]) -> None:
    for one, other in zip(ours, literal, strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None and other.grad is not None:
            torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-4, atol=1e-6)
