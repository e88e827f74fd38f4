"""The training loop through its seams."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from architectures import tiny_model

from regraft.distillation.losses.cross_entropy import CrossEntropy
from regraft.distillation.losses.kl import KL
from regraft.distillation.teachers.answers import Live
from regraft.interfaces import Batch, EncodedQuestion, LanguageModel
from regraft.recovery.batches import Questions
from regraft.recovery.loop import Trainer, TrainingDiverged
from regraft.recovery.training import Training

QUESTIONS = [
    EncodedQuestion(id=str(number), context=(1, 2, 3 + number % 5), choices=((4, 5), (6,)), answer=number % 2)
    for number in range(24)
]


def student(seed: int = 0) -> LanguageModel:
    torch.manual_seed(seed)
    return LanguageModel(model=tiny_model("olmo2"), tokenizer=None)  # type: ignore[arg-type]


def questions(loss: object, training: Training, steps: int, seed: int = 0, first: int = 0) -> Questions:
    return Questions(
        encoded=QUESTIONS,
        loss=loss,  # type: ignore[arg-type]
        batch_size=training.batch_size,
        accumulation=training.accumulation,
        pad_token_id=0,
        seed=seed,
        first=first,
        steps=steps,
    )


def train(training: Training, steps: int = 6, loss: object = None, **seams: object) -> tuple[LanguageModel, list[dict]]:
    model, lines = student(), []
    loss = loss or CrossEntropy()
    Trainer(model, questions(loss, training, steps), loss, training, steps, observe=lines.append, **seams).run()
    return model, lines


def weights(model: LanguageModel) -> dict[str, torch.Tensor]:
    return model.model.state_dict()


def test_the_loss_falls() -> None:
    _, lines = train(Training(batch_size=24, learning_rate=1e-2, warmup=0.0), steps=20)
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]


def test_accumulation_does_not_change_the_step() -> None:
    whole, one = train(Training(batch_size=8))
    parts, other = train(Training(batch_size=8, accumulation=3))
    assert [line["loss"] for line in one] == pytest.approx([line["loss"] for line in other], rel=1e-4)
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(tensor, weights(parts)[name], rtol=1e-3, atol=1e-4)


def test_two_runs_with_one_seed_are_equal_to_the_bit() -> None:
    one, other = train(Training(batch_size=8))[0], train(Training(batch_size=8))[0]
    assert all(torch.equal(tensor, weights(other)[name]) for name, tensor in weights(one).items())


def test_the_learning_rate_rises_and_falls() -> None:
    _, lines = train(Training(batch_size=8, learning_rate=1.0e-3, warmup=0.3, decay="linear"), steps=10)
    rates = [line["lr"] for line in lines]
    assert max(rates) == pytest.approx(1e-3)
    assert rates.index(max(rates)) == 3
    assert rates[4:] == sorted(rates[4:], reverse=True) and rates[-1] > 0


def test_gradients_are_clipped() -> None:
    seen: list[float] = []

    def watch(model: torch.nn.Module, step: int) -> None:
        seen.append(step)

    tight, _ = train(Training(batch_size=8, max_grad_norm=1e-12, warmup=0.0), steps=1, after_step=[watch])
    free, lines = train(Training(batch_size=8, max_grad_norm=None, warmup=0.0), steps=1)
    assert seen == [1]
    assert lines[0]["grad_norm"] > 1e-3

    def moved(model: LanguageModel) -> float:
        return max(float((weights(model)[name] - tensor).abs().max()) for name, tensor in weights(student()).items())

    assert moved(free) > 10 * moved(tight)


def test_kl_to_the_dense_self_trains_nothing() -> None:
    trained, lines = train(Training(batch_size=8), loss=KL(), teacher=Live(student().model.eval()))
    assert [line["loss"] for line in lines] == [0.0] * 6
    assert [line["grad_norm"] for line in lines] == [0.0] * 6
    assert all(torch.equal(tensor, weights(trained)[name]) for name, tensor in weights(student()).items())


def test_a_mask_held_after_each_step_holds() -> None:
    def hold(model: torch.nn.Module, step: int) -> None:
        with torch.no_grad():
            next(model.parameters())[:3] = 0

    held, _ = train(Training(batch_size=8), after_step=[hold])
    first = next(held.model.parameters())
    assert not first[:3].any() and first[3:].any()


def test_an_extra_term_is_added_to_the_loss() -> None:
    _, plain = train(Training(batch_size=8), steps=1)
    _, more = train(
        Training(batch_size=8), steps=1, terms=[lambda model: 0.5 * next(model.parameters()).square().sum()]
    )
    expected = 0.5 * float(next(student().model.parameters()).detach().square().sum())
    assert more[0]["loss"] - plain[0]["loss"] == pytest.approx(expected, rel=1e-4)


def test_rewinding_continues_as_if_nothing_had_been() -> None:
    training, loss = Training(batch_size=8), CrossEntropy()
    model, lines = student(), []
    trainer = Trainer(model, questions(loss, training, 6), loss, training, 6, observe=lines.append)
    trainer.run(until=3)
    state = trainer.state()
    trainer.run(until=5)
    trainer.restore(state)
    trainer.run()
    numbers = [line["loss"] for line in lines]
    assert len(numbers) == 3 + 2 + 3
    assert numbers[3:5] == numbers[5:7]
    assert all(torch.equal(tensor, weights(train(training)[0])[name]) for name, tensor in weights(model).items())


def test_a_loss_that_is_no_number_ends_the_training() -> None:
    class Broken(CrossEntropy):
        def __call__(self, *arguments: object) -> object:
            value = super().__call__(*arguments)  # type: ignore[arg-type]
            return type(value)(total=value.total * math.nan, count=value.count)

    with pytest.raises(TrainingDiverged, match=r"step 1 of 6.*Lower recovery\.learning_rate"):
        train(Training(batch_size=8), loss=Broken())


def test_weights_come_back_in_their_own_dtype() -> None:
    model = student()
    model.model.to(torch.bfloat16)
    training = Training(batch_size=8)
    Trainer(model, questions(CrossEntropy(), training, 2), CrossEntropy(), training, 2).run()
    assert model.model.dtype == torch.bfloat16 and not model.model.training


def test_every_loss_gets_the_same_questions_in_the_same_order() -> None:
    training = Training(batch_size=5)
    ce, kl = questions(CrossEntropy(), training, 9), questions(KL(), training, 9)
    assert ce.fingerprint() == kl.fingerprint() != questions(KL(), training, 9, seed=1).fingerprint()
    epoch = sorted(index for step in ce.order[:5] for index in step)
    assert epoch == list(range(24))


def test_steps_of_two_stages_are_those_of_one() -> None:
    training = Training(batch_size=5)
    whole = questions(KL(), training, 9).order
    assert questions(KL(), training, 4).order + questions(KL(), training, 5, first=4).order == whole


def test_a_training_that_is_a_beginning_of_another_is_known_by_its_last_digest() -> None:
    training = Training(batch_size=5)
    short, long = questions(CrossEntropy(), training, 7), questions(KL(), training, 9)
    assert short.fingerprints() == long.fingerprints()[:7] and len(long.fingerprints()) == 9
    other = questions(KL(), training, 9, seed=1).fingerprints()
    assert not set(long.fingerprints()) & set(other)
    swapped = [*long.order[1::-1], *long.order[2:]]
    object.__setattr__(other_order := questions(KL(), training, 9), "order", swapped)
    assert not set(long.fingerprints()) & set(other_order.fingerprints()), "what was read before counts"


def test_the_order_is_blind_to_answers_and_a_label_free_batch_carries_none() -> None:
    swapped = [EncodedQuestion(id=q.id, context=q.context, choices=q.choices, answer=1 - q.answer) for q in QUESTIONS]  # type: ignore[operator]
    training, loss = Training(batch_size=5), KL()
    mine = questions(loss, training, 5)
    theirs = Questions(
        encoded=swapped, loss=loss, batch_size=5, accumulation=1, pad_token_id=0, seed=0, first=0, steps=5
    )
    assert mine.order == theirs.order

    def batches(of: Questions) -> Iterator[Batch]:
        for number in range(5):
            yield from (batch for batch, _ in of.step(number, student()))

    for one, other in zip(batches(mine), batches(theirs), strict=True):
        assert one.answer is None and torch.equal(one.input_ids, other.input_ids)


@pytest.mark.parametrize(
    ("training", "questions_", "steps"),
    [(Training(epochs=2, batch_size=8), 20, 6), (Training(epochs=0.5, batch_size=8), 33, 2), (Training(steps=7), 5, 7)],
)
def test_number_of_steps(training: Training, questions_: int, steps: int) -> None:
    assert training.total_steps(questions_) == steps
