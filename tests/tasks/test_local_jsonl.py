from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from regraft.cache import Cache, digest
from regraft.config.components import Allowed, build
from regraft.config.ranges import ConfigError
from regraft.interfaces import LabelledQuestion, UnlabelledQuestion
from regraft.tasks.local_jsonl import LocalJsonl

GOOD = {"question": "Which is a fruit?", "choices": ["apple", "brick", "chair"], "answer": 0}


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows(prefix: str, number: int, **fields: Any) -> list[dict[str, Any]]:
    choices = ["one", "two", "three"]
    return [
        {"id": f"{prefix}{index}", "question": f"{prefix} {index}?", "choices": choices, "answer": index % 3} | fields
        for index in range(number)
    ]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return {
        "train": write(tmp_path / "train.jsonl", rows("train", 20)),
        "test": write(tmp_path / "test.jsonl", rows("test", 6)),
    }


def test_rows_become_questions(files: dict[str, Path], cache: Cache) -> None:
    write(files["train"], [GOOD | {"id": 7}])
    train, test = LocalJsonl(**files).read(cache)
    assert list(train) == [
        LabelledQuestion(id="7", question="Which is a fruit?", choices=("apple", "brick", "chair"), answer=0)
    ]
    assert [question.id for question in test] == [f"test{index}" for index in range(6)]


@pytest.mark.parametrize(
    ("answer", "choices", "expected"),
    [
        (2, ["x", "y", "z"], 2),
        ("y", ["x", "y", "z"], 1),
        ("C", ["x", "y", "z"], 2),
        ("A", ["B", "A"], 1),
        (" y ", ["x", "y"], 1),
        ("2", ["2", "1", "0"], 0),
    ],
)
def test_three_ways_to_give_an_answer(
    files: dict[str, Path], cache: Cache, answer: object, choices: list[str], expected: int
) -> None:
    write(files["train"], [{"question": "?", "choices": choices, "answer": answer}])
    train, _ = LocalJsonl(**files).read(cache)
    assert isinstance(train[0], LabelledQuestion)
    assert train[0].answer == expected


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in GOOD.items() if name != key}


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"{'question': 1}", "not JSON"),
        (b'{"question": "a"', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1, 2]", "must be a JSON object, is a list"),
        (b"null", "must be a JSON object, is null"),
        ('{"question": "caf\xe9"}'.encode("latin-1"), "not UTF-8"),
        (without("question"), "key 'question' is missing"),
        (without("choices"), "key 'choices' is missing"),
        (without("answer"), "key 'answer' is missing"),
        (GOOD | {"question": 3}, "question must be a string, is the number 3"),
        (GOOD | {"question": "  "}, "question is empty"),
        (GOOD | {"question": "\ud800"}, "half of a surrogate pair"),
        (GOOD | {"choices": "apple"}, "choices must be a list of strings, is a string"),
        (GOOD | {"choices": ["apple", None]}, r"choices\[1\] must be a string, is null"),
        (GOOD | {"choices": ["apple", ""]}, r"choices\[1\] is empty"),
        (GOOD | {"choices": ["apple"]}, "choices must be at least 2, are 1"),
        (GOOD | {"choices": []}, "choices must be at least 2, are 0"),
        (GOOD | {"choices": ["apple", "pear", "apple "]}, r"choices\[2\] and choices\[0\] are both 'apple'"),
        (GOOD | {"answer": 3}, "answer must be 0 to 2, is 3"),
        (GOOD | {"answer": -1}, "answer must be 0 to 2, is -1"),
        (GOOD | {"answer": True}, "answer must be a number, a choice or a letter, is true or false"),
        (GOOD | {"answer": 1.0}, "answer must be a number, a choice or a letter, is the number 1.0"),
        (GOOD | {"answer": None}, "is null"),
        (GOOD | {"answer": "D"}, "answer 'D' is neither one of the choices nor a letter from A to C"),
        (GOOD | {"answer": "pear"}, "answer 'pear' is neither"),
        (GOOD | {"answer": ""}, "answer '' is neither"),
        (GOOD | {"id": [1]}, "id must be a string, is a list"),
        (GOOD | {"id": ""}, "id is empty"),
    ],
)
@pytest.mark.parametrize("file", ["train", "test"])
def test_malformed_row(files: dict[str, Path], cache: Cache, file: str, line: Any, fault: str) -> None:
    content = line if isinstance(line, bytes) else json.dumps(line).encode()
    good = files[file].read_bytes()
    files[file].write_bytes(good + b"\n" + content + b"\n")
    number = good.count(b"\n") + 2
    with pytest.raises(ConfigError, match=rf"{file}\.jsonl:{number}: .*{fault}"):
        LocalJsonl(**files).load(cache)


def test_duplicate_id(files: dict[str, Path], cache: Cache) -> None:
    write(files["train"], [GOOD | {"id": "a"}, GOOD | {"id": "b"}, GOOD | {"id": "a"}])
    with pytest.raises(ConfigError, match=r"train\.jsonl:3: id 'a' is already that of .*train\.jsonl:1"):
        LocalJsonl(**files).load(cache)


def test_question_of_train_in_test(files: dict[str, Path], cache: Cache) -> None:
    write(files["train"], [GOOD])
    write(files["test"], [*rows("test", 1), GOOD | {"answer": 2}])
    with pytest.raises(ConfigError, match=r"test\.jsonl:2: id .* is already that of .*train\.jsonl:1"):
        LocalJsonl(**files).load(cache)


@pytest.mark.parametrize("content", [b"", b"\n\n  \n", b"\xef\xbb\xbf"])
def test_empty_file(files: dict[str, Path], cache: Cache, content: bytes) -> None:
    files["test"].write_bytes(content)
    with pytest.raises(ConfigError, match=r"test\.jsonl: holds no question"):
        LocalJsonl(**files).load(cache)


def test_line_separators_inside_text_end_no_line(files: dict[str, Path], cache: Cache) -> None:
    row = GOOD | {"question": "One\u2028two\x85three?"}
    files["train"].write_bytes(b"\xef\xbb\xbf" + json.dumps(row, ensure_ascii=False).encode() + b"\r\n")
    train, _ = LocalJsonl(**files).read(cache)
    assert [question.question for question in train] == [row["question"]]


def test_too_many_choices_for_letters(files: dict[str, Path], cache: Cache) -> None:
    write(files["train"], [GOOD | {"choices": [f"choice {number}" for number in range(27)]}])
    assert len(LocalJsonl(**files).read(cache)[0][0].choices) == 27
    with pytest.raises(ConfigError, match=r"train\.jsonl:1: choices must be at most 26 with scoring=letter, are 27"):
        LocalJsonl(**files, scoring="letter").read(cache)


def test_name_of_a_row_without_id_ignores_the_answer(files: dict[str, Path], cache: Cache) -> None:
    def name(**fields: Any) -> str:
        write(files["train"], [GOOD | fields])
        return LocalJsonl(**files).read(cache)[0][0].id

    assert name() == name(answer=2) == name(answer="chair") == digest([GOOD["question"], *GOOD["choices"]])
    assert name() != name(question="Which is none?")
    assert name() != name(choices=["apple", "brick", "stone"])


def test_permuted_answers_move_no_question(files: dict[str, Path], cache: Cache) -> None:
    def views() -> list[list[UnlabelledQuestion]]:
        splits = LocalJsonl(**files, selection_size=3, preparation_size=5).load(cache)
        parts = (splits.preparation, splits.recovery, splits.selection, splits.test)
        return [[q.unlabelled if isinstance(q, LabelledQuestion) else q for q in part] for part in parts]

    before = views()
    assert [len(part) for part in before] == [5, 12, 3, 6]
    changed = [row | {"answer": (row["answer"] + 1) % 3} for row in rows("train", 20)]
    write(files["train"], changed)
    assert views() == before


def test_unlabelled_rows(files: dict[str, Path], cache: Cache) -> None:
    bare = [{key: value for key, value in row.items() if key != "answer"} for row in rows("train", 20)]
    write(files["train"], bare)
    with pytest.raises(ConfigError, match=r"train\.jsonl:1: key 'answer' is missing"):
        LocalJsonl(**files).load(cache)
    task = LocalJsonl(**files, labelled=False)
    splits = task.load(cache)
    assert not task.labelled
    assert splits.preparation == ()
    assert len(splits.recovery) == 20
    assert all(isinstance(question, UnlabelledQuestion) for question in splits.recovery)
    assert all(isinstance(question, LabelledQuestion) for question in splits.test)


def test_answers_of_unlabelled_rows_are_not_read(files: dict[str, Path], cache: Cache) -> None:
    write(files["train"], rows("train", 20, answer="anything"))
    labels_ignored = LocalJsonl(**files, labelled=False).load(cache).recovery
    write(files["train"], rows("train", 20))
    assert LocalJsonl(**files, labelled=False).load(cache).recovery == labels_ignored


def test_selection_needs_answers(files: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="selection_size=3: must be 0 with labelled=false"):
        LocalJsonl(**files, labelled=False, selection_size=3)


def test_identity_follows_the_files(files: dict[str, Path], tmp_path: Path) -> None:
    task = LocalJsonl(**files)
    before = digest(task.identity("recovery"))
    copies = {key: write(tmp_path / f"{key}.copy", rows(key, 20 if key == "train" else 6)) for key in files}
    assert digest(LocalJsonl(**copies).identity("recovery")) == before
    write(files["test"], rows("test", 5))
    assert digest(task.identity("recovery")) != before


def test_absent_file(files: dict[str, Path]) -> None:
    node = {
        "_target_": "regraft.tasks.local_jsonl.LocalJsonl",
        "train": "nowhere.jsonl",
        "test": str(files["test"]),
    }
    with pytest.raises(ConfigError, match=r"task\.train=nowhere\.jsonl: must be a file that exists"):
        build(node, "task", Allowed())
    with pytest.raises(ConfigError, match=r"task\.test: is missing; set it with task\.test="):
        build(node | {"train": str(files["train"]), "test": "???"}, "task", Allowed())
