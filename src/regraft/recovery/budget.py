"""How many optimizer steps a budget of tokens or FLOPs pays for.

Known before the training begins, so that the course of the learning rate fits into it: the texts are packed in the
order in which they will be read, until the budget is spent. A live teacher's cost is taken from what it computes for
the first step, in proportion to the student's forward pass; the record says what was spent in the end.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from regraft.config.ranges import ConfigError
from regraft.interfaces import Answers, BatchSource, LanguageModel
from regraft.models.cost import Cost, Extent, Ledger, attended, counted
from regraft.recovery.trained import restrict
from regraft.recovery.training import Training
from regraft.tasks.packing import move


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
    cost, ratio = student_cost(student, training), 0.0
    if key == "flops" and teacher is not None:
        ratio = _teacher_share(student, source(1), teacher, cost, autocast)
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
                    spent += ratio * cost.forward(extent)
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


def _teacher_share(
    student: LanguageModel,
    texts: BatchSource,
    teacher: Answers,
    cost: Cost,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> float:
    """FLOPs of the teacher for each of a forward pass of the student."""
    taught, said = Ledger(), 0
    for batch, _ in texts.step(0, student):
        with counted(taught), autocast():
            teacher(move(batch.for_teacher or batch, student.model.device))
        said += cost.forward(Extent.of(batch))
    return taught.teacher_flops / said
