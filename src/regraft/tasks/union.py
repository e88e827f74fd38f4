"""Several tasks as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from regraft.config.components import identified
from regraft.config.ranges import ConfigError, require
from regraft.interfaces import AnyQuestion, LabelledQuestion, Scoring, Splits, Task, UnlabelledQuestion

if TYPE_CHECKING:
    from regraft.cache import Cache

Question = TypeVar("Question", LabelledQuestion, UnlabelledQuestion)
BETWEEN = ":"
"""Between the name of a task and the id that a question has there."""


def task_of(question: str) -> str:
    """The task of a union that the question with this id is of."""
    return question.partition(BETWEEN)[0]


@dataclass(frozen=True, kw_only=True)
class Union(Task):
    """The questions of all tasks, each asked as its own task asks it; the ids are `NAME:id`.

    They are mixed evenly, so that a smaller `train_size` holds the tasks in the same proportion.
    """

    name: str = "union"
    """Name of the task in records and figures."""
    tasks: Mapping[str, Task]
    """The tasks by name; all must score alike, and all have labels or none."""
    train_size: int | None = None
    """Number of recovery questions; null takes all that the tasks have. A smaller set is a prefix of a larger one."""

    def __post_init__(self) -> None:
        require(len(self.tasks) > 0, "tasks", dict(self.tasks), "at least one task")
        for name in self.tasks:
            require(BETWEEN not in name, "tasks", name, f"a name without {BETWEEN!r}")
        for key in ("scoring", "labelled"):
            values = {name: getattr(task, key) for name, task in self.tasks.items()}
            if len(set(values.values())) > 1:
                told = ", ".join(f"tasks.{name}.{key}={value}" for name, value in values.items())
                raise ConfigError(f"tasks: all must share one value of {key}, but {told}. Set them alike.")
        require(self.train_size is None or self.train_size > 0, "train_size", self.train_size, "null or at least 1")

    @property
    def scoring(self) -> Scoring:  # type: ignore[override]
        return next(iter(self.tasks.values())).scoring

    @property
    def labelled(self) -> bool:
        return next(iter(self.tasks.values())).labelled

    def load(self, cache: Cache) -> Splits:
        loaded = {name: task.load(cache) for name, task in self.tasks.items()}
        recovery: Any = _mixed({name: splits.recovery for name, splits in loaded.items()})
        if self.train_size is not None and self.train_size > len(recovery):
            raise ConfigError(
                f"task.train_size={self.train_size}: must be at most {len(recovery)}, the recovery questions of all "
                "tasks. Lower it."
            )
        return Splits(
            preparation=_mixed({name: splits.preparation for name, splits in loaded.items()}),
            recovery=recovery[: self.train_size],
            selection=_mixed({name: splits.selection for name, splits in loaded.items()}),
            test=_mixed({name: splits.test for name, splits in loaded.items()}),
        )

    def prompt(self, question: AnyQuestion) -> tuple[str, tuple[str, ...]]:
        task, own = self._own(question)
        return task.prompt(own)

    def about(self, question: AnyQuestion) -> Any:
        task, own = self._own(question)
        return task.about(own)

    def _own(self, question: AnyQuestion) -> tuple[Task, AnyQuestion]:
        """Whose question it is, and the question as it is there."""
        name, _, own = question.id.partition(BETWEEN)
        return self.tasks[name], replace(question, id=own)

    def identity(self, split: Literal["preparation", "recovery", "evaluation"]) -> dict[str, Any]:
        tasks = {name: identified(task, task.identity(split)) for name, task in self.tasks.items()}
        return {"union": tasks} | ({"train_size": self.train_size} if split == "recovery" else {})


def _mixed(questions: Mapping[str, Sequence[Question]]) -> tuple[Question, ...]:
    """All questions under their new ids, each task spread over the whole."""
    placed = [
        ((number + 0.5) / len(own), name, replace(question, id=f"{name}{BETWEEN}{question.id}"))
        for name, own in questions.items()
        for number, question in enumerate(own)
    ]
    return tuple(question for *_, question in sorted(placed, key=lambda each: each[:2]))
