"""Packed batches: what is where, what sees what, and that answers change nothing without labels."""

import time
from dataclasses import fields, replace

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.interfaces import EncodedQuestion
from regraft.tasks.packing import length_grouped, move, pack

TOKENS = st.lists(st.integers(1, 50), min_size=1, max_size=6).map(tuple)


@st.composite
def questions(draw):
    made = []
    for number in range(draw(st.integers(1, 5))):
        choices = tuple(draw(st.lists(TOKENS, min_size=2, max_size=4)))
        answer = draw(st.integers(0, len(choices) - 1))
        made.append(EncodedQuestion(id=f"q{number}", context=draw(TOKENS), choices=choices, answer=answer))
    return made


def random_questions(number, seed=0):
    generator = numpy.random.default_rng(seed)

    def draw(low, high):
        return tuple(generator.integers(1, 50, generator.integers(low, high)).tolist())

    return [
        EncodedQuestion(
            id=f"q{index}",
            context=draw(5, 12),
            choices=tuple(draw(1, 5) for _ in range(5)),
            answer=int(generator.integers(5)),
        )
        for index in range(number)
    ]


def equal(one, other):
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        same = torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        if not same:
            return False
    return True


def test_a_batch_written_out_by_hand():
    first = EncodedQuestion(id="a", context=(5, 6, 7), choices=((8, 9), (10,), (11, 12, 13)), answer=2)
    second = EncodedQuestion(id="b", context=(20, 21), choices=((22,), (23,)), answer=0)
    batch = pack([first, second], "choices", "all", pad_token_id=0, labelled=True)
    assert batch.ids == ("a", "b")
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 11, 12], [20, 21, 0, 0, 0, 0]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 3, 4], [0, 1, 0, 0, 0, 0]]
    assert batch.read.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert batch.read_question.tolist() == [0, 0, 0, 0, 0, 0, 1, 1]
    assert batch.token_id.tolist() == [8, 9, 10, 11, 12, 13, 22, 23]
    assert batch.token_read.tolist() == [2, 3, 2, 2, 4, 5, 7, 7]
    assert batch.token_option.tolist() == [0, 0, 1, 2, 2, 2, 3, 4]
    assert batch.option_question.tolist() == [0, 0, 0, 1, 1]
    assert batch.option_choice.tolist() == [0, 1, 2, 0, 1]
    assert batch.context_read.tolist() == [0, 1, 6]
    assert batch.context_token.tolist() == [6, 7, 21]
    assert batch.answer.tolist() == [2, 0]
    assert batch.visible[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 0, 1, 0],
        [1, 1, 1, 0, 1, 1],
    ]
    assert batch.visible[1, 0].int().tolist() == [[1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], *[[1, 0, 0, 0, 0, 0]] * 4]


@settings(max_examples=50, deadline=None)
@given(
    questions(), st.sampled_from(["gold", "question", "choices", "drawn_choice"]), st.sampled_from(["answer", "all"])
)
def test_the_shared_position_is_read_once(encoded, reads, positions):
    batch = pack(encoded, reads, positions, pad_token_id=0, labelled=True)
    packed = {
        (int(question), int(choice)): encoded[question].choices[choice]
        for question, choice in zip(batch.option_question, batch.option_choice, strict=True)
    }
    inside = sum(len(tokens) - 1 for tokens in packed.values())
    earlier = sum(len(question.context) - 1 for question in encoded) if positions == "all" else 0
    assert len(batch.read) == len(encoded) + inside + earlier
    assert len(set(batch.read.tolist())) == len(batch.read)
    assert len(batch.context_read) == len(batch.context_token) == earlier
    expected = {"gold": 1, "question": 0, "drawn_choice": 1}
    assert len(packed) == sum(expected.get(reads, len(question.choices)) for question in encoded)
    for option, tokens in enumerate(packed.values()):
        assert tuple(batch.token_id[batch.token_option == option].tolist()) == tokens


@settings(max_examples=50, deadline=None)
@given(questions(), st.sampled_from(["choices", "drawn_choice"]))
def test_every_answer_token_is_predicted_from_the_question_and_the_tokens_before_it(encoded, reads):
    batch = pack(encoded, reads, "answer", pad_token_id=0, labelled=False)
    seq = batch.input_ids.shape[1]
    for option, (row, choice) in enumerate(zip(batch.option_question, batch.option_choice, strict=True)):
        tokens = encoded[row].choices[choice]
        for number, read in enumerate(batch.token_read[batch.token_option == option]):
            at = int(batch.read[read])
            assert at // seq == row == batch.read_question[read]
            seen = batch.visible[row, 0, at % seq]
            order = batch.position_ids[row][seen]
            assert order.tolist() == list(range(len(order)))
            assert tuple(batch.input_ids[row][seen].tolist()) == encoded[row].context + tokens[:number]


@pytest.mark.parametrize("reads", ["question", "choices", "drawn_choice"])
@pytest.mark.parametrize("positions", ["answer", "all"])
def test_answers_leave_unlabelled_batches_and_their_order_as_they_are(reads, positions):
    encoded = random_questions(40)
    permuted = [
        replace(question, answer=(question.answer + 1 + index % 4) % 5) for index, question in enumerate(encoded)
    ]
    assert all(one.answer != other.answer for one, other in zip(encoded, permuted, strict=True))
    assert length_grouped(encoded, 4, 3) == length_grouped(permuted, 4, 3)
    for indices in length_grouped(encoded, 4, 3):
        one = pack([encoded[index] for index in indices], reads, positions, 0, seed=7, labelled=False)
        other = pack([permuted[index] for index in indices], reads, positions, 0, seed=7, labelled=False)
        assert one.answer is None
        assert equal(one, other)


def test_gold_packs_the_right_choice_and_needs_labels():
    encoded = random_questions(8)
    batch = pack(encoded, "gold", "answer", 0, labelled=True)
    assert batch.option_choice.tolist() == [question.answer for question in encoded] == batch.answer.tolist()
    with pytest.raises(AssertionError):
        pack(encoded, "gold", "answer", 0, labelled=False)


def test_the_drawn_choice_follows_seed_and_id_and_is_even():
    encoded = random_questions(1000)
    drawn = pack(encoded, "drawn_choice", "answer", 0, seed=1, labelled=False).option_choice
    backwards = pack(encoded[::-1], "drawn_choice", "answer", 0, seed=1, labelled=False).option_choice
    other = pack(encoded, "drawn_choice", "answer", 0, seed=2, labelled=False).option_choice
    assert torch.equal(drawn, backwards.flip(0))
    assert 0.15 < (drawn == other).float().mean() < 0.25
    assert torch.bincount(drawn).min() > 150  # 200 expected, standard deviation 12.6


def test_move_keeps_everything():
    batch = pack(random_questions(3), "choices", "all", 0, labelled=True)
    assert equal(move(batch, "cpu"), batch)
    assert move(batch, "meta").visible.device.type == "meta"
    assert move(pack(random_questions(3), "choices", "all", 0, labelled=False), "cpu").answer is None


@pytest.mark.parametrize("number", [1, 7, 64, 1000])
def test_an_epoch_holds_each_question_once(number):
    encoded = random_questions(number)
    batches = length_grouped(encoded, 8, 0)
    assert sorted(index for batch in batches for index in batch) == list(range(number))
    assert sorted(map(len, batches), reverse=True) == [8] * (number // 8) + [number % 8] * (number % 8 > 0)


def test_the_order_is_fixed_by_the_seed_and_batches_hold_similar_lengths():
    encoded = random_questions(1000)
    batches = length_grouped(encoded, 8, 0)
    assert batches == length_grouped(encoded, 8, 0)
    assert batches != length_grouped(encoded, 8, 1)
    lengths = numpy.array([question.length for question in encoded])
    spread = numpy.mean([lengths[batch].max() - lengths[batch].min() for batch in batches])
    assert spread < 0.15 * (lengths.max() - lengths.min())
    first = [lengths[batch].mean() for batch in batches]
    assert abs(numpy.corrcoef(first, numpy.arange(len(first)))[0, 1]) < 0.3


def test_packing_is_cheap_beside_a_training_step():
    encoded = [replace(question, choices=tuple(c[:2] for c in question.choices)) for question in random_questions(32)]

    def seconds():
        started = time.perf_counter()
        pack(encoded, "choices", "all", 0, labelled=False)
        return time.perf_counter() - started

    assert min(seconds() for _ in range(20)) < 0.003
