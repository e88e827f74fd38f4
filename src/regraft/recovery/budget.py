"""How many optimizer steps a budget of tokens or FLOPs pays for.

Known before the training begins, so that the course of the learning rate fits into it: the texts are packed in the
order in which they will be read, until the budget is spent. The teacher is asked about the
first text, to see which models it runs; the record says what was spent in the end.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from regraft.config.ranges import ConfigError
from regraft.interfaces import Answers, BatchSource, LanguageModel
from regraft.models.cost import Cost, Extent, Ledger, attended, counted
from regraft.recovery.trained import restrict
from regraft.recovery.training import Training
from regraft.tasks.packing import move

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def affordable(
    student: LanguageModel,
    training: Training,
    source: Callable[[int], BatchSource],
    epoch: int,
    *,
    teacher: Answers | None,
    autocast: Callable[[], AbstractContextManager[Any]],
    before: int,
) -> int:
    """The largest number of steps that stays within the budget of `training`.

    Args:
        student: As it enters the training.
        training: With `tokens` or `flops`.
        source: Makes the source of so many steps, all of this process.
        epoch: Steps that are made of all texts once.
        teacher: Answers batches, if the loss needs it.
        autocast: The precision in which the teacher computes.
        before: FLOPs that are spent already.

    Raises:
        ConfigError: It does not pay for one step.
    """
    key, budget = training.budget
    spent = float(before) if key == "flops" else 0.0
    cost, asked = student_cost(student, training), _Asked()
    if key == "flops" and teacher is not None:
        batch, _ = next(iter(source(1).step(0, student)))
        with counted(asked), autocast():
            teacher(move(batch.for_teacher or batch, student.model.device))
        asked.reads = len(batch.read)
    steps, known = 0, epoch
    while True:
        texts = source(known)
        for number in range(steps, known):
            for batch, _ in texts.step(number, student):
                extent = Extent.of(batch)
                if key == "tokens":
                    spent += extent.positions
                else:
                    spent += cost.training(extent, recomputes=training.gradient_checkpointing)
                    spent += asked.again(Extent.of(batch.for_teacher or batch))
            if spent > budget and number == 0:
                raise ConfigError(
                    f"recovery.{key}={budget:g}: must be at least {spent:g}, what comes before the first step and the "
                    "step itself cost. Choose more, or a smaller recovery.batch_size."
                )
            if spent > budget:
                return number
        steps, known = known, 2 * known


def student_cost(student: LanguageModel, training: Training) -> Cost:
    """What `student` costs when it is trained so; it stays as it is."""
    pair = attended(student.model)
    undo = restrict(student, training)
    cost = Cost.of(student.model, pair)
    undo()  # adapters that were not trained merge to nothing
    return cost


class _Asked(Ledger):
    """What a teacher computes for one batch, from which follows what it computes for any."""

    reads = 1

    def __init__(self) -> None:
        super().__init__()
        self.costs: list[Cost] = []
        self.besides = 0

    def passed(self, model: PreTrainedModel, extent: Extent) -> None:
        self.costs.append(Cost.of(model))

    def computed(self, multiply_accumulates: int) -> None:
        self.besides += multiply_accumulates

    def again(self, extent: Extent) -> int:
        """FLOPs for a batch of this extent."""
        return sum(cost.forward(extent) for cost in self.costs) + 2 * self.besides * extent.reads // self.reads
