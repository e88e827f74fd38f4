"""Gradient flow after pruning: GraSP (Wang et al. 2020, arXiv 2002.07376, equations 8 and 9).

S(-w) = -w * (H g)      to first order, half of the change of g.g when w is removed
s     = w * (H g)       the lowest go first: those whose removal raises the gradient flow most

with g and H gradient and Hessian of the loss of logits / 200, all over the same questions; a unit of several weights
has the sum over its weights. Signs as in the paper's text ("the higher the score, the lower the importance") and in
ganguli-lab/Synaptic-Flow, which keeps the largest w * (H g).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from regraft.config.ranges import require
from regraft.interfaces import (
    BEGINNING,
    Batch,
    Criterion,
    Kind,
    LanguageModel,
    Loss,
    LossNeed,
    LossValue,
    ModelOutputs,
    Moment,
    Positions,
    PruningContext,
    PruningNeed,
    Reads,
    Structure,
)
from regraft.pruning.criteria import gradients
from regraft.pruning.gradients import needed
from regraft.pruning.spread import owned_sums, parameters

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Grasp(Criterion):
    """Units whose removal lowers the gradient flow least, or raises it most, go first."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"neurons", "weights"})
    takes: ClassVar[frozenset[LossNeed]] = frozenset({"labels", "teacher_logits"})

    loss: Loss
    """What is differentiated, twice."""
    temperature: float = 200.0
    """Divides the logits, which makes the softmax nearly even: its curvature counts, not its peaks."""

    def __post_init__(self) -> None:
        require(self.temperature > 0, "temperature", self.temperature, "above 0")

    @property
    def needs(self) -> frozenset[PruningNeed]:
        return needed(self.loss)

    def scores(self, model: LanguageModel, structure: Structure, context: PruningContext) -> list[torch.Tensor]:
        import torch

        groups = structure.groups(model.model)
        tensors = parameters(groups)
        tempered = Tempered(loss=self.loss, temperature=self.temperature)
        flow = gradients.gradients(model, tensors, tempered, context)
        curved = [torch.zeros_like(each) for each in flow]
        for value in gradients.values(model, tempered, context):
            first = torch.autograd.grad(value, tensors, create_graph=True)
            product = torch.stack([(one * other).sum() for one, other in zip(first, flow, strict=True)]).sum()
            for total, each in zip(curved, torch.autograd.grad(product, tensors), strict=True):
                total += each
        of = {id(tensor): each for tensor, each in zip(tensors, curved, strict=True)}
        return [
            owned_sums(group, lambda part: of[id(part.parameter)] * part.parameter.detach().float()) for group in groups
        ]


@dataclass(frozen=True, kw_only=True)
class Tempered(Loss):
    """A loss of the student's logits divided by a temperature.

    It gets nothing but the logits, and all at once, so that its gradient can be differentiated again.
    """

    loss: Loss
    temperature: float

    @property
    def needs(self) -> frozenset[LossNeed]:
        return self.loss.needs

    @property
    def reads(self) -> Reads:
        return self.loss.reads

    @property
    def positions(self) -> Positions:
        return self.loss.positions

    def __call__(
        self, batch: Batch, student: ModelOutputs, teacher: ModelOutputs | None, moment: Moment = BEGINNING
    ) -> LossValue:
        return self.loss(batch, ModelOutputs(logits=student.logits / self.temperature), teacher, moment)
