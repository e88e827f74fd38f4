from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from regraft.cache import Cache, digest
from regraft.config.ranges import ConfigError
from regraft.interfaces import LabelledQuestion
from regraft.sources.base import SourceError
from regraft.sources.wheel import WheelMembers
from regraft.tasks.commonsense_qa import TRAIN, VALIDATION, WHEEL, CommonsenseQA

QUESTIONS = {
    "train": [
        LabelledQuestion(id="t1", question="Where is  it?", choices=("a b", "c", "d", "e", "f"), answer=3),
        LabelledQuestion(id="t2", question="Query: Answer:", choices=("x", "y", "z", "x", "w"), answer=0),
    ],
    "validation": [LabelledQuestion(id="v1", question="Who?", choices=("q", "r", "s", "t", "u"), answer=4)],
}


def official(question: LabelledQuestion) -> dict[str, Any]:
    return {
        "id": question.id,
        "question": question.question,
        "question_concept": "concept",
        "choices": {"label": list("ABCDE"), "text": list(question.choices)},
        "answerKey": "ABCDE"[question.answer],
    }


def write_official(folder: Path, questions: dict[str, list[LabelledQuestion]]) -> None:
    """The layout of the hub's repository."""
    import pyarrow
    import pyarrow.parquet

    (folder / "data").mkdir(parents=True)
    for split, rows in questions.items():
        table = pyarrow.Table.from_pylist([official(row) for row in rows])
        pyarrow.parquet.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")


def write_requests(file: Path, questions: list[LabelledQuestion]) -> None:
    """The layout of the wheel: every choice of every question, then all of it again without the question's text."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(file, "wt", encoding="utf-8") as lines:
        for shift in (0, 1_000_000):
            for number, question in enumerate(questions):
                document = {
                    "id": question.id,
                    "query": f"Question: {question.question}\nAnswer:",
                    "choices": list(question.choices),
                    "gold": question.answer,
                }
                for choice in range(5):
                    row = {"doc": document, "idx": choice, "doc_id": number + shift, "label": question.answer}
                    lines.write(json.dumps(row) + "\n")


@pytest.fixture
def own_datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    datasets.disable_progress_bars()


@pytest.mark.usefixtures("own_datasets_cache")
def test_both_sources_give_the_same_questions(tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    write_official(tmp_path / "official", QUESTIONS)
    hub = CommonsenseQA(source="hub", path=str(tmp_path / "official")).read(cache)
    write_requests(tmp_path / "wheel" / TRAIN, QUESTIONS["train"])
    write_requests(tmp_path / "wheel" / VALIDATION, QUESTIONS["validation"])
    monkeypatch.setattr(WheelMembers, "fetch", lambda self, cache: tmp_path / "wheel")
    assert CommonsenseQA().read(cache) == hub == (QUESTIONS["train"], QUESTIONS["validation"])


@pytest.mark.usefixtures("own_datasets_cache")
def test_hidden_labels_are_refused(tmp_path: Path, cache: Cache) -> None:
    import pyarrow
    import pyarrow.parquet

    write_official(tmp_path, QUESTIONS)
    hidden = [official(QUESTIONS["validation"][0]) | {"answerKey": ""}]
    file = tmp_path / "data" / "validation-00000-of-00001.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(hidden), file)
    with pytest.raises(SourceError, match=r"\(validation\): row v1 must have .*answerKey"):
        CommonsenseQA(source="hub", path=str(tmp_path)).read(cache)


@pytest.mark.usefixtures("own_datasets_cache")
def test_unreachable_hub(cache: Cache) -> None:
    with pytest.raises(SourceError, match=r"hub:tau/commonsense_qa \(train\): cannot be read .*task.source=wheel"):
        CommonsenseQA(source="hub").read(cache)


def test_fields_of_the_hub_go_with_the_hub() -> None:
    with pytest.raises(ConfigError, match="path=mine: must be tau/commonsense_qa with source=wheel"):
        CommonsenseQA(path="mine")
    with pytest.raises(ConfigError, match="revision=abc: must be null with source=wheel"):
        CommonsenseQA(revision="abc")


def test_identity_follows_the_source() -> None:
    wheel, hub = CommonsenseQA(), CommonsenseQA(source="hub")
    assert wheel.identity("recovery")["source"] == WHEEL.identity()
    assert wheel.identity("recovery") != hub.identity("recovery")
    assert hub.identity("recovery") != CommonsenseQA(source="hub", revision="x").identity("recovery")


def test_identity_follows_a_folder_in_place_of_the_hub(tmp_path: Path) -> None:
    write_official(tmp_path, QUESTIONS)
    task = CommonsenseQA(source="hub", path=str(tmp_path))
    before = digest(task.identity("evaluation"))
    file = tmp_path / "data" / "train-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes() + b" ")
    assert digest(task.identity("evaluation")) != before


@pytest.mark.slow
def test_real_questions() -> None:
    """Counts and answers of the official files, from the package index."""
    task = CommonsenseQA(selection_size=1000, preparation_size=3000)
    splits = task.load(Cache())
    sizes = [len(part) for part in (splits.preparation, splits.selection, splits.recovery, splits.test)]
    assert sizes == [3000, 1000, 9741 - 4000, 1221]
    everything = [*splits.preparation, *splits.selection, *splits.recovery, *splits.test]
    assert len({question.id for question in everything}) == 9741 + 1221
    assert {len(question.choices) for question in everything} == {5}
    by_id = {question.id: question for question in everything}
    assert by_id["1afa02df02c908a558b4036e80242fac"] == LabelledQuestion(
        id="1afa02df02c908a558b4036e80242fac",
        question="A revolving door is convenient for two direction travel, but it also serves as a security measure at "
        "a what?",
        choices=("bank", "library", "department store", "mall", "new york"),
        answer=0,
    )
    answers = [sum(question.answer == number for question in splits.test) for number in range(5)]
    assert answers == [239, 255, 241, 251, 235]
