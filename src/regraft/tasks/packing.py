"""Packs questions into batches: each question once, its choices behind it, none of which sees another."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from regraft.interfaces import Batch, EncodedQuestion, Positions, Reads

if TYPE_CHECKING:
    import torch

PADDING = -1
QUESTION = 0
BATCHES_A_CHUNK = 50
"""Batches are sorted by length among so many: little padding, yet an order that is still random."""


def pack(
    encoded: Sequence[EncodedQuestion],
    reads: Reads,
    positions: Positions,
    pad_token_id: int,
    seed: int = 0,
    *,
    labelled: bool,
) -> Batch:
    """One batch of `encoded`, a row each, in the given order.

    The last token of a choice, after which nothing is read, is left out of `input_ids`. Padding is at position 0, and
    sees the row's first token only, so that no query is without a key. An unlabelled batch is the same to the bit
    whatever the answers are.

    Args:
        encoded: The questions.
        reads: `gold`: the right choice follows the question; `question`: none; `choices`: all; `drawn_choice`: one,
            drawn by the SHA-256 of `seed` and the question's id.
        positions: `answer`: read the last position of the question and those inside the packed choices; `all`: the
            earlier positions of the question too.
        pad_token_id: Fills up the rows.
        seed: Moves `drawn_choice` only.
        labelled: Whether the batch carries the answers; `gold` needs them.
    """
    import numpy
    import torch

    assert encoded, "a batch has at least one question"
    assert labelled or reads != "gold", "the gold choice is read by labelled batches only"
    packed = [_packed_choices(question, reads, seed) for question in encoded]
    lengths = [
        len(question.context) + sum(len(question.choices[choice]) - 1 for choice in choices)
        for question, choices in zip(encoded, packed, strict=True)
    ]
    seq = max(lengths)
    input_ids = numpy.full((len(encoded), seq), pad_token_id, dtype=numpy.int64)
    position_ids = numpy.zeros((len(encoded), seq), dtype=numpy.int64)
    segment = numpy.full((len(encoded), seq), PADDING, dtype=numpy.int64)
    read: list[int] = []
    read_question: list[int] = []
    token_read: list[int] = []
    token_id: list[int] = []
    token_option: list[int] = []
    option_question: list[int] = []
    option_choice: list[int] = []
    option_characters: list[int] = []
    context_read: list[int] = []
    context_token: list[int] = []
    for row, (question, choices) in enumerate(zip(encoded, packed, strict=True)):
        context = question.context
        size = len(context)
        input_ids[row, :size] = context
        position_ids[row, :size] = numpy.arange(size)
        segment[row, :size] = QUESTION
        first = row * seq
        if positions == "all":
            start = question.unread
            context_read.extend(range(len(read), len(read) + size - 1 - start))
            context_token.extend(context[start + 1 :])
            read.extend(range(first + start, first + size - 1))
        shared = len(read)
        read.append(first + size - 1)
        at = size
        for choice in choices:
            tokens = question.choices[choice]
            inside = len(tokens) - 1
            end = at + inside
            input_ids[row, at:end] = tokens[:-1]
            position_ids[row, at:end] = numpy.arange(size, size + inside)
            segment[row, at:end] = choice + 1
            token_read.append(shared)
            token_read.extend(range(len(read), len(read) + inside))
            token_id.extend(tokens)
            token_option.extend([len(option_question)] * len(tokens))
            option_question.append(row)
            option_choice.append(choice)
            option_characters.append(question.characters[choice] if question.characters else 1)
            read.extend(range(first + at, first + end))
            at = end
        read_question.extend([row] * (len(read) - len(read_question)))

    key, query = segment[:, None, :], segment[:, :, None]
    causal = numpy.tril(numpy.ones((seq, seq), dtype=bool))
    visible = causal & ((key == QUESTION) | (key == query))
    visible &= query != PADDING
    visible[:, :, 0] = True

    def tensor(values: Sequence[int]) -> torch.Tensor:
        return torch.from_numpy(numpy.array(values, dtype=numpy.int64))

    answer = None
    if labelled:
        answers = [question.answer for question in encoded if question.answer is not None]
        assert len(answers) == len(encoded), "a labelled batch is made of labelled questions"
        answer = tensor(answers)
    return Batch(
        ids=tuple(question.id for question in encoded),
        input_ids=torch.from_numpy(input_ids),
        position_ids=torch.from_numpy(position_ids),
        visible=torch.from_numpy(visible[:, None]),
        read=tensor(read),
        read_question=tensor(read_question),
        token_read=tensor(token_read),
        token_id=tensor(token_id),
        token_option=tensor(token_option),
        option_question=tensor(option_question),
        option_choice=tensor(option_choice),
        option_characters=tensor(option_characters),
        context_read=tensor(context_read),
        context_token=tensor(context_token),
        answer=answer,
    )


def _packed_choices(question: EncodedQuestion, reads: Reads, seed: int) -> Sequence[int]:
    if reads == "question":
        return ()
    if reads == "choices":
        return range(len(question.choices))
    if reads == "drawn_choice":
        drawn = hashlib.sha256(f"{seed}:{question.id}".encode()).digest()
        return (int.from_bytes(drawn[:8], "big") % len(question.choices),)
    assert question.answer is not None, "the gold choice is read of labelled questions only"
    return (question.answer,)


def move(batch: Batch, device: torch.device | str) -> Batch:
    """The batch with its tensors on `device`."""
    import torch

    moved: dict[str, Any] = {}
    for field in fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, torch.Tensor):
            moved[field.name] = value.to(device, non_blocking=True)
        elif isinstance(value, Batch):
            moved[field.name] = move(value, device)
    return replace(batch, **moved)


def length_grouped(encoded: Sequence[EncodedQuestion], batch_size: int, generator_seed: int) -> list[list[int]]:
    """One epoch: every index of `encoded` once, in shuffled batches of questions of similar length.

    Grouped by `EncodedQuestion.length`, which counts all choices: the order depends on no answer.
    """
    import numpy

    generator = numpy.random.default_rng(generator_seed)
    order = generator.permutation(len(encoded)).tolist()
    chunk = BATCHES_A_CHUNK * batch_size
    batches: list[list[int]] = []
    for start in range(0, len(order), chunk):
        similar = sorted(order[start : start + chunk], key=lambda index: encoded[index].length)
        batches.extend(similar[at : at + batch_size] for at in range(0, len(similar), batch_size))
    return [batches[number] for number in generator.permutation(len(batches)).tolist()]
