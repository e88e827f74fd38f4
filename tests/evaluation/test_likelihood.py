"""Scores of choices equal those of separate sequences, whatever the batches."""

import numpy
import pytest
import torch
from architectures import ARCHITECTURES, tiny_model

from regraft.config.ranges import ConfigError
from regraft.evaluation.evaluation import Evaluation
from regraft.evaluation.likelihood import per_character, score_questions
from regraft.interfaces import EncodedQuestion, Head, ModelOutputs
from regraft.models.forward import forward
from regraft.models.likelihood import option_scores
from regraft.tasks.packing import pack


def random_questions(number=23):
    generator = numpy.random.default_rng(0)

    def draw(low, high):
        return tuple(generator.integers(3, 90, generator.integers(low, high)).tolist())

    return [
        EncodedQuestion(
            id=f"q{index}",
            context=draw(1, 9),
            choices=tuple(draw(1, 5) for _ in range(generator.integers(2, 6))),
            characters=(3, 1, 4, 1, 5),
        )
        for index in range(number)
    ]


@torch.no_grad()
def plain_score(model, context, choice):
    logits = model(input_ids=torch.tensor([context + choice])).logits[0].double()
    log_p = torch.log_softmax(logits[len(context) - 1 : -1], -1)
    return log_p[torch.arange(len(choice)), torch.tensor(choice)].sum().item()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_are_those_of_separate_sequences_in_the_given_order(architecture):
    model, questions = tiny_model(architecture), random_questions()
    scores = score_questions(model, questions, batch_size=4, pad_token_id=0)
    for row, question in enumerate(questions):
        expected = [plain_score(model, question.context, choice) for choice in question.choices]
        assert scores[row, : len(expected)] == pytest.approx(expected, abs=1e-4)
        assert numpy.isneginf(scores[row, len(expected) :]).all()


def test_batch_size_and_order_have_no_effect():
    model, questions = tiny_model("olmo2"), random_questions()
    scores = score_questions(model, questions, batch_size=1, pad_token_id=0)
    numpy.testing.assert_allclose(score_questions(model, questions, 64, 5), scores, atol=1e-4)
    numpy.testing.assert_allclose(score_questions(model, questions[::-1], 3, 0)[::-1], scores, atol=1e-4)


def test_scores_have_the_gradient_of_separate_sequences():
    model = tiny_model("llama")
    questions = random_questions(3)
    batch = pack(questions, "choices", "answer", 0, labelled=False)
    logits = forward(model, batch).logits.detach().requires_grad_()
    option_scores(ModelOutputs(logits=logits), batch).sum().backward()
    expected = torch.zeros_like(logits)
    p = torch.softmax(logits.detach(), -1)
    for read, token in zip(batch.token_read, batch.token_id, strict=True):
        expected[read] -= p[read]
        expected[read, token] += 1
    torch.testing.assert_close(logits.grad, expected, atol=1e-5, rtol=1e-5)


def test_scores_are_the_same_however_many_parts_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = pack(random_questions(6), "choices", "answer", 0, labelled=False)
    outputs = ModelOutputs(logits=torch.randn(len(batch.read), 97, generator=torch.Generator().manual_seed(0)))
    whole = option_scores(outputs, batch)
    monkeypatch.setattr("regraft.models.likelihood.CHUNK", 3 * 97)
    torch.testing.assert_close(option_scores(outputs, batch), whole)


@pytest.mark.parametrize(("vocabulary", "positions"), [(97, 12), (400, 3), (5000, 1)])
def test_so_many_logits_are_made_at_once_whatever_the_vocabulary(
    vocabulary: int, positions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regraft.models.likelihood.CHUNK", 1200)
    made: list[int] = []

    class Counting(Head):
        def product(self, states: torch.Tensor) -> torch.Tensor:
            made.append(len(states))
            return super().product(states)

    batch = pack(random_questions(12), "choices", "answer", 0, labelled=False)
    head = Counting(weight=torch.randn(vocabulary, 4), bias=None, softcap=None, dtype=torch.float32)
    option_scores(ModelOutputs(states=torch.randn(len(batch.read), 4), head=head), batch)
    assert max(made) == positions and sum(made) >= len(batch.read)


def test_half_precision_logits_are_summed_in_float32():
    batch = pack(random_questions(4), "choices", "answer", 0, labelled=False)
    logits = torch.randn(len(batch.read), 97, generator=torch.Generator().manual_seed(0)).bfloat16()
    scores = option_scores(ModelOutputs(logits=logits), batch)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, option_scores(ModelOutputs(logits=logits.float()), batch))


def test_per_character_divides_and_leaves_its_input():
    questions = random_questions(5)
    scores = score_questions(tiny_model("llama"), questions, 8, 0)
    before = scores.copy()
    found = per_character(scores, questions)
    assert (scores == before).all()
    for row, question in enumerate(questions):
        for choice in range(len(question.choices)):
            assert found[row, choice] == scores[row, choice] / question.characters[choice]


@pytest.mark.parametrize("fields", [{"splits": ()}, {"splits": ("test", "test")}, {"batch_size": 0}])
def test_bad_settings_are_refused(fields):
    with pytest.raises(ConfigError, match=next(iter(fields))):
        Evaluation(**fields)
