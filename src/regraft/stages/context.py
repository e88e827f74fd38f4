"""What the stages of a run share."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import torch

from regraft.config.ranges import ConfigError
from regraft.evaluation.evaluation import Split
from regraft.interfaces import AnyQuestion, EncodedQuestion, LabelledQuestion, LanguageModel, RunLog, Splits
from regraft.recovery.processes import Processes
from regraft.recovery.progress import Progress
from regraft.stages.plan import PlannedStage
from regraft.tasks.encoding import encode_all

if TYPE_CHECKING:
    from regraft.cache import Cache
    from regraft.config.schema import RunConfig
    from regraft.stages.outcome import Outcome


class Lineage:
    """A model that is made when it is asked for, and known by its key before.

    Args:
        key: Names the weights.
        make: Makes them anew.
    """

    def __init__(self, key: str, make: Callable[[], LanguageModel]) -> None:
        self.key = key
        self._make = make
        self._made: LanguageModel | None = None

    def read(self) -> LanguageModel:
        """The model, to look at."""
        if self._made is None:
            self._made = self._make()
        return self._made

    def take(self) -> LanguageModel:
        """The model, to change: it is made anew for whoever asks next."""
        model, self._made = self.read(), None
        return model

    def give(self, model: LanguageModel) -> Lineage:
        """Hand in weights that are at hand already."""
        self._made = model
        return self


@dataclass
class Context:
    """The config of the run and what is made once for it."""

    config: RunConfig
    cache: Cache
    device: torch.device
    log: RunLog
    processes: Processes
    """Those that train together."""
    dense: Lineage | None = None
    """The prepared dense model, once the prepare stage has come."""
    dense_evaluation: Outcome | None = None
    """What was measured of it."""
    anchors: dict[str, Lineage] = field(default_factory=dict)
    """Models to whose weights a later stage goes back, by their keys."""
    name: str = ""
    """What the run is called in messages."""
    _units: dict[str, list[int]] = field(default_factory=dict)

    @cached_property
    def splits(self) -> Splits:
        return self.config.task.load(self.cache)

    def unlabelled(self, split: Literal["preparation", "recovery"]) -> list[AnyQuestion]:
        """The questions of a split without their answers."""
        questions: Sequence[AnyQuestion] = getattr(self.splits, split)
        return [one.unlabelled if isinstance(one, LabelledQuestion) else one for one in questions]

    def encode(
        self, model: LanguageModel, questions: Sequence[AnyQuestion], prompt: str | None = None
    ) -> list[EncodedQuestion]:
        """Questions as the model's tokens.

        Args:
            model: Who is asked.
            questions: Labelled or not.
            prompt: Stands before every question; None takes the model's own.

        Raises:
            ConfigError: One is longer than the model's context.
        """
        limit = getattr(model.model.config.get_text_config(), "max_position_embeddings", None)
        return encode_all(
            model.tokenizer, self.config.task, questions, limit, model.prompt if prompt is None else prompt
        )

    def length(self, model: LanguageModel) -> int:
        """Mean tokens of an evaluation question with one of its choices: at which the cost of a token is counted."""
        encoded = self.encode(model, self.labelled(self.config.evaluation.splits[0]))
        lengths = [len(one.context) + statistics.mean(map(len, one.choices)) for one in encoded]
        return round(statistics.mean(lengths))

    def kind(self, name: str) -> str:
        """The kind of a cache entry that was computed: what another device computed is not the same to the bit."""
        return name if self.device.type == "cpu" else f"{name}-{self.device.type}"

    def place(self, model: LanguageModel) -> LanguageModel:
        """The model on the run's device, its masks beside its weights."""
        model.model.to(self.device)  # type: ignore[arg-type]
        model.masks = {name: mask.to(self.device) for name, mask in model.masks.items()}
        return model

    def load_dense(self) -> LanguageModel:
        """The dense model, for whoever asks alone: a teacher must not be what is pruned."""
        assert self.dense is not None, "the pipeline starts with prepare"
        return self.dense.take()

    def dense_units(self) -> dict[str, list[int]]:
        """Name of each pruned structure -> units of each group in the dense model."""
        assert self.dense is not None, "the pipeline starts with prepare"
        if not self._units:
            self._units = self.config.pruner.left(self.dense.read())
        return self._units

    def labelled(self, split: str) -> tuple[LabelledQuestion, ...]:
        """The questions of a split that are asked, all with answers.

        Raises:
            ConfigError: There are none, or some have no answer.
        """
        questions = getattr(self.splits, split)
        labelled = tuple(question for question in questions if isinstance(question, LabelledQuestion))
        if not labelled or len(labelled) < len(questions):
            raise ConfigError(
                f"evaluation.splits={split}: {self.config.task.name} has {len(questions)} questions there, "
                f"{len(labelled)} of them with an answer. Choose another split."
            )
        return labelled[: self.config.evaluation.questions]

    def splits_learned(self, splits: tuple[Split, ...]) -> tuple[Split, ...]:
        """`splits`, and those that somebody learns from, where they have questions with answers."""
        learned: tuple[Split, ...] = ("preparation", "recovery")
        known = [
            split
            for split in learned
            if (questions := getattr(self.splits, split))
            and all(isinstance(question, LabelledQuestion) for question in questions)
        ]
        return splits + tuple(split for split in known if split not in splits)

    def progress(self, key: str) -> Progress:
        """Where the training `key` is kept while it is not at its end."""
        name = key if self.device.type == "cpu" else f"{key}-{self.device.type}"
        return Progress(self.cache.progress(name), name, self.config.runtime.checkpoint_steps)

    def bar(self, stage: PlannedStage) -> str | None:
        """Text of the progress bar, or None for no bar."""
        shown = self.config.runtime.progress and self.processes.is_first
        return f"{self.name}: {stage.name}" if shown else None
