"""The usual multiple-choice task: read questions, split them, ask them."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from regraft.config.ranges import ConfigError, require
from regraft.interfaces import AnyQuestion, LabelledQuestion, Scoring, Splits, Task, UnlabelledQuestion

if TYPE_CHECKING:
    from regraft.cache import Cache

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, kw_only=True)
class MultipleChoice(Task):
    """Splits the training questions and words the prompt; a task adds `read`.

    The order in which training questions are dealt out is that of the SHA-256 of their ids: fixed, the same on every
    machine, and blind to answers. First come the `selection_size` selection questions, then the preparation's, then
    the recovery's.
    """

    name: str
    """Name of the task in records and figures."""
    scoring: Scoring = "cloze"
    """`cloze`: log-likelihood of each answer's text after the question. `letter`: lettered options in the prompt."""
    train_size: int | None = None
    """Number of recovery questions; null takes all. A smaller set is a prefix of a larger one."""
    subset: int | None = None
    """Which recovery questions `train_size` takes: null those that are dealt first; a number shuffles them before they
    are taken, blind to answers. `subset: ${seed}` lets each seed draw its own."""
    preparation_size: int | None = None
    """Number of training questions kept for preparation; null takes half of what selection leaves."""
    selection_size: int = 0
    """Number of training questions kept for choosing hyper-parameters."""
    disjoint: bool = True
    """Whether recovery and preparation share no question. A teacher fine-tuned on a question carries its label."""

    def __post_init__(self) -> None:
        require(self.train_size is None or self.train_size > 0, "train_size", self.train_size, "null or at least 1")
        size = self.preparation_size
        require(size is None or size >= 0, "preparation_size", size, "null or at least 0")
        require(self.selection_size >= 0, "selection_size", self.selection_size, "at least 0")

    @abstractmethod
    def read(
        self, cache: Cache
    ) -> tuple[Sequence[LabelledQuestion] | Sequence[UnlabelledQuestion], Sequence[LabelledQuestion]]:
        """The training and the test questions."""

    def source_identity(self) -> dict[str, Any]:
        """What decides the content of the source beyond the fields, such as a digest of a file."""
        return {}

    @property
    def labelled(self) -> bool:
        return True

    def load(self, cache: Cache) -> Splits:
        train, test = self.read(cache)
        questions: list[AnyQuestion] = list(train)
        dealt = sorted(questions, key=lambda question: _place(question.id))
        labelled = tuple(question for question in dealt if isinstance(question, LabelledQuestion))
        selection = labelled[: self.selection_size]
        taken = {question.id for question in selection}
        rest = [question for question in dealt if question.id not in taken]
        for key, size, left in (
            ("selection_size", self.selection_size, len(dealt)),
            ("preparation_size", self.preparation_size or 0, len(rest)),
        ):
            if self.labelled and size > left:
                raise ConfigError(f"task.{key}={size}: must be at most {left}, the training questions that are left.")
        prepare = len(rest) // 2 if self.preparation_size is None else self.preparation_size
        if not self.labelled:
            prepare = 0
        preparation = tuple(question for question in rest[:prepare] if isinstance(question, LabelledQuestion))
        recovery = rest[prepare:] if self.disjoint else rest
        if not recovery:
            raise ConfigError(
                f"task.preparation_size={self.preparation_size}: leaves no recovery question of the {len(train)} "
                f"training questions of {self.name}. Lower it, or selection_size ({self.selection_size})."
            )
        if self.train_size is not None and self.train_size > len(recovery):
            raise ConfigError(
                f"task.train_size={self.train_size}: must be at most {len(recovery)}, the training questions of "
                f"{self.name} that selection ({len(selection)}) and preparation ({len(preparation)}) leave. "
                "Lower train_size or preparation_size."
            )
        if self.subset is not None:
            recovery = sorted(recovery, key=lambda question: _place(f"{self.subset} {question.id}"))
        return Splits(
            preparation=preparation,
            recovery=tuple(recovery[: self.train_size]),  # type: ignore[arg-type]
            selection=selection,
            test=tuple(test),
        )

    def prompt(self, question: AnyQuestion) -> tuple[str, tuple[str, ...]]:
        """The wording of lm-evaluation-harness: the question, lettered options if `letter`, and `Answer:`."""
        if self.scoring == "cloze":
            return f"Question: {question.question}\nAnswer:", tuple(f" {choice}" for choice in question.choices)
        letters = LETTERS[: len(question.choices)]
        options = "\n".join(f"{letter}. {choice}" for letter, choice in zip(letters, question.choices, strict=True))
        return f"Question: {question.question}\n{options}\nAnswer:", tuple(f" {letter}" for letter in letters)

    def identity(self, split: Literal["preparation", "recovery", "evaluation"]) -> dict[str, Any]:
        plain = asdict(self) | self.source_identity()
        if split != "recovery" or self.subset is None:
            del plain["subset"]
        if split != "recovery":
            del plain["train_size"], plain["disjoint"]
        if split == "evaluation":
            del plain["preparation_size"]
        return plain


def _place(text: str) -> bytes:
    """Where a question comes in the order of dealing: fixed, the same on every machine, and random for all we know."""
    return hashlib.sha256(text.encode()).digest()
