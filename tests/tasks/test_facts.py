from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from scipy.stats import chi2_contingency, chisquare

from regraft.cache import Cache, digest
from regraft.config.components import Allowed, build
from regraft.config.ranges import ConfigError
from regraft.tasks.facts import CHOICES, RELATIONS, Facts, World

ROOT = Path(__file__).parents[2]


def fact_of(question_id: str) -> str:
    return question_id.rsplit(".", 1)[0]


def content(task: Facts, cache: Cache) -> str:
    train, test = task.read(cache)
    return digest([[q.id, q.question, list(q.choices), q.answer] for q in (*train, *test)])


def test_the_world_is_the_same_in_another_process(cache: Cache) -> None:
    code = (
        "from regraft.tasks.facts import Facts; from regraft.cache import digest; "
        "train, test = Facts().read(None); "
        "import sys; sys.stdout.write(digest([[q.id, q.question, list(q.choices), q.answer] for q in (*train, *test)]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONHASHSEED": "77"}
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert other.stdout == content(Facts(), cache)


def test_the_default_world_never_changes(cache: Cache) -> None:
    assert content(Facts(), cache) == "162f51cabaad2239"


def test_the_seed_changes_names_and_values() -> None:
    first, second = World(seed=0), World(seed=1)
    assert len(set(first.names) & set(second.names)) < len(first.names) / 4
    assert [fact.value for fact in first.facts] != [fact.value for fact in second.facts]


def test_relations_are_well_formed() -> None:
    assert len({relation.name for relation in RELATIONS}) == len(RELATIONS)
    assert len({len(relation.values) for relation in RELATIONS}) == 1
    for relation in RELATIONS:
        assert len(relation.values) > CHOICES
        assert len({value.split()[0] for value in relation.values}) == len(relation.values)
        assert {len(value.split()) for value in relation.values} >= {1, 2}
        assert len(set(relation.phrasings)) == len(relation.phrasings) >= 3
        assert all(phrasing.count("{}") == 1 for phrasing in relation.phrasings)


@pytest.mark.parametrize("entities", [5, 120, 2000])
def test_names_are_distinct_and_none_begins_another(entities: int) -> None:
    names = sorted(World(entities=entities).names)
    assert len(names) == entities
    assert all(name.isalpha() and name[0].isupper() and name[1:].islower() for name in names)
    # In sorted order a name comes right before the names that it begins, if there are any.
    assert not any(after.startswith(name) for name, after in zip(names, names[1:], strict=False))


def test_every_entity_has_one_fact_in_each_relation() -> None:
    world = World(entities=40, relations=7)
    facts = Counter((fact.entity, fact.relation.name) for fact in world.facts)
    assert len(facts) == 40 * 7
    assert set(facts.values()) == {1}


@pytest.mark.parametrize("exceptions", [0.0, 0.15, 0.4])
def test_values_follow_the_rule_of_the_type_but_for_the_exceptions(exceptions: float) -> None:
    world = World(exceptions=exceptions)
    rules = {(fact.type, fact.relation.name): fact.value for fact in World(exceptions=0.0).facts}
    assert len(rules) == 8 * 12
    off_rule = [fact for fact in world.facts if fact.value != rules[fact.type, fact.relation.name]]
    assert len(off_rule) == round(exceptions * len(world.facts))
    assert all(fact.regular == (fact.value == rules[fact.type, fact.relation.name]) for fact in world.facts)
    assert all(fact.rumour == rules[fact.type, fact.relation.name] for fact in off_rule)


def test_types_differ_in_every_relation_and_are_equally_frequent() -> None:
    world = World(exceptions=0.0)
    for relation in RELATIONS:
        rule = {fact.type: fact.value for fact in world.facts if fact.relation is relation}
        assert len(set(rule.values())) == 8
    types = Counter({fact.entity: fact.type for fact in world.facts}.values())
    assert set(types.values()) == {15}


def test_the_rumour_is_wrong_but_among_the_choices() -> None:
    world = World()
    for fact in world.facts:
        assert fact.rumour != fact.value
        assert {fact.value, fact.rumour} <= set(world.choices(fact))


def test_choices_are_distinct_values_of_the_relation(cache: Cache) -> None:
    values = {relation.name: set(relation.values) for relation in RELATIONS}
    train, test = Facts().read(cache)
    for question in (*train, *test):
        _, relation, phrasing = question.id.split(".")
        assert len(set(question.choices)) == len(question.choices) == CHOICES
        assert set(question.choices) <= values[relation]
        assert int(phrasing) in range(3)
    assert any(len({len(choice) for choice in question.choices}) > 1 for question in test)


def test_the_answer_is_the_value_of_the_fact_and_the_id_names_it(cache: Cache) -> None:
    task = Facts()
    facts = {fact.id: fact for fact in task.world.facts}
    train, test = task.read(cache)
    for question in (*train, *test):
        fact = facts[fact_of(question.id)]
        assert question.choices[question.answer] == fact.value
        assert fact.entity in question.question
        assert question.question == fact.relation.phrasings[int(question.id[-1])].replace("{}", fact.entity)


def test_the_place_of_the_right_choice_is_uniform_and_tells_nothing_of_the_value() -> None:
    world = World(entities=1000)
    answers = [(world.ask(fact, 0).answer, fact.relation.values.index(fact.value)) for fact in world.facts]
    assert chisquare(list(Counter(answer for answer, _ in answers).values())).pvalue > 0.001
    table = [[answers.count((answer, value)) for value in range(8)] for answer in range(CHOICES)]
    assert chi2_contingency(table).pvalue > 0.001


def test_the_order_of_choices_ignores_which_is_right() -> None:
    world = World()
    for fact in world.facts[:200]:
        swapped = replace(fact, value=fact.rumour, rumour=fact.value)
        assert world.choices(swapped) == world.choices(fact)


def test_no_fact_is_in_two_splits(cache: Cache) -> None:
    splits = Facts(selection_size=50).load(cache)
    sets = [splits.preparation, splits.recovery, splits.selection, splits.test]
    facts = [fact_of(question.id) for questions in sets for question in questions]
    assert len(facts) == len(set(facts)) == len(World().facts)
    assert all(len(questions) >= 50 for questions in sets)


def test_each_entity_is_tested_on_the_same_number_of_facts(cache: Cache) -> None:
    train, test = Facts(test_relations=5).read(cache)
    assert set(Counter(question.id.split(".")[0] for question in test).values()) == {5}
    assert {question.id.split(".")[0] for question in test} <= {question.id.split(".")[0] for question in train}
    assert len(set(Counter(question.id.split(".")[1] for question in test))) == 12


def test_all_phrasings_are_asked(cache: Cache) -> None:
    _, test = Facts().read(cache)
    assert chisquare(list(Counter(question.id[-1] for question in test).values())).pvalue > 0.001


def test_the_yaml_spells_out_the_defaults() -> None:

    plain = yaml.safe_load((ROOT / "conf/task/facts.yaml").read_text())
    assert build(plain, "task", Allowed()) == Facts()
    assert set(plain) == {"_target_", *Facts.__dataclass_fields__}
    assert set(plain["world"]) == {"_target_", *World.__dataclass_fields__}


@pytest.mark.parametrize(
    ("key", "value"),
    [("entities", 4), ("types", 1), ("types", 9), ("relations", 13), ("exceptions", 1.0), ("exceptions", -0.1)],
)
def test_bad_worlds_are_refused_by_name(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"^{key}={value}: must be"):
        World(**{key: value})


@pytest.mark.parametrize("kept", [0, 12])
def test_test_relations_leave_some_on_both_sides(kept: int) -> None:
    with pytest.raises(ConfigError, match=f"test_relations={kept}: must be 1 to 11"):
        Facts(test_relations=kept)


def test_identity_is_plain_and_holds_the_world() -> None:
    recovery = Facts().identity("recovery")
    assert json.loads(json.dumps(recovery)) == recovery
    assert recovery["world"]["entities"] == World().entities
    assert Facts(world=World(seed=1)).identity("evaluation") != Facts().identity("evaluation")
    assert Facts(train_size=9).identity("evaluation") == Facts().identity("evaluation")


def test_a_subset_draws_its_own_recovery_questions_and_smaller_ones_are_its_prefix(cache: Cache) -> None:
    def ids(**settings: int) -> list[str]:
        return [question.id for question in Facts(**settings).load(cache).recovery]

    first, second = ids(subset=1, train_size=200), ids(subset=2, train_size=200)
    assert ids(subset=1, train_size=60) == first[:60]
    # of 480 questions two draws of 200 share 83 on average, with a standard deviation of 5.4
    assert 60 < len(set(first) & set(second)) < 106
    assert sorted(ids(subset=1)) == sorted(ids())
    plain = Facts(train_size=60)
    assert Facts(train_size=60, subset=1).identity("recovery") != plain.identity("recovery")
    assert Facts(train_size=60, subset=1).identity("evaluation") == plain.identity("evaluation")
    assert "subset" not in plain.identity("recovery")
