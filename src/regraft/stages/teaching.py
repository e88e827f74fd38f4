"""What a recovery reads, and who teaches it: made from the run's config for the recovery room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from regraft.interfaces import (
    Answers,
    AnyQuestion,
    BatchContext,
    BatchSource,
    LabelledQuestion,
    LanguageModel,
    TeacherContext,
)
from regraft.models.precision import autocast, resolved_precision
from regraft.recovery.budget import affordable
from regraft.stages.context import Context
from regraft.stages.plan import PlannedStage
from regraft.tasks.packing import move


class Teaching:
    """Batches and teacher of one recover stage.

    Args:
        stage: The stage.
        student: As it enters the training.
        context: Of the run.
    """

    def __init__(self, stage: PlannedStage, student: LanguageModel, context: Context) -> None:
        self.student, self.context, self.config = student, context, context.config
        self.training = self.config.recovery
        self.precision = resolved_precision(student.model, self.training.precision)
        self.questions = _told_of(context.splits.recovery, labels="labels" in self.config.loss.needs)
        self.texts = self.config.batches.texts(len(self.questions))
        self.reported: dict[str, Any] = {}
        """What the teacher says of itself."""
        self.written: dict[str, Any] = {}
        """What the batches say of their making."""
        assert context.dense is not None, "the pipeline starts with prepare"
        self._teacher = TeacherContext(
            dense=context.load_dense,
            dense_key=context.dense.key,
            student=student,
            cache=context.cache,
            questions=lambda: (),
            questions_key="",
            autocast=lambda: autocast(student.model, self.training.precision),
            report=self.reported.update,
            needs=self.config.loss.asks_teacher,
            previous=context.anchors[stage.teacher].take if stage.teacher else None,
            previous_key=stage.teacher,
        )
        self._asked: Answers | None = None

    def steps(self) -> int:
        """Optimizer steps of the run's whole recovery: as the config has them, or as many as its budget pays for."""
        if not self.training.has_budget:
            return self.training.total_steps(self.texts)
        epoch = -(-self.texts // self.training.batch_size)
        self._asked = self._answers(self.source(0, epoch, alone=True))
        return affordable(
            self.student,
            self.training,
            lambda steps: self.source(0, steps, alone=True),
            epoch,
            teacher=self._asked,
            autocast=self._teacher.autocast,
            before=self.before("flops"),
        )

    def source(self, first: int, steps: int, *, alone: bool = False) -> BatchSource:
        """The batches of so many steps.

        Args:
            first: Number of the first of them among the run's recovery steps.
            steps: How many.
            alone: Whether this process reads them all, and not its share.
        """
        processes = self.context.processes
        return self.config.batches.source(
            BatchContext(
                student=self.student,
                task=self.config.task,
                questions=self.questions,
                encode=lambda asked: self.context.encode(self.student, asked),
                loss=self.config.loss,
                batch_size=self.training.batch_size,
                accumulation=self.training.accumulation,
                seed=self.config.seed,
                first=first,
                steps=steps,
                rank=0 if alone else processes.rank,
                processes=1 if alone else processes.count,
                cache=self.context.cache,
                writer=lambda: self.config.teacher.writer(self._teacher),
                writer_key=self._writer_key() if self.config.batches.needs_writer else None,
                autocast=self._teacher.autocast,
                report=self.written.update,
                preparation=lambda: _told_of(self.context.splits.preparation, labels=self.config.batches.shows_labels),
            )
        )

    def answers(self, batches: BatchSource) -> Answers | None:
        """The teacher, if the loss needs one.

        Args:
            batches: What it will be asked about; one who must be asked before is asked about all texts now.
        """
        # whose cost was part of the budget has been asked already
        return self._asked or self._answers(batches)

    def before(self, unit: Literal["tokens", "flops"]) -> int:
        """Tokens or FLOPs that asking the teacher and writing the texts took before the training."""
        return int(self.reported.get(f"asked_{unit}", 0)) + int(self.written.get(f"written_{unit}", 0))

    def _writer_key(self) -> Any:
        return self.config.teacher.writer_identity(self._teacher.dense_key, self._teacher.previous_key)

    def _answers(self, batches: BatchSource) -> Answers | None:
        teacher = self.config.teacher
        if "teacher_logits" not in self.config.loss.needs:
            return None
        told = replace(self._teacher, longest=batches.longest())
        if not any(member.asks_before for member in teacher.members()):
            return teacher.build(told)
        device = self.context.device
        return teacher.build(
            replace(
                told,
                questions=lambda: (move(batch.for_teacher or batch, device) for batch in batches.each()),
                questions_key=f"{batches.content()} {self.precision}",
            )
        )


def _told_of(questions: Sequence[AnyQuestion], *, labels: bool) -> Sequence[AnyQuestion]:
    """Questions, without their answers unless those are needed."""
    return questions if labels else [q.unlabelled if isinstance(q, LabelledQuestion) else q for q in questions]
