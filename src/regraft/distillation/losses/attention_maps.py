"""Where the layers look: TinyBERT (Jiao et al. 2019, arXiv 1909.10351), MiniLM (Wang et al. 2020, arXiv 2002.10957).

    a_m = mean over heads of softmax(q k / sqrt(d)),   a distribution over the positions that are seen
    L = mean over positions t and pairs (m, g(m)) of d(a_student,m,t, a_teacher,g(m),t)

    kl:  d(q, p) = sum over keys of p (log p - log q)             (MiniLM: of the last layer alone, layers=1)
    mse: d(q, p) = sum over keys of (q - p)^2

Both papers compare head with head, and TinyBERT before the softmax. Heads are averaged here first, so that a student
that lost some can learn from a teacher that has them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from regraft.config.ranges import ConfigError
from regraft.distillation import layer_map
from regraft.distillation.layer_map import LayerMap
from regraft.interfaces import BEGINNING, Batch, Loss, LossNeed, LossValue, ModelOutputs, Moment, Positions, Reads

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class AttentionMaps(Loss):
    """Look from the read positions where the teacher's layers look. Sees no label."""

    distance: Literal["kl", "mse"] = "kl"
    """How far the attention at a position is from the teacher's."""
    layers: LayerMap = "uniform"
    """Which layer learns from which: as for `Hints`, from layer 1."""
    reads: Reads = "choices"
    """Text of a batch: as for `KL`."""
    positions: Positions = "answer"
    """Positions that are read: as for `KL`."""

    def __post_init__(self) -> None:
        layer_map.check(self.layers, first=1)

    @property
    def needs(self) -> frozenset[LossNeed]:
        return frozenset({"teacher_logits", "attentions"})

    @property
    def rests(self) -> bool:
        return layer_map.same(self.layers)

    def __call__(
        self, batch: Batch, student: ModelOutputs, teacher: ModelOutputs | None, moment: Moment = BEGINNING
    ) -> LossValue:
        import torch

        assert teacher is not None
        mine, taught = student.attentions, teacher.attentions
        if mine[0].shape[-1] != taught[0].shape[-1]:
            raise ConfigError(
                f"loss={type(self).__name__}: the teacher reads another text ({taught[0].shape[-1]} tokens, not "
                f"{mine[0].shape[-1]}), and where it looks there is nowhere here. Choose another loss, such as kl."
            )
        pairs = layer_map.pairs(self.layers, len(mine), len(taught))
        total = torch.zeros((), device=batch.read.device)
        for one, other in pairs:
            total = total + self._distance(_of_all_heads(mine[one - 1]), _of_all_heads(taught[other - 1])).sum()
        return LossValue(total=total / len(pairs), count=len(batch.read))

    def _distance(self, mine: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
        """(reads,)."""
        import torch

        if self.distance == "mse":
            return (mine - taught).square().sum(dim=1)
        # what nobody sees is 0 on both sides, and log 0 would make the gradient nan
        least = torch.finfo(mine.dtype).tiny
        return (taught * (taught.clamp_min(least).log() - mine.clamp_min(least).log())).sum(dim=1)


def _of_all_heads(attention: torch.Tensor) -> torch.Tensor:
    """(reads, heads, seq) -> (reads, seq) in float32."""
    return attention.float().mean(dim=1)
