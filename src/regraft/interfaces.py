"""What the rooms hand each other. Nothing here imports torch: a config is checked before torch is loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from pathlib import Path

    import pandas
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from regraft.cache import Cache
    from regraft.records import Record, Row, StageRecord

Scoring = Literal["cloze", "letter"]
Reads = Literal["gold", "question", "choices", "drawn_choice"]
Positions = Literal["answer", "all"]


class Component:
    """Base of every class that a YAML file may name with `_target_`.

    A component is a frozen, keyword-only dataclass. It checks its ranges in `__post_init__` with
    `regraft.config.ranges.require`, documents each field, and imports torch inside methods only.
    """


# --------------------------------------------------------------------------------------------- questions


@dataclass(frozen=True, kw_only=True)
class UnlabelledQuestion:
    """What a label-free loss may see: a question and all its choices, in an order that the answer does not decide."""

    id: str
    question: str
    choices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LabelledQuestion:
    """A question with the number of its right choice. Deliberately no subclass of `UnlabelledQuestion`."""

    id: str
    question: str
    choices: tuple[str, ...]
    answer: int

    @property
    def unlabelled(self) -> UnlabelledQuestion:
        return UnlabelledQuestion(id=self.id, question=self.question, choices=self.choices)


AnyQuestion = UnlabelledQuestion | LabelledQuestion


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The questions of a task, disjoint by id (recovery and preparation unless the task says otherwise).

    `recovery` and `preparation` are ordered so that a smaller set is a prefix of a larger one.
    `recovery` may hold unlabelled questions; all others are labelled. `selection` chooses hyper-parameters,
    `test` is what is reported.
    """

    preparation: tuple[LabelledQuestion, ...]
    recovery: tuple[LabelledQuestion, ...] | tuple[UnlabelledQuestion, ...]
    selection: tuple[LabelledQuestion, ...]
    test: tuple[LabelledQuestion, ...]


@dataclass(frozen=True, kw_only=True)
class EncodedQuestion:
    """A question as tokens: `context` once, then each of `choices` continues it on its own."""

    id: str
    context: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]
    answer: int | None = None
    characters: tuple[int, ...] = ()
    """Length of each choice's text in characters, for per-character scores; empty counts each as one."""

    @property
    def length(self) -> int:
        """Tokens of the question with all its choices: depends on no answer, so batches may be grouped by it."""
        return len(self.context) + sum(map(len, self.choices))


class Task(Component, ABC):
    """Multiple-choice questions and how they are asked."""

    name: str
    scoring: Scoring
    train_size: int | None

    @property
    @abstractmethod
    def labelled(self) -> bool:
        """Whether the recovery questions carry answers; known without reading them."""

    @abstractmethod
    def load(self, cache: Cache) -> Splits:
        """Read the questions and split them.

        Raises:
            ValueError: A row is malformed (the message names file, line and fault).
        """

    @abstractmethod
    def prompt(self, question: AnyQuestion) -> tuple[str, tuple[str, ...]]:
        """The text before the answer, and the text of each answer as it continues that prompt."""

    @abstractmethod
    def identity(self, split: Literal["preparation", "recovery", "evaluation"]) -> dict[str, Any]:
        """What decides the content of `split`, as plain data; hashed into stage keys."""


# ------------------------------------------------------------------------------------------------ models


@dataclass
class LanguageModel:
    """A causal language model with its tokenizer, and how much of the dense model is left in it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    removed: dict[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    """Structure name -> for each group the removed units, numbered as in the dense model."""
    masks: dict[str, torch.Tensor] = field(default_factory=dict)
    """Name of a parameter -> bool of its shape, True where a weight is kept: what sparsity within matrices removed. The
    weights that are gone are zero, and whoever changes weights keeps them so."""

    @property
    def pad_token_id(self) -> int:
        """The token that fills up rows; no position attends to it."""
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.tokenizer.eos_token_id)


class Model(Component, ABC):
    """Where a dense model comes from."""

    name: str

    @abstractmethod
    def load(self, cache: Cache) -> LanguageModel:
        """The model in evaluation mode on the CPU, in the dtype in which it was stored unless configured."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What decides the weights, as plain data; hashed into stage keys."""


# ------------------------------------------------------------------------------------- batches and outputs


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Questions packed for one forward pass: each row holds a question once and, behind it, none, one or all choices.

    A choice sees the question and itself, never another choice; its last token, after which nothing is read, is left
    out of `input_ids`. The position whose next token all choices share (the
    last of the question) is read once.

    Shapes: `batch` rows, `seq` tokens a row, `reads` positions that are read, `tokens` answer tokens that are scored,
    `options` (question, choice) pairs.
    """

    ids: tuple[str, ...]
    input_ids: torch.Tensor
    """(batch, seq) long."""
    position_ids: torch.Tensor
    """(batch, seq) long; every choice starts right after the question."""
    visible: torch.Tensor
    """(batch, 1, seq, seq) bool; True where the query position (dim 2) may attend to the key position (dim 3)."""
    read: torch.Tensor
    """(reads,) long; positions of the flattened (batch * seq) whose next-token distribution counts, each once."""
    read_question: torch.Tensor
    """(reads,) long; the row that each read position belongs to."""
    token_read: torch.Tensor
    """(tokens,) long; for each answer token the index into `read` of the position that predicts it."""
    token_id: torch.Tensor
    """(tokens,) long; the answer token itself."""
    token_option: torch.Tensor
    """(tokens,) long; the option that each answer token belongs to."""
    option_question: torch.Tensor
    """(options,) long; the row of each option."""
    option_choice: torch.Tensor
    """(options,) long; the number of each option among the choices of its question."""
    option_characters: torch.Tensor
    """(options,) long; the length of each option's text in characters."""
    context_read: torch.Tensor
    """(contexts,) long; with positions = all, the index into `read` of each position that predicts a question token."""
    context_token: torch.Tensor
    """(contexts,) long; that question token."""
    answer: torch.Tensor | None = None
    """(batch,) long; the right choice. None in an unlabelled batch."""


@dataclass(frozen=True, kw_only=True)
class ModelOutputs:
    """What a model says at the positions that a batch reads."""

    logits: torch.Tensor
    """(reads, vocab)"""
    hidden_states: tuple[torch.Tensor, ...] | None = None
    """(reads, hidden_size) after the embedding and each layer; only when a loss needs it."""


# --------------------------------------------------------------------------------------------- pruning


@dataclass(frozen=True, kw_only=True)
class PruningContext:
    """What a criterion may use besides the weights."""

    generator: torch.Generator
    """Seeded by the run's seed; only criteria with `uses_seed` may draw from it."""


class Criterion(Component, ABC):
    """Scores the units of a structure: the lowest go first."""

    uses_seed: ClassVar[bool] = False

    @abstractmethod
    def scores(self, model: LanguageModel, structure: Structure, context: PruningContext) -> list[torch.Tensor]:
        """One (units,) float tensor a layer, for the units that are still there."""


class Structure(Component, ABC):
    """What is removed together: finds the units of a model and takes them out."""

    name: str

    @abstractmethod
    def units(self, model: PreTrainedModel) -> list[int]:
        """Number of units in each layer."""

    @abstractmethod
    def weights(self, model: PreTrainedModel) -> list[dict[str, torch.Tensor]]:
        """For each layer, projection name -> weight as (units, other): row j is what unit j owns in it."""

    @abstractmethod
    def remove(self, model: PreTrainedModel, keep: Sequence[torch.Tensor]) -> None:
        """Keep only the units `keep` (sorted indices, one tensor a layer), in place: tensors become smaller."""


class Allocation(Component, ABC):
    """Decides how many and which units each layer loses."""

    uneven: ClassVar[bool] = False
    """Whether layers may come to have different widths."""

    @abstractmethod
    def keep(self, scores: Sequence[torch.Tensor], dense_units: Sequence[int], sparsity: float) -> list[torch.Tensor]:
        """Sorted indices of the units to keep, one tensor a layer, so that `sparsity` of `dense_units` is gone."""


class Schedule(Component, ABC):
    """When how much is removed."""

    @abstractmethod
    def targets(self, sparsity: float) -> tuple[float, ...]:
        """Cumulative sparsity after each pruning step; the last is `sparsity`."""

    def share_of_recovery(self, sparsity: float) -> tuple[float, ...]:
        """The share of the recovery's steps that follows each pruning step; sums to 1, so that totals are equal."""
        number = len(self.targets(sparsity))
        return (1.0 / number,) * number


# ------------------------------------------------------------------------------------------ distillation


@dataclass(frozen=True, kw_only=True)
class LossValue:
    """A sum over what counts, and how much counts; the mean over an optimizer step is total / count."""

    total: torch.Tensor
    """() with graph."""
    count: int


class Loss(Component, ABC):
    """What recovery minimises.

    `needs` may hold `labels` and `teacher_logits`. Without `labels` the loss gets unlabelled batches.
    """

    trains: ClassVar[bool] = True

    @property
    @abstractmethod
    def needs(self) -> frozenset[str]: ...

    @property
    @abstractmethod
    def reads(self) -> Reads:
        """Which text a batch holds: the question with the gold choice, alone, with all choices, or with one drawn."""

    @property
    @abstractmethod
    def positions(self) -> Positions:
        """Which positions are read: those that predict the answer, or all."""

    @abstractmethod
    def __call__(self, batch: Batch, student: ModelOutputs, teacher: ModelOutputs | None) -> LossValue: ...


Answers = Callable[["Batch"], "ModelOutputs"]
"""What a teacher says to a batch, without graph, on the batch's device."""


@dataclass(frozen=True, kw_only=True)
class TeacherContext:
    """What a teacher may use."""

    dense: Callable[[], LanguageModel]
    """Loads the prepared dense model."""
    dense_key: str
    """Names its weights."""
    student: LanguageModel
    """The model that learns."""
    cache: Cache
    questions: Callable[[], Iterable[Batch]]
    """Every question that will be learned from once, packed as the loss reads it, on the student's device."""
    questions_key: str
    """Names these batches, all that decides how they are computed included."""
    autocast: Callable[[], AbstractContextManager[Any]]
    """The precision in which student and teacher compute."""
    report: Callable[[Mapping[str, Any]], None]
    """Takes plain data on the teacher for the stage's record."""


class Teacher(Component, ABC):
    """Answers batches with logits."""

    @abstractmethod
    def build(self, context: TeacherContext) -> Answers:
        """A function of batches.

        Raises:
            ValueError: Teacher and student differ in vocabulary.
        """


# ----------------------------------------------------------------------------------------------- export


class Exporter(Component, ABC):
    """Writes a model into a folder, in a format that other programs load."""

    file: ClassVar[str] = "config.json"
    """What the folder has if the model is there in this format."""
    uneven: ClassVar[bool] = True
    """Whether layers may have different widths."""
    library: ClassVar[tuple[str, str] | None] = None
    """Module that it needs, and the extra that brings it; None: it needs none."""

    @abstractmethod
    def write(self, model: LanguageModel, folder: Path) -> None:
        """Write the model with its tokenizer, aside first: what is in `folder` is replaced by all of it or not at all.

        Raises:
            ValueError: The format cannot hold the model; the message says why, and what to choose.
        """


# --------------------------------------------------------------------------------------------- tracking


class Tracker(Component, ABC):
    """Mirror of a run for people to watch. The record on disk is the truth: a tracker that fails fails no run."""

    title: ClassVar[str] = "the tracker"
    """What messages call it."""
    later: ClassVar[str] = ""
    """What to do about a run that it could not mirror."""

    @abstractmethod
    def start(self, run: RunInfo) -> RunLog:
        """Begin to mirror a run, or go on with it.

        Raises:
            Exception: Of any kind; the run goes on without a mirror.
        """


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What a tracker needs to name and group a run."""

    run_id: str
    sweep: str
    config: Mapping[str, Any]
    """The resolved config as plain data."""
    choices: Mapping[str, str]
    """The chosen YAML of each config group."""
    environment: Mapping[str, Any]
    """As in the record."""
    folder: Path
    """The run's folder."""

    @property
    def name(self) -> str:
        """For people: `l2 50% kl seed 0`."""
        criterion, loss = (self.choices.get(group, "") for group in ("pruner/criterion", "loss"))
        if not self.choices:
            return f"{self.config.get('evaluate')}"  # a checkpoint of which no more is known
        sparsity = f"{100 * float(self.config['sparsity']):g}%"
        return " ".join(filter(None, [criterion, sparsity, loss, f"seed {self.config['seed']}"]))

    @property
    def tags(self) -> tuple[str, ...]:
        """What runs of many sweeps are found by."""
        groups = ("model", "task", "pruner/criterion", "schedule")
        return tuple(self.choices[group] for group in groups if group in self.choices)


class RunLog(ABC):
    """An open run of a tracker. Its calls come in the order of the run, and again in the same order if it is resumed.

    What was said before may be said again: by a run that was stopped, by stages that the cache knew, and by a record
    that is mirrored later.
    """

    @abstractmethod
    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Numbers of an optimizer step, counted over all recover stages of the run, from 1."""

    @abstractmethod
    def stage(self, stage: StageRecord, rows: Sequence[Row], tables: Mapping[str, pandas.DataFrame]) -> None:
        """What a stage did and measured, with its tables by file name; after its steps."""

    @abstractmethod
    def finish(self, record: Record | None) -> None:
        """The run has ended, `record.status` says how, and its tables are in its folder.

        None: it was stopped and goes on another time.
        """
