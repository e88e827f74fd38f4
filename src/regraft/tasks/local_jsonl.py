"""Multiple-choice questions in two JSON-lines files on this machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.cache import digest
from regraft.config.ranges import ConfigError, require
from regraft.interfaces import AnyQuestion, LabelledQuestion, UnlabelledQuestion
from regraft.tasks.base import LETTERS, MultipleChoice

if TYPE_CHECKING:
    from regraft.cache import Cache


class _Fault(Exception):
    """What is wrong with a row."""


@dataclass(frozen=True, kw_only=True)
class LocalJsonl(MultipleChoice):
    """A row is `{"question": "...", "choices": ["...", "..."], "answer": ...}`, with an `"id"` if the file has one.

    `answer` is the number of the right choice from 0, its text, or its letter from A; a text that is one of the choices
    is taken as that. Rows without `id` are named by a digest of question and choices. Other keys are left alone.
    """

    name: str = "local_jsonl"
    """Name of the task in records and figures."""
    train: Path
    """File with the questions for preparation, selection and recovery; `~` is the home folder."""
    test: Path
    """File with the questions that are reported; their answers are needed."""
    labelled: bool = True
    """Whether `train` has answers; false reads none, and only losses and preparations without labels go with it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, path in (("train", self.train), ("test", self.test)):
            require(path.expanduser().is_file(), key, path, "a file that exists")
        nothing = self.labelled or self.selection_size == 0
        require(nothing, "selection_size", self.selection_size, "0 with labelled=false", "Selection needs answers.")

    def source_identity(self) -> dict[str, Any]:
        return {"train": _sha256(self.train), "test": _sha256(self.test)}

    def read(
        self, cache: Cache
    ) -> tuple[Sequence[LabelledQuestion] | Sequence[UnlabelledQuestion], Sequence[LabelledQuestion]]:
        seen: dict[str, str] = {}
        train = self._questions(self.train, self.labelled, seen)
        test = self._questions(self.test, True, seen)
        return train, test  # type: ignore[return-value]

    def _questions(self, path: Path, labelled: bool, seen: dict[str, str]) -> list[AnyQuestion]:
        """The rows of a file; `seen` maps ids to where they stand."""
        questions: list[AnyQuestion] = []
        for number, line in enumerate(path.expanduser().read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                question = _question(line, labelled, len(LETTERS) if self.scoring == "letter" else None)
                if question.id in seen:
                    raise _Fault(
                        f"id {question.id!r} is already that of {seen[question.id]} (a row without id is named by its "
                        "question and choices)"
                    )
            except _Fault as fault:
                raise ConfigError(f"{where}: {fault}. Correct or delete the row.") from None
            seen[question.id] = where
            questions.append(question)
        if not questions:
            raise ConfigError(f"{path}: holds no question. Write one JSON object a line.")
        return questions


def _question(line: bytes, labelled: bool, most: int | None) -> AnyQuestion:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _Fault(f"not UTF-8 ({error.reason} at byte {error.start} of the line)") from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise _Fault(f"not JSON ({error})") from None
    if not isinstance(row, dict):
        raise _Fault(f"must be a JSON object, is {_kind(row)}")
    for key in ("question", "choices", *(("answer",) if labelled else ())):
        if key not in row:
            raise _Fault(f"key {key!r} is missing")
    text = _text(row["question"], "question")
    choices = row["choices"]
    if not isinstance(choices, list):
        raise _Fault(f"choices must be a list of strings, is {_kind(choices)}")
    choices = tuple(_text(choice, f"choices[{number}]") for number, choice in enumerate(choices))
    if len(choices) < 2:
        raise _Fault(f"choices must be at least 2, are {len(choices)}")
    if most is not None and len(choices) > most:
        raise _Fault(f"choices must be at most {most} with scoring=letter, are {len(choices)}")
    for number, choice in enumerate(choices):
        if choice in choices[:number]:
            raise _Fault(f"choices[{number}] and choices[{choices.index(choice)}] are both {choice!r}")
    name = _name(row["id"]) if row.get("id") is not None else digest([text, *choices])
    if not labelled:
        return UnlabelledQuestion(id=name, question=text, choices=choices)
    return LabelledQuestion(id=name, question=text, choices=choices, answer=_answer(row["answer"], choices))


def _answer(answer: Any, choices: tuple[str, ...]) -> int:
    letters = LETTERS[: len(choices)]
    if isinstance(answer, str):
        if answer.strip() in choices:
            return choices.index(answer.strip())
        if len(answer) == 1 and answer in letters:
            return letters.index(answer)
        span = f"{letters[0]} to {letters[-1]}"
        raise _Fault(f"answer {answer!r} is neither one of the choices nor a letter from {span}")
    if isinstance(answer, bool) or not isinstance(answer, int):
        raise _Fault(f"answer must be a number, a choice or a letter, is {_kind(answer)}")
    if not 0 <= answer < len(choices):
        raise _Fault(f"answer must be 0 to {len(choices) - 1}, is {answer}")
    return answer


def _name(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(value, "id")


def _text(value: Any, key: str) -> str:
    """`value` without white space around it."""
    if not isinstance(value, str):
        raise _Fault(f"{key} must be a string, is {_kind(value)}")
    if not value.strip():
        raise _Fault(f"{key} is empty")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise _Fault(f"{key} holds half of a surrogate pair, which is no character") from None
    return value.strip()


def _kind(value: Any) -> str:
    """The JSON type of a value."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), f"the number {value}")


def _sha256(path: Path) -> str:
    with path.expanduser().open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
