"""What a training computes, in floating-point operations (FLOPs), and how many tokens it reads.

A multiply-accumulate is two FLOPs. A forward pass over n positions, of which p pairs see each other and r are read, is

    F = 2 (M n + A p + H r)

with M the weights of all linear maps but the head, A = 2 heads head_dim summed over the layers (scores and values), and
H the weights of the head, tied or not. The backward pass computes the gradient of each product's inputs, as much again,
2 A p for the two products of attention, and the gradient of each matrix that is trained; with gradient checkpointing
the layers' forward pass is made once more:

    B = 2 (M n + 2 A p + H r) + 2 (M_trained n + H_trained r) [+ 2 (M n + A p)]

So F + B = 3 F where all is trained, 4 F but for the head with checkpointing, and about 2 F with adapters.

Counted is what the method needs: padding is not, nor are pairs that the mask hides, though the machine computes both;
the head is counted at every position that the batch reads. Left out, as is usual: norms, activations, biases, softmax,
embedding look-ups, the loss itself, the optimizer, and what a sliding window or a mask of weights would save.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from regraft.interfaces import Batch


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much there is to compute in a batch."""

    positions: int
    """n, without padding."""
    pairs: int
    """p, of positions of which the first sees the second."""
    reads: int
    """r."""

    @classmethod
    def of(cls, batch: Batch) -> Extent:
        visible = batch.visible[:, 0]
        positions = int(visible.diagonal(dim1=1, dim2=2).sum())
        # padding sees the row's first token, so that no query is without a key
        padding = visible.shape[0] * visible.shape[1] - positions
        return cls(positions=positions, pairs=int(visible.sum()) - padding, reads=len(batch.read))


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Multiply-accumulates of a model."""

    position: int
    """M, at each position."""
    pair: int
    """A, at each pair."""
    read: int
    """H, at each position that is read."""
    position_trained: int
    read_trained: int

    @classmethod
    def of(cls, model: PreTrainedModel, pair: int | None = None) -> Cost:
        """The cost of `model` as it is, adapters included.

        Args:
            model: On any device, also on meta.
            pair: A, for a model whose attention cannot be seen through its adapters.

        Raises:
            ValueError: The model's attention is of no known form.
        """
        from regraft.models.architecture import is_linear

        head: Any = model.get_output_embeddings()
        maps: list[Any] = [module for module in model.modules() if is_linear(module) and module is not head]
        return cls(
            position=sum(each.weight.numel() for each in maps),
            pair=attended(model) if pair is None else pair,
            read=head.weight.numel(),
            position_trained=sum(each.weight.numel() for each in maps if each.weight.requires_grad),
            read_trained=head.weight.numel() if head.weight.requires_grad else 0,
        )

    def forward(self, extent: Extent) -> int:
        """F."""
        return 2 * (self.position * extent.positions + self.pair * extent.pairs + self.read * extent.reads)

    def training(self, extent: Extent, *, recomputes: bool) -> int:
        """F + B."""
        inputs = self.forward(extent) + 2 * self.pair * extent.pairs
        matrices = 2 * (self.position_trained * extent.positions + self.read_trained * extent.reads)
        again = 2 * (self.position * extent.positions + self.pair * extent.pairs) if recomputes else 0
        return self.forward(extent) + inputs + matrices + again


def attended(model: PreTrainedModel) -> int:
    """A: multiply-accumulates of all layers' attention at a pair of positions."""
    from regraft.models.architecture import attention_blocks

    return sum(2 * block.heads * block.head_dim for block in attention_blocks(model))


class Ledger:
    """Sums up the forward passes that are made while it counts, of packed batches and of texts that are written.

    A pass with graph is a student's, and its backward pass is counted with it; one without is a teacher's, also where
    the student writes what it will learn from.

    Args:
        recomputes: Whether backward passes make the layers' forward pass again.
    """

    def __init__(self, *, recomputes: bool = False) -> None:
        self.recomputes = recomputes
        self.tokens = self.teacher_tokens = 0
        self.flops = self.teacher_flops = 0
        self._known: WeakKeyDictionary[PreTrainedModel, Cost] = WeakKeyDictionary()

    def know(self, model: PreTrainedModel, cost: Cost) -> None:
        """What a model costs that cannot be seen by itself."""
        self._known[model] = cost

    def passed(self, model: PreTrainedModel, extent: Extent) -> None:
        """`model` has read so much."""
        import torch

        if model not in self._known:
            self._known[model] = Cost.of(model)
        cost = self._known[model]
        if torch.is_grad_enabled():
            self.tokens += extent.positions
            self.flops += cost.training(extent, recomputes=self.recomputes)
        else:
            self.teacher_tokens += extent.positions
            self.teacher_flops += cost.forward(extent)

    def taken(self) -> tuple[int, int, int, int]:
        """Tokens, the teacher's tokens, FLOPs and the teacher's FLOPs since this was asked last."""
        told = (self.tokens, self.teacher_tokens, self.flops, self.teacher_flops)
        self.tokens = self.teacher_tokens = self.flops = self.teacher_flops = 0
        return told

    def computed(self, multiply_accumulates: int) -> None:
        """A teacher has computed this without a forward pass."""
        self.teacher_flops += 2 * multiply_accumulates


_counting: ContextVar[Ledger | None] = ContextVar("counting", default=None)


@contextmanager
def counted(ledger: Ledger) -> Iterator[Ledger]:
    """While the block runs `ledger` counts, and no other."""
    token = _counting.set(ledger)
    try:
        yield ledger
    finally:
        _counting.reset(token)


def ledger() -> Ledger | None:
    """The one that counts now."""
    return _counting.get()
