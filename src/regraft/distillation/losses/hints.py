"""Hidden states as hints: FitNets (Romero et al. 2014, arXiv 1412.6550), TinyBERT (Jiao et al. 2019, arXiv 1909.10351).

    L = mean over positions and pairs (m, g(m)) of d(r_m(h_student,m), h_teacher,g(m))

    mse:    d(a, b) = mean over channels of (a - b)^2
    cosine: d(a, b) = 1 - a b / (|a| |b|)                        (DistilBERT, arXiv 1910.01108)

with h_m what leaves layer m, of the last one after the final norm, and r_m the identity or a learned linear map.
FitNets has half the sum of squares over channels, and TinyBERT the sum over layers: means keep the weight of the loss
apart from the size of the models.
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
    from torch import nn

Pairs = list[tuple["torch.Tensor", "torch.Tensor"]]


@dataclass(frozen=True, kw_only=True)
class Hints(Loss):
    """Match what the teacher's layers say at the read positions. Sees no label."""

    distance: Literal["mse", "cosine"] = "mse"
    """How far a hidden state is from the teacher's."""
    projection: Literal["identity", "learned"] = "identity"
    """`identity`: channel by channel, for a student as wide as its teacher; `learned`: a linear map for each pair,
    which is trained with the student and thrown away."""
    layers: LayerMap = "uniform"
    """Which layer learns from which: `uniform`; a number k, the last k from the last k; or pairs (student's, teacher's)
    that count from 1, where 0 is the embedding."""
    reads: Reads = "choices"
    """Text of a batch: as for `KL`."""
    positions: Positions = "answer"
    """Positions that are read: as for `KL`."""

    def __post_init__(self) -> None:
        layer_map.check(self.layers, first=0)

    @property
    def needs(self) -> frozenset[LossNeed]:
        return frozenset({"teacher_logits", "hidden_states"})

    @property
    def learning(self) -> bool:
        return self.projection == "learned"

    @property
    def same_width(self) -> bool:
        return self.projection == "identity"

    @property
    def rests(self) -> bool:
        return not self.learning and layer_map.same(self.layers)

    def __call__(
        self, batch: Batch, student: ModelOutputs, teacher: ModelOutputs | None, moment: Moment = BEGINNING
    ) -> LossValue:
        import torch

        assert teacher is not None
        pairs = self._pairs(student, teacher)
        total = torch.zeros((), device=batch.read.device)
        for number, (mine, taught) in enumerate(pairs):
            total = total + self._distance(self._projected(mine, taught, number, moment), taught.float()).sum()
        return LossValue(total=total / len(pairs), count=len(batch.read))

    def learns(self, student: ModelOutputs, teacher: ModelOutputs | None) -> nn.Module | None:
        from torch import nn

        if not self.learning:
            return None
        assert teacher is not None
        pairs = self._pairs(student, teacher)
        return nn.ModuleList(nn.Linear(mine.shape[1], taught.shape[1]) for mine, taught in pairs)

    def _pairs(self, student: ModelOutputs, teacher: ModelOutputs) -> Pairs:
        """Hidden states (reads, hidden_size) that are compared."""
        mine, taught = student.hidden_states, teacher.hidden_states
        chosen = layer_map.pairs(self.layers, len(mine) - 1, len(taught) - 1)
        return [(mine[one], taught[other]) for one, other in chosen]

    def _projected(self, mine: torch.Tensor, taught: torch.Tensor, number: int, moment: Moment) -> torch.Tensor:
        """(reads, hidden_size of the teacher) in float32."""
        import torch

        if self.learning:
            assert isinstance(moment.learned, torch.nn.ModuleList), "the training has made what the loss learns"
            with torch.autocast(mine.device.type, enabled=False):
                projected: torch.Tensor = moment.learned[number](mine.float())
            return projected
        if mine.shape != taught.shape:
            raise ConfigError(
                f"projection=identity: the student's hidden size {mine.shape[1]} must be the teacher's, "
                f"{taught.shape[1]}. Choose projection=learned."
            )
        return mine.float()

    def _distance(self, mine: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
        """(reads,)."""
        import torch

        if self.distance == "mse":
            return (mine - taught).square().mean(dim=1)
        return 1 - torch.cosine_similarity(mine, taught, dim=1)
