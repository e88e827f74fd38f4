"""Regimes: what is read at each step, who wrote it, and that no answer is in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from writers import END, TASK, WORLD, Letters, context, language_model, questions

from regraft.cache import Cache
from regraft.config.ranges import ConfigError
from regraft.distillation.losses.kl import KL
from regraft.distillation.losses.weighted_sum import WeightedSum
from regraft.distillation.teachers.answers import Live
from regraft.interfaces import Batch, Batches, BatchSource, LabelledQuestion, LanguageModel, UnlabelledQuestion
from regraft.models.cost import Ledger, counted
from regraft.models.forward import forward
from regraft.recovery.batches import Questions
from regraft.recovery.loop import Trainer
from regraft.recovery.sources.asked import Asked
from regraft.recovery.sources.data_free import DataFree
from regraft.recovery.sources.in_context import InContext
from regraft.recovery.sources.more_questions import MoreQuestions
from regraft.recovery.sources.on_policy import OnPolicy
from regraft.recovery.sources.shown import Shown
from regraft.recovery.sources.teacher_written import TeacherWritten
from regraft.recovery.training import Training
from regraft.recovery.writing import write
from regraft.tasks.commonsense_qa import CommonsenseQA
from regraft.tasks.facts import Facts, World
from regraft.tasks.packing import pack
from regraft.tasks.union import Union

OTHERS = Facts(world=World(seed=1, entities=6, types=2, relations=4), test_relations=1)
SOURCES: dict[str, Batches] = {
    "questions": Asked(),
    "teacher_written": TeacherWritten(tokens=3, answers=2, temperature=1.0),
    "on_policy": OnPolicy(tokens=3),
    "mixed": OnPolicy(tokens=3, share=1.0, temperature=1.0, teacher_mixed=0.2),
    "on_policy_in_context": OnPolicy(tokens=3, data=InContext(shots=2)),
    "in_context": InContext(shots=2),
    "data_free": DataFree(number=20, tokens=4, greedy=2),
    "more_questions": MoreQuestions(extra=OTHERS, number=4),
}


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, Batch) and isinstance(other, Batch):
        return all(equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(Batch))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def steps(source: BatchSource, student: LanguageModel, numbers: range = range(4)) -> list[Batch]:
    return [batch for number in numbers for batch, _ in source.step(number, student)]


@pytest.fixture(scope="module")
def student() -> LanguageModel:
    return language_model(seed=0)


@pytest.fixture(scope="module")
def teacher() -> LanguageModel:
    return language_model(seed=1)


@pytest.mark.parametrize("name", SOURCES)
def test_answers_leave_every_label_free_batch_as_it_is_to_the_bit(name: str, student, teacher, tmp_path) -> None:
    """Also where the stage hands out answers, which it does not."""
    found = []
    for shift in (0, 1):
        made = context(Cache(tmp_path / str(shift)), student, teacher, shift=shift)
        source = SOURCES[name].source(made)
        found.append((steps(source, student), source.fingerprint()))
    (one, first), (other, second) = found
    assert len(one) == 8 and first == second
    assert all(equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", SOURCES)
def test_a_step_read_again_is_the_same_and_another_seed_reads_others(name: str, student, teacher, cache) -> None:
    one = SOURCES[name].source(context(cache, student, teacher))
    again = SOURCES[name].source(context(cache, student, teacher))
    late = steps(again, student, range(2, 4))
    assert all(equal(a, b) for a, b in zip(steps(one, student)[4:], late, strict=True))
    other = SOURCES[name].source(context(cache, student, teacher, seed=1))
    assert other.fingerprint() != one.fingerprint()
    assert not all(equal(a, b) for a, b in zip(steps(one, student), steps(other, student), strict=True))


@pytest.mark.parametrize("name", ["on_policy", "mixed", "teacher_written"])
def test_how_a_step_is_cut_moves_no_text(name: str, student, teacher, cache) -> None:
    whole, parts = (SOURCES[name].source(context(cache, student, teacher, accumulation=n)) for n in (1, 4))
    shared = [SOURCES[name].source(context(cache, student, teacher, rank=n, processes=2)) for n in range(2)]

    def read(source: BatchSource) -> set[Any]:
        return {
            (batch.ids[row], tuple(batch.token_id[batch.option_question[batch.token_option] == row].tolist()))
            for batch in steps(source, student)
            for row in range(len(batch.ids))
        }

    assert read(whole) == read(parts) == read(shared[0]) | read(shared[1])


def test_the_teacher_writes_once_and_what_it_wrote_is_told(student, teacher, cache) -> None:
    called: list[str] = []

    def writer() -> LanguageModel:
        called.append("")
        return teacher

    told: dict[str, Any] = {}
    batches = TeacherWritten(tokens=4)
    sources = [
        batches.source(context(cache, student, teacher, writer=writer, report=told.update, seed=seed))
        for seed in (0, 0, 1)
    ]
    assert len(called) == 1, "a greedy text depends on no seed"
    (known,) = {source.content() for source in sources}
    made = context(cache, student, teacher)
    asked = made.encode(made.questions)
    literal = write([(teacher, 1.0)], asked, tokens=4, temperature=0)
    assert isinstance(sources[0], Questions)
    assert [text.choices for text in sources[0].encoded] == [text.choices for text in literal]
    tokens = [token for text in literal for token in text.choices[0]]
    ended = sum(text.choices[0][-1] == END for text in literal) / 12
    with counted(Ledger()) as counts:
        write([(teacher, 1.0)], asked, tokens=4, temperature=0)
    assert (told["written_tokens"], told["written_flops"]) == (counts.teacher_tokens, counts.teacher_flops) > (0, 0)
    assert {key: told[key] for key in ("texts", "tokens", "ended")} == {
        "texts": 12,
        "tokens": len(tokens),
        "ended": ended,
    }
    TeacherWritten(tokens=5).source(context(cache, student, teacher, writer=writer))
    TeacherWritten(tokens=4).source(context(cache, student, teacher, writer=writer, writer_key="other"))
    assert len(called) == 3
    # drawn texts: as many as asked for, each with an id of its own, and of each seed
    drawn = [SOURCES["teacher_written"].source(context(cache, student, teacher, seed=seed)) for seed in (0, 1)]
    assert all(isinstance(source, Questions) and len({text.id for text in source.encoded}) == 24 for source in drawn)
    assert drawn[0].content() != drawn[1].content() != known
    assert SOURCES["teacher_written"].texts(12) == 24


def test_the_student_writes_as_it_is_then_at_its_share_of_the_steps(student, teacher, cache) -> None:
    made = context(cache, student, teacher, steps=80, accumulation=1)
    batches = OnPolicy(share=0.3, tokens=3, temperature=0.9)
    source, data = batches.source(made), Asked().source(made)
    mine = [number for number in range(80) if not equal(*(next(s.step(number, student))[0] for s in (source, data)))]
    assert 14 < len(mine) < 36
    assert isinstance(data, Questions)
    number = mine[0]
    ((asked, count),) = data.parts(number)
    ((batch, told),) = source.step(number, student)
    # the same questions, behind them what this student writes with this temperature
    expected = write([(student, 1.0)], asked, tokens=3, temperature=0.9, seed=[0, number])
    assert equal(batch, data.packed(expected)) and count == told
    other = language_model(seed=5)
    assert not equal(batch, next(source.step(number, other))[0])
    assert all(
        equal(a, b) for a, b in zip(steps(OnPolicy(share=0.0).source(made), other), steps(data, other), strict=True)
    )
    # a training that goes on in a later stage draws on from there
    later = batches.source(replace(made, first=number, steps=80 - number))
    assert equal(next(later.step(0, student))[0], batch)


def test_what_the_student_writes_is_part_of_each_steps_cost(teacher, cache) -> None:
    spent = []
    for processes in (1, 5):
        model = language_model()
        # the last of five processes has no question of its own in a part of two, and reads one all the same
        made = context(cache, model, teacher, steps=1, rank=processes - 1, processes=processes)
        source = OnPolicy(share=1.0, tokens=3).source(made)
        with counted(Ledger()) as writing:
            assert len(steps(source, model, range(1))) == 2
        trainer = Trainer(model, source, KL(), Training(batch_size=4, accumulation=2), 1, teacher=Live(teacher.model))
        if processes == 1:
            trainer.run()
            spent.append((trainer.spent.teacher_tokens - trainer.spent.tokens, writing.teacher_tokens))
        else:
            assert writing.teacher_tokens == 0
    assert spent[0][0] == spent[0][1] > 0


def test_the_share_of_the_teacher_in_what_is_written_comes_from_the_teacher(student, teacher, cache) -> None:
    source = SOURCES["mixed"].source(made := context(cache, student, teacher))
    data = Asked().source(made)
    assert isinstance(data, Questions)
    for (batch, _), (asked, _) in zip(source.step(1, student), data.parts(1), strict=True):
        text = write([(student, 0.8), (teacher, 0.2)], asked, tokens=3, temperature=1.0, seed=[0, 1])
        assert equal(batch, data.packed(text))


def test_the_other_steps_read_what_the_teacher_wrote_if_asked_to(student, teacher, cache) -> None:
    made, data = context(cache, student, teacher), TeacherWritten(tokens=3)
    never = OnPolicy(share=0.0, data=data)
    assert all(
        equal(a, b) for a, b in zip(steps(never.source(made), student), steps(data.source(made), student), strict=True)
    )
    assert never.needs_writer and not OnPolicy().needs_writer and OnPolicy(teacher_mixed=0.1).needs_writer
    assert never.texts(7) == 7 and OnPolicy(data=SOURCES["teacher_written"]).texts(7) == 14


@pytest.mark.parametrize("begins", [False, True], ids=["without a first token", "with one"])
@pytest.mark.parametrize("positions", ["answer", "all"])
@pytest.mark.parametrize("architecture", ["olmo2", "gpt2"])
def test_the_teacher_says_what_it_says_of_the_long_text_alone(
    architecture: str, positions: str, begins: bool, cache: Cache
) -> None:
    """At each position that the student reads: behind the same tokens, with the examples before them."""
    shape = {"n_positions": 1024} if architecture == "gpt2" else {}
    model = language_model(architecture, begins=begins, **shape)
    loss = KL(positions=positions)  # type: ignore[arg-type]
    made = context(cache, model, model, loss=loss)
    source = InContext(shots=2).source(made)
    demonstrated = made.preparation()[:2]
    letters = model.tokenizer
    for batch, _ in source.step(0, model):
        longer = batch.for_teacher
        assert longer is not None and len(longer.read) == len(batch.read)
        for field in (
            "ids",
            "read_question",
            "token_read",
            "token_id",
            "token_option",
            "context_read",
            "context_token",
        ):
            assert equal(getattr(batch, field), getattr(longer, field))
        said = forward(model.model, longer).logits
        number = 0
        for name in batch.ids:
            (question,) = [q for q in questions() if q.id == name]
            before, choices = TASK.prompt(question)
            best = [_best(model, TASK.prompt(q)) for q in demonstrated]
            shown = "".join(f"{TASK.prompt(q)[0]}{answer}\n\n" for q, answer in zip(demonstrated, best, strict=True))
            prompt = letters(shown + before)["input_ids"]
            alone = letters(before)["input_ids"]
            start = len(prompt) - len(alone) if positions == "all" else len(prompt) - 1
            # the question's positions, then those inside each choice
            for text, first in [
                (prompt, start),
                *((prompt + _letters(choice)[:-1], len(prompt)) for choice in choices),
            ]:
                with torch.no_grad():
                    literal = model.model(torch.tensor([text])).logits[0, first:]
                torch.testing.assert_close(said[number : number + len(literal)], literal, rtol=1e-3, atol=2e-4)
                number += len(literal)
        assert number == len(said)


def _letters(text: str) -> list[int]:
    found: list[int] = Letters()(text)["input_ids"]
    return found


def _best(model: LanguageModel, prompt: tuple[str, tuple[str, ...]]) -> str:
    """The choice that the model scores highest, read at once."""
    before = model.tokenizer(prompt[0])["input_ids"]
    scores = []
    for choice in prompt[1]:
        tokens = _letters(choice)
        with torch.no_grad():
            log_p = torch.log_softmax(model.model(torch.tensor([before + tokens])).logits[0], -1)
        scores.append(sum(float(log_p[len(before) - 1 + at, token]) for at, token in enumerate(tokens)))
    return prompt[1][scores.index(max(scores))]


def test_right_answers_are_shown_only_to_who_asks_for_them(student, teacher, cache) -> None:
    told: dict[str, Any] = {}
    gold = InContext(shots=3, answers="gold")
    own = InContext(shots=3)
    assert gold.shows_labels and not own.shows_labels and own.needs_writer and not gold.needs_writer
    contents = [
        batches.source(
            context(cache, student, teacher, shift=shift, told=batches.shows_labels, report=told.update)
        ).content()
        for batches in (gold, own)
        for shift in (0, 1)
    ]
    assert contents[0] != contents[1] and contents[2] == contents[3]
    assert told["shown"] == [WORLD.ask(fact, 0).id for fact in WORLD.facts[12:15]] and told["answers"] == "teacher"
    with pytest.raises(ConfigError, match=r"batches\.shots=99: must be at most 12"):
        InContext(shots=99).source(context(cache, student, teacher))


def test_examples_that_make_a_text_too_long_are_refused(teacher, cache) -> None:
    short = language_model()
    short.model.config.max_position_embeddings = 150
    with pytest.raises(ConfigError, match=r"batches\.shots=4: with the examples the longest question has .* takes 150"):
        InContext(shots=4).source(context(cache, short, teacher))


def test_own_words_behind_examples_are_no_longer_than_the_model_takes(teacher, cache) -> None:
    """Said before the training begins, to the token."""
    student = language_model()
    made = context(cache, student, teacher)
    data = InContext(shots=2)
    source = data.source(made)
    assert isinstance(source, Shown)
    longest = max(len(source.behind(question).context) for question in source.encoded)
    for source in (data.source(made), OnPolicy(share=1.0, tokens=30, data=data).source(made)):
        read = max(int(batch.for_teacher.position_ids.max()) + 1 for batch in steps(source, student))  # type: ignore[union-attr]
        assert read <= source.longest()
    student.model.config.max_position_embeddings = longest + 30 - 1
    OnPolicy(tokens=30, data=data).source(made)
    with pytest.raises(
        ConfigError, match=rf"batches\.tokens=31: .* take {longest + 30} positions, .*batches\.data\.shots"
    ):
        OnPolicy(tokens=31, data=data).source(made)
    OnPolicy(share=0.0, tokens=31, data=data).source(made)


def test_the_teacher_chooses_its_examples_answers_once_and_it_counts(student, teacher, cache) -> None:
    asked: list[str] = []

    def writer() -> LanguageModel:
        asked.append("")
        return teacher

    told: dict[str, Any] = {}
    made = context(cache, student, teacher, writer=writer, report=told.update)
    for seed in (0, 0, 1):
        InContext(shots=3).source(replace(made, seed=seed))
    assert len(asked) == 1
    encoded = [replace(question, answer=None) for question in made.encode(made.preparation()[:3])]
    with counted(Ledger()) as counts, torch.no_grad():
        forward(teacher.model, pack(encoded, "choices", "answer", 0, labelled=False))
    assert (told["written_tokens"], told["written_flops"]) == (counts.teacher_tokens, counts.teacher_flops) > (0, 0)
    InContext(shots=3, normalisation="character").source(made)
    InContext(shots=2).source(made)
    InContext(shots=3).source(replace(made, writer_key="other"))
    assert len(asked) == 4


def test_answers_are_chosen_as_choices_are_scored(student, cache) -> None:
    """A teacher that holds all tokens alike takes the shortest choice, and by the character the most for its length."""
    even = language_model(seed=1)
    even.model.get_output_embeddings().weight.data.zero_()
    made = context(cache, student, even, writer_key="even")
    (question,) = made.preparation()[:1]
    other = replace(question, choices=("aaaa", "b", "cc"))
    made = replace(made, preparation=lambda: [other])
    shown = {}
    for normalisation in ("sum", "character"):
        source = InContext(shots=1, normalisation=normalisation).source(made)
        assert isinstance(source, Shown)
        shown[normalisation] = source.shown
    # a letter is a token; the space before a choice is one too, and no character of it
    for normalisation, choice in (("sum", "b"), ("character", "aaaa")):
        before = TASK.prompt(other)[0]
        assert shown[normalisation] == tuple(_letters(f"{before} {choice}\n\n"))


def test_texts_from_nothing_begin_with_words_of_their_own(student, teacher, cache) -> None:
    told: dict[str, Any] = {}
    source = SOURCES["data_free"].source(context(cache, student, teacher, report=told.update))
    assert isinstance(source, Questions) and told["texts"] == len(source.encoded) == 20
    firsts = [text.context for text in source.encoded]
    assert len(set(firsts)) == 20 and all(len(first) == 1 and first[0] > END for first in firsts)
    literal = write([(teacher, 1.0)], source.encoded, tokens=4, temperature=1.0, seed=0, greedy=2)
    assert [text.choices for text in source.encoded] == [text.choices for text in literal]
    begun = language_model(begins=True)
    source = DataFree(number=200, tokens=2, greedy=0).source(context(cache, begun, begun, writer_key="begun"))
    assert isinstance(source, Questions)
    # more texts than words: each word comes before any comes again
    assert all(text.context[0] == 1 for text in source.encoded) and len({t.context for t in source.encoded}) == 97 - 3


def test_extra_questions_are_those_that_the_runs_task_does_not_ask(student, teacher, cache) -> None:
    """In no split of it, in whatever words: neither what it tests nor what its teacher was prepared on."""

    def facts(questions: Sequence[Any]) -> set[str]:
        names = [q.id.removeprefix("extra/").removeprefix("facts:") for q in questions]
        return {name.rpartition(".")[0] for name in names}

    task = Facts(world=WORLD, test_relations=2, preparation_size=2, selection_size=1, train_size=3)
    splits = task.load(cache)
    made = context(cache, student, teacher, task=task, questions=[q.unlabelled for q in splits.recovery])
    # the same world, of which less is kept for test
    same = Facts(world=WORLD, test_relations=1, preparation_size=0)
    everything = same.load(cache).recovery
    assert facts(splits.test) & facts(everything), "what the run tests is there"
    kept = (*splits.preparation, *splits.selection, *splits.test)
    for extra in (same, Union(tasks={"facts": same})):
        source = MoreQuestions(extra=extra, number=6).source(made)
        assert isinstance(source, Questions) and len(source.encoded) == 9
        assert [text.id for text in source.encoded[:3]] == [q.id for q in splits.recovery]
        assert facts(source.encoded[3:]) == facts(everything) - facts(kept) - facts(splits.recovery)
        assert all(text.id.startswith("extra/") and text.answer is None for text in source.encoded[3:])
        with pytest.raises(ConfigError, match=r"batches\.number=7: must be at most 6"):
            MoreQuestions(extra=extra, number=7).source(made)
    assert MoreQuestions(extra=same, number=6).texts(3) == 9


def test_questions_are_known_again_by_their_words() -> None:
    one = LabelledQuestion(id="1", question="What  is it?", choices=("This", "that"), answer=0)
    alike = UnlabelledQuestion(id="2", question="what is it?", choices=("that", "this"))
    task = CommonsenseQA()
    assert task.about(one) == task.about(alike) != task.about(replace(alike, choices=("that", "those")))


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        (lambda: TeacherWritten(answers=2), "temperature=0.0: must be above 0 with answers"),
        (lambda: TeacherWritten(tokens=0), "tokens"),
        (lambda: OnPolicy(share=1.5), "share"),
        (lambda: OnPolicy(temperature=0.0), "temperature"),
        (lambda: OnPolicy(teacher_mixed=1.0), "teacher_mixed"),
        (lambda: OnPolicy(data=OnPolicy()), "data=OnPolicy"),
        (lambda: DataFree(greedy=40), "greedy"),
        (lambda: InContext(shots=0), "shots"),
        (lambda: MoreQuestions(extra=OTHERS, number=0), "number"),
    ],
)
def test_values_out_of_range_are_refused(wrong: Callable[[], Batches], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        wrong()


@pytest.mark.parametrize("name", ["on_policy", "mixed"])
def test_a_training_that_stops_goes_on_with_the_texts_it_would_have_written(name: str, cache: Cache, teacher) -> None:
    def train(stops: bool) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
        model, lines, loss = language_model(seed=0), [], KL()
        source = SOURCES[name].source(context(cache, model, teacher, steps=6))
        training = Training(batch_size=4, accumulation=2, steps=6, learning_rate=1e-2)

        def trainer() -> Trainer:
            return Trainer(model, source, loss, training, 6, teacher=Live(teacher.model), observe=lines.append)

        first = trainer()
        if stops:
            first.run(until=3)
            kept = first.state()
            model = language_model(seed=9)
            first = trainer()
            first.restore(kept)
        first.run()
        return model.model.state_dict(), lines

    (whole, told), (again, other) = train(stops=False), train(stops=True)
    assert [line["loss"] for line in told] == [line["loss"] for line in other][-6:]
    assert all(torch.equal(tensor, again[key]) for key, tensor in whole.items())


def test_a_sum_of_losses_reads_what_is_written(student, teacher, cache) -> None:
    loss = WeightedSum(terms={"one": KL(), "two": KL(temperature=2.0)})
    source = OnPolicy(share=1.0, tokens=2).source(context(cache, student, teacher, loss=loss))
    for batch, _ in source.step(0, student):
        said, taught = forward(student.model, batch), forward(teacher.model, batch)
        value = loss(batch, said, taught)
        assert float(value.total.detach()) > 0 and batch.answer is None
