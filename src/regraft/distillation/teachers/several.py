"""Several teachers at once: a weighted mean of what they say.

    arithmetic   p = sum over k of w_k p_k                     (You et al. 2017, with equal weights)
    geometric    p proportional to prod over k of p_k^{w_k}    (a product of experts, Hinton 2002)

    fixed        w_k as given, divided by their sum
    confidence   w_k proportional to given_k * exp(-sharpness * H(p_k)), at each position;  H in nats
    by_task      w_k = 1 for the teacher that is named as the question's task

All weights sum to 1 at each position. FuseLLM (arXiv 2401.10491) weights by the cross-entropy of each teacher on the
gold text, which a label-free loss may not see; the entropy is what a teacher itself tells of that. A large `sharpness`
takes the surest teacher at each position, as FuseLLM's MinCE takes the best one of each text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from regraft.config.ranges import ConfigError, require
from regraft.interfaces import Answers, Batch, LossNeed, ModelOutputs, Teacher, TeacherContext
from regraft.tasks.union import task_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Several(Teacher):
    """The mean of the distributions of several teachers. A loss softens the mean, not each of them."""

    gives = frozenset[LossNeed]({"teacher_logits"})

    teachers: Mapping[str, Teacher]
    """The teachers by name; any of the group `teacher`."""
    mean: Literal["arithmetic", "geometric"] = "arithmetic"
    """Of probabilities: `arithmetic` allows what any teacher says, `geometric` what all say."""
    weighting: Literal["fixed", "confidence", "by_task"] = "fixed"
    """What a teacher weighs: `fixed`; `confidence`, more where its entropy is low; `by_task`, all at the questions of
    the task of that name (`task=union`) and nothing elsewhere."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Weight of each teacher, at least 0, of any sum; one that is not named weighs 1, and one of 0 is not asked."""
    sharpness: float = 1.0
    """With `confidence`: how much more the surer teacher weighs, above 0."""

    def __post_init__(self) -> None:
        require(
            len(self.teachers) > 0,
            "teachers",
            dict(self.teachers),
            "at least one teacher",
            "Give each a name: +teacher@teacher.teachers.self=dense +teacher@teacher.teachers.NAME=CHOICE.",
        )
        for name, weight in self.weights.items():
            require(name in self.teachers, "weights", name, f"a name of a teacher ({', '.join(self.teachers)})")
            require(0 <= weight < math.inf, f"weights.{name}", weight, "a finite number of at least 0")
        weights = [self.weights.get(name, 1.0) for name in self.teachers]
        require(sum(weights) > 0, "weights", dict(self.weights), "above 0 for one teacher at least")
        apart = self.weighting != "by_task" or not self.weights
        require(apart, "weights", dict(self.weights), "empty with weighting=by_task, where each task has one teacher")
        require(0 < self.sharpness < math.inf, "sharpness", self.sharpness, "a finite number above 0")

    @property
    def tasks(self) -> frozenset[str] | None:
        return frozenset(self.teachers) if self.weighting == "by_task" else None

    @property
    def starts_as_student(self) -> bool:
        weighing = [teacher for name, teacher in self.teachers.items() if self.weights.get(name, 1.0) > 0]
        return all(teacher.starts_as_student for teacher in weighing)

    def members(self) -> Iterator[Teacher]:
        yield self
        for teacher in self.teachers.values():
            yield from teacher.members()

    def build(self, context: TeacherContext) -> Answers:
        answers, reported = {}, dict[str, dict[str, Any]]()
        for name, teacher in self.teachers.items():
            if self.weights.get(name, 1.0) == 0:
                continue  # it says nothing
            own: dict[str, Any] = {}
            answers[name] = teacher.build(replace(context, report=own.update))
            reported[name] = own
        sums = {
            key: sum(own.get(key, 0) for own in reported.values())
            for key in ("parameters", "asked_tokens", "asked_flops")
            if any(key in own for own in reported.values())
        }
        context.report(sums | {"teachers": reported})
        return _Together(self, answers)


class _Together(Answers):
    """What all teachers say, as one."""

    def __init__(self, teacher: Several, answers: Mapping[str, Answers]) -> None:
        self.teacher, self.answers = teacher, answers
        weights = [teacher.weights.get(name, 1.0) for name in answers]
        self.weights = [weight / sum(weights) for weight in weights]

    def __call__(self, batch: Batch) -> ModelOutputs:
        if self.teacher.weighting == "by_task":
            return self._by_task(batch)
        said = [answers(batch) for answers in self.answers.values()]
        return Mean(said, self._weigh, geometric=self.teacher.mean == "geometric")

    def _weigh(self, log_p: torch.Tensor, rows: torch.Tensor | slice) -> torch.Tensor:
        import torch

        given = log_p.new_tensor(self.weights)[:, None].expand(log_p.shape[:2])
        if self.teacher.weighting == "fixed":
            return given
        p = log_p.exp()
        entropy = -torch.where(p > 0, p * log_p, 0.0).sum(dim=2)
        return torch.softmax(given.log() - self.teacher.sharpness * entropy, dim=0)

    def who(self, batch: Batch) -> Any:
        asked = self.answers
        if self.teacher.weighting == "by_task":
            tasks = set(self._tasks(batch))
            asked = {name: answers for name, answers in self.answers.items() if name in tasks}
        return tuple((name, answers.who(batch)) for name, answers in asked.items())

    def _tasks(self, batch: Batch) -> list[str]:
        """The task of each question."""
        names = list(self.answers)
        tasks = [task_of(name) for name in batch.ids]
        for task, question in zip(tasks, batch.ids, strict=True):
            if task not in self.answers:
                raise ConfigError(
                    f"teacher.weighting=by_task: question {question} is of no task that a teacher is named after "
                    f"({', '.join(names)}). Name the teachers as the tasks of task=union."
                )
        return tasks

    def _by_task(self, batch: Batch) -> ModelOutputs:
        import torch

        names, tasks = list(self.answers), self._tasks(batch)
        whose = torch.tensor([names.index(task) for task in tasks], device=batch.read.device)[batch.read_question]
        # who has no question here is not asked
        asked = sorted(set(map(names.index, tasks)))
        one_hot = torch.stack([whose == number for number in asked]).float()
        said = [self.answers[names[number]](batch) for number in asked]
        return Mean(said, lambda log_p, rows: one_hot[:, rows], geometric=False)

    def after_step(self, student: PreTrainedModel, step: int) -> None:
        for answers in self.answers.values():
            answers.after_step(student, step)

    def state(self) -> dict[str, torch.Tensor]:
        return {
            f"{name}/{key}": tensor for name, answers in self.answers.items() for key, tensor in answers.state().items()
        }

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        for name, answers in self.answers.items():
            own = f"{name}/"
            answers.restore({key.removeprefix(own): tensor for key, tensor in state.items() if key.startswith(own)})


class Mean(ModelOutputs):
    """Log-probabilities of the mean, which are logits of themselves: made of the teachers' logits where they are asked.

    Args:
        said: What each teacher says, at the same positions.
        weigh: (teachers, n, vocab) log-probabilities, and the rows that they are of -> (teachers, n) weights.
        geometric: Whether the mean is of log-probabilities.
    """

    def __init__(
        self,
        said: Sequence[ModelOutputs],
        weigh: Callable[[torch.Tensor, torch.Tensor | slice], torch.Tensor],
        *,
        geometric: bool,
    ) -> None:
        self.said, self.weigh, self.geometric = said, weigh, geometric
        self.states, self.head, self.norm = None, None, None
        self._hidden_states, self._attentions = None, None

    def within(self, vocabulary: int) -> Mean:
        return Mean([each.within(vocabulary) for each in self.said], self.weigh, geometric=self.geometric)

    def logits_at(self, rows: torch.Tensor | slice) -> torch.Tensor:
        import torch

        log_p = torch.stack([torch.log_softmax(each.logits_at(rows).float(), dim=1) for each in self.said])
        weights = self.weigh(log_p, rows)[:, :, None]
        if self.geometric:
            # 0 * -inf is nan, but who weighs nothing says nothing
            return torch.log_softmax(torch.where(weights > 0, weights * log_p, 0.0).sum(dim=0), dim=1)
        return torch.logsumexp(weights.log() + log_p, dim=0)

    @property
    def logits(self) -> torch.Tensor:
        return self.logits_at(slice(None))

    def __len__(self) -> int:
        return len(self.said[0])
