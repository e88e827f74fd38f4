"""A moving average of the student's own weights: mean teachers (Tarvainen and Valpola 2017, arXiv 1703.01780).

after each step t:   a_t = decay * a_{t-1} + (1 - decay) * w_t
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from regraft.config.ranges import require
from regraft.distillation.teachers.answers import Live
from regraft.interfaces import Answers, Teacher, TeacherContext

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Ema(Teacher):
    """Taught by what the student was of late, in float32.

    At the first step a student that is its own teacher has nothing to learn from it: KL(self || self) = 0, with zero
    gradient. So KL alone would train nothing with `start: student` and is refused; it wants labels beside it, such as
    `loss=ce_kl`.

    Each of several processes holds the average: their students are the same after each step.
    """

    follows = True

    decay: float = 0.999
    """Share of the average that stays at each step, in [0, 1). It looks back some 1 / (1 - decay) steps: a recovery of
    a few hundred wants 0.99."""
    start: Literal["student", "dense"] = "student"
    """What the average is before the first step: `student`, as it enters the recovery; `dense`, the dense model, which
    fades at that pace."""

    def __post_init__(self) -> None:
        require(0 <= self.decay < 1, "decay", self.decay, "in [0, 1)")

    @property
    def shaped_as_dense(self) -> bool:
        return self.start == "dense"

    @property
    def starts_as_student(self) -> bool:
        return self.start == "student"

    def build(self, context: TeacherContext) -> Answers:
        student = context.student.model
        model = copy.deepcopy(student) if self.start == "student" else context.dense().model
        model.to(student.device).float().eval()  # type: ignore[arg-type]
        context.report({"parameters": model.num_parameters()})
        return _Average(model, self.decay, context)


class _Average(Live):
    """A model in memory that follows the student."""

    def __init__(self, model: PreTrainedModel, decay: float, context: TeacherContext) -> None:
        super().__init__(model, context.needs, context.student.vocabulary)
        self.decay = decay

    def after_step(self, student: PreTrainedModel, step: int) -> None:
        import torch

        now = dict(student.named_parameters())
        with torch.no_grad():
            for name, average in self.model.named_parameters():
                average.lerp_(now[name].to(average.dtype), 1 - self.decay)

    def state(self) -> dict[str, torch.Tensor]:
        return {name: parameter.detach() for name, parameter in self.model.named_parameters()}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        import torch

        with torch.no_grad():
            for name, average in self.model.named_parameters():
                average.copy_(state[name])
