"""Several tasks as one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from regraft.cache import Cache
from regraft.config.ranges import ConfigError
from regraft.tasks.facts import Facts, World
from regraft.tasks.local_jsonl import LocalJsonl
from regraft.tasks.union import Union, task_of

SMALL = {
    name: Facts(world=World(seed=seed, entities=entities, relations=4, types=4), test_relations=1, selection_size=4)
    for name, seed, entities in (("a", 0, 12), ("b", 1, 24))
}


def test_it_holds_the_questions_of_all_split_as_they_are(cache: Cache) -> None:
    splits = Union(tasks=SMALL).load(cache)
    own = {name: task.load(cache) for name, task in SMALL.items()}
    for split in ("preparation", "recovery", "selection", "test"):
        ids = [question.id for question in getattr(splits, split)]
        assert sorted(ids) == sorted(f"{name}:{q.id}" for name in SMALL for q in getattr(own[name], split)), split
    # each task keeps its order: a smaller set is a prefix of a larger one
    mixed = [question.id for question in splits.recovery]
    assert [one for one in mixed if one.startswith("a:")] == [f"a:{q.id}" for q in own["a"].recovery]
    fewer = Union(tasks=SMALL, train_size=12).load(cache).recovery
    assert list(fewer) == list(splits.recovery[:12])
    assert Counter(task_of(question.id) for question in fewer) == {"a": 4, "b": 8}


def test_each_question_is_asked_as_its_own_task_asks_it(cache: Cache) -> None:
    union = Union(tasks=SMALL)
    splits = union.load(cache)
    for question in splits.test[:6]:
        own = {q.id: q for q in SMALL[task_of(question.id)].load(cache).test}[question.id.partition(":")[2]]
        assert union.prompt(question) == SMALL["a"].prompt(own) and question.answer == own.answer
        assert union.prompt(question.unlabelled) == union.prompt(question)


def test_its_identity_is_that_of_its_tasks() -> None:
    union = Union(tasks=SMALL)
    assert union.identity("evaluation") != Union(tasks={"a": SMALL["a"]}).identity("evaluation")
    assert union.identity("evaluation") == Union(tasks=SMALL, train_size=3).identity("evaluation")
    assert union.identity("recovery") != Union(tasks=SMALL, train_size=3).identity("recovery")
    assert union.labelled and union.scoring == "cloze"


def test_what_is_no_union_is_refused(cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be at least one task"):
        Union(tasks={})
    with pytest.raises(ConfigError, match=r"tasks=a:b: must be a name without ':'"):
        Union(tasks={"a:b": SMALL["a"]})
    with pytest.raises(
        ConfigError, match=r"one value of scoring, but tasks\.a\.scoring=cloze, tasks\.b\.scoring=letter"
    ):
        Union(tasks={"a": SMALL["a"], "b": Facts(scoring="letter")})
    file = tmp_path / "questions.jsonl"
    file.write_text('{"question": "?", "choices": ["a", "b"]}\n')
    with pytest.raises(ConfigError, match="one value of labelled"):
        Union(tasks={"a": SMALL["a"], "b": LocalJsonl(train=file, test=file, labelled=False)})
    with pytest.raises(ConfigError, match=r"task\.train_size=999: must be at most"):
        Union(tasks=SMALL, train_size=999).load(cache)
