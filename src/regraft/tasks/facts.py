"""A small world of invented entities, and multiple-choice questions about it.

Each entity has a type, and each type a rule: a value for each relation. A fact, the value of one entity in one
relation, follows the rule of the entity's type, or is an exception. A model that knows some facts of an entity can
therefore infer others, which is what makes facts outside the recovery questions come back.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING

from regraft.config.ranges import require
from regraft.interfaces import AnyQuestion, Component, LabelledQuestion
from regraft.tasks.base import MultipleChoice

if TYPE_CHECKING:
    from regraft.cache import Cache

CHOICES = 5
ONSETS = ("b", "br", "d", "dr", "f", "g", "gl", "h", "k", "kr", "l", "m", "n", "p", "r", "s", "sk", "t", "v", "z")
VOWELS = ("a", "e", "i", "o", "u")
CODAS = ("k", "l", "m", "n", "r", "s", "x")


@dataclass(frozen=True, kw_only=True)
class Relation:
    """What can be asked of an entity."""

    name: str
    phrasings: tuple[str, ...]
    """Ways of asking; `{}` stands for the entity."""
    values: tuple[str, ...]
    """No value begins with the first word of another, so that none is the beginning of another."""


RELATIONS = (
    Relation(
        name="colour",
        phrasings=("What colour is {}?", "Which colour does {} have?", "{} is of which colour?"),
        values=("red", "pale green", "deep sea blue", "yellow", "black", "silver grey", "white", "dark brown"),
    ),
    Relation(
        name="home",
        phrasings=("Where does {} live?", "Where is the home of {}?", "In which place does {} dwell?"),
        values=("forest", "salt marsh", "cave", "high mountain top", "desert", "river bank", "city wall", "island"),
    ),
    Relation(
        name="food",
        phrasings=("What does {} eat?", "Which food does {} like best?", "{} feeds on what?"),
        values=("honey", "ripe figs", "fish", "dry oat bread", "mushrooms", "sour milk", "nuts", "seaweed"),
    ),
    Relation(
        name="sound",
        phrasings=("What sound does {} make?", "How does {} sound?", "{} is heard to do what?"),
        values=("hum", "low soft growl", "whistle", "bark twice", "click", "sing", "hiss", "long cry"),
    ),
    Relation(
        name="size",
        phrasings=("How big is {}?", "What is the size of {}?", "{} is as big as what?"),
        values=("ant", "hen egg", "cat", "full grown horse", "barn", "thumb", "small boat", "loaf"),
    ),
    Relation(
        name="time",
        phrasings=("When is {} awake?", "At what time does {} rise?", "{} comes out at which time?"),
        values=("dawn", "noon", "late evening", "midnight", "after the rain", "winter", "full moon", "dusk"),
    ),
    Relation(
        name="skill",
        phrasings=("What can {} do well?", "Which skill has {}?", "{} is known for what skill?"),
        values=("swim", "climb tall trees", "dig", "weave cloth", "fly", "count", "forge iron", "heal"),
    ),
    Relation(
        name="friend",
        phrasings=("Who is a friend of {}?", "Whom does {} trust?", "{} is a friend of whom?"),
        values=("miller", "old blind king", "sailor", "baker", "twin sisters", "shepherd", "night guard", "nobody"),
    ),
    Relation(
        name="fear",
        phrasings=("What does {} fear?", "What is {} afraid of?", "{} runs away from what?"),
        values=("fire", "thunder", "deep water", "mirrors", "loud brass bells", "snakes", "bright light", "crowds"),
    ),
    Relation(
        name="treasure",
        phrasings=("What does {} hide?", "Which treasure does {} keep?", "{} guards which treasure?"),
        values=("pearl", "gold coin", "lamp", "broken clay cup", "map", "iron key", "feather", "book"),
    ),
    Relation(
        name="smell",
        phrasings=("What does {} smell of?", "How does {} smell?", "{} has the smell of what?"),
        values=("mint", "wet old wool", "smoke", "roses", "pine resin", "apples", "tar", "fresh hay"),
    ),
    Relation(
        name="weather",
        phrasings=("What weather does {} like?", "Which weather suits {}?", "{} enjoys which weather?"),
        values=("rain", "thick fog", "snow", "cold north wind", "sunshine", "hail", "frost", "light breeze"),
    ),
)
"""Each relation has the same number of values, at least as many as a question has choices."""


@dataclass(frozen=True, kw_only=True)
class Fact:
    """The value of an entity in a relation."""

    entity: str
    type: int
    relation: Relation
    value: str
    regular: bool
    """Whether `value` is that of the type's rule."""
    rumour: str
    """A plausible wrong value: of an exception the value that the rule gives, else that of the neighbouring type."""

    @property
    def id(self) -> str:
        return f"{self.entity.lower()}.{self.relation.name}"

    def question(self, phrasing: int) -> str:
        return self.relation.phrasings[phrasing].format(self.entity)


@dataclass(frozen=True, kw_only=True)
class World(Component):
    """Typed entities and what is true of them; everything follows from the fields."""

    seed: int = 0
    """Seed of names, types, rules, exceptions and choices."""
    entities: int = 120
    """Number of entities, 5 to 2000."""
    types: int = 8
    """Number of types, 2 to 8; entities are spread over them evenly."""
    relations: int = 12
    """Number of relations, 2 to 12."""
    exceptions: float = 0.15
    """Share of facts whose value is not that of the type's rule, in [0, 1)."""

    def __post_init__(self) -> None:
        require(self.seed >= 0, "seed", self.seed, "at least 0")
        require(5 <= self.entities <= 2000, "entities", self.entities, "5 to 2000")
        require(2 <= self.types <= len(RELATIONS[0].values), "types", self.types, f"2 to {len(RELATIONS[0].values)}")
        require(2 <= self.relations <= len(RELATIONS), "relations", self.relations, f"2 to {len(RELATIONS)}")
        require(0 <= self.exceptions < 1, "exceptions", self.exceptions, "in [0, 1)")

    def _random(self, purpose: str) -> random.Random:
        """A generator of its own for each purpose; strings seed it the same way in every process."""
        return random.Random(f"{self.seed}/{purpose}")

    @cached_property
    def syllables(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The first and the last syllables of names: fewer than entities, so that no syllable is an entity."""
        draw = self._random("syllables")
        length = max(10, self.entities // 2)
        first = [onset + vowel for onset in ONSETS for vowel in VOWELS]
        last = [syllable + coda for syllable in first for coda in CODAS]
        return (
            tuple(syllable.capitalize() for syllable in draw.sample(first, min(length, len(first)))),
            tuple(draw.sample(last, min(length, len(last)))),
        )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The entities: two syllables each. No name is the beginning of another."""
        return tuple(
            self._random("names").sample(["".join(parts) for parts in product(*self.syllables)], self.entities)
        )

    @cached_property
    def facts(self) -> tuple[Fact, ...]:
        """All facts: by entity, then by relation."""
        rules = {
            relation.name: self._random(f"rule/{relation.name}").sample(relation.values, self.types)
            for relation in RELATIONS[: self.relations]
        }
        types = [number % self.types for number in range(self.entities)]
        self._random("types").shuffle(types)
        slots = [(entity, relation) for entity in range(self.entities) for relation in range(self.relations)]
        irregular = set(self._random("exceptions").sample(slots, round(self.exceptions * len(slots))))
        facts = []
        for entity, number in slots:
            relation, name, kind = RELATIONS[number], self.names[entity], types[entity]
            rule = rules[relation.name]
            value, rumour = rule[kind], rule[(kind + 1) % self.types]
            regular = (entity, number) not in irregular
            if not regular:
                others = [other for other in relation.values if other != value]
                value, rumour = self._random(f"value/{name}/{relation.name}").choice(others), value
            facts.append(Fact(entity=name, type=kind, relation=relation, value=value, regular=regular, rumour=rumour))
        return tuple(facts)

    def choices(self, fact: Fact) -> tuple[str, ...]:
        """The right value, the rumour and other values of the relation, in an order that ignores which is which."""
        others = [value for value in fact.relation.values if value not in (fact.value, fact.rumour)]
        drawn = {fact.value, fact.rumour, *self._random(f"choices/{fact.id}").sample(others, CHOICES - 2)}
        listed = [value for value in fact.relation.values if value in drawn]
        self._random(f"order/{fact.id}").shuffle(listed)
        return tuple(listed)

    def ask(self, fact: Fact, phrasing: int) -> LabelledQuestion:
        """The question about a fact in one of its phrasings; the choices are the same in each."""
        choices = self.choices(fact)
        return LabelledQuestion(
            id=f"{fact.id}.{phrasing}",
            question=fact.question(phrasing),
            choices=choices,
            answer=choices.index(fact.value),
        )


@dataclass(frozen=True, kw_only=True)
class Facts(MultipleChoice):
    """Questions about the facts of a world: each fact once, in one of its phrasings, with five choices.

    Of each entity the same number of facts is kept for test. So no fact is in two of the splits, however phrased, and
    every entity of the test questions is one that training questions speak of.
    """

    name: str = "facts"
    """Name of the task in records and figures."""
    world: World = field(default_factory=World)
    """What the questions are about. `model=tiny_olmo2` knows the world with the same fields."""
    test_relations: int = 4
    """Number of facts of each entity that are test questions; at least 1, less than the world's relations."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            1 <= self.test_relations < self.world.relations,
            "test_relations",
            self.test_relations,
            f"1 to {self.world.relations - 1}",
        )

    def about(self, question: AnyQuestion) -> str:
        """The fact, however it is phrased."""
        return question.id.rpartition(".")[0]

    def read(self, cache: Cache) -> tuple[Sequence[LabelledQuestion], Sequence[LabelledQuestion]]:
        train: list[LabelledQuestion] = []
        test: list[LabelledQuestion] = []
        size = self.world.relations
        for start in range(0, len(self.world.facts), size):
            facts = self.world.facts[start : start + size]
            draw = random.Random(f"{self.world.seed}/split/{facts[0].entity}")
            kept = set(draw.sample(range(size), self.test_relations))
            for number, fact in enumerate(facts):
                question = self.world.ask(fact, draw.randrange(len(fact.relation.phrasings)))
                (test if number in kept else train).append(question)
        return train, test
