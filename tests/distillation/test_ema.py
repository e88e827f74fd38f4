"""A teacher that is the moving average of its student."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from architectures import tiny_model
from test_teachers import Words, batch, context

from regraft.cache import Cache
from regraft.config.ranges import ConfigError
from regraft.distillation.losses.cross_entropy import CrossEntropy
from regraft.distillation.losses.kl import KL
from regraft.distillation.losses.weighted_sum import WeightedSum
from regraft.distillation.teachers.ema import Ema
from regraft.distillation.teachers.several import Several
from regraft.interfaces import Answers, EncodedQuestion, LanguageModel, Loss, Teacher
from regraft.models.forward import forward
from regraft.recovery.batches import Questions
from regraft.recovery.loop import Trainer
from regraft.recovery.progress import Progress
from regraft.recovery.training import Training

STEPS = 6
BOTH = WeightedSum(terms={"ce": CrossEntropy(reads="choices"), "kl": KL()})
QUESTIONS = [
    EncodedQuestion(id=str(number), context=(1, 2, 3 + number % 5), choices=((4, 5), (6,)), answer=number % 2)
    for number in range(24)
]
TRAINING = Training(batch_size=8, learning_rate=1e-2, warmup=0.0)


def student(seed: int = 5) -> LanguageModel:
    return LanguageModel(model=tiny_model("llama", seed=seed), tokenizer=Words(97))  # type: ignore[arg-type]


def trainer(
    cache: Cache, teacher: Teacher, loss: Loss = BOTH, path: Path | None = None, start: LanguageModel | None = None
) -> tuple[Trainer, Answers]:
    model = start or student()
    answers = teacher.build(context(cache, lambda: student(6), model))
    progress = None if path is None else Progress(path, "key", 1)
    batches = Questions(
        encoded=QUESTIONS, loss=loss, batch_size=8, accumulation=1, pad_token_id=0, seed=0, first=0, steps=STEPS
    )
    return Trainer(model, batches, loss, TRAINING, STEPS, teacher=answers, progress=progress), answers


@pytest.mark.parametrize("start", ["student", "dense"])
def test_it_is_the_average_of_the_weights_after_each_step(cache: Cache, start) -> None:
    model = student()
    began = copy.deepcopy(model.model if start == "student" else student(6).model)
    expected = {name: parameter.detach().double() for name, parameter in began.named_parameters()}
    going, answers = trainer(cache, Ema(decay=0.7, start=start), start=model)
    for step in range(STEPS):
        going.run(until=step + 1)
        for name, parameter in model.model.named_parameters():
            expected[name] = 0.7 * expected[name] + 0.3 * parameter.detach().double()
    for name, average in answers.state().items():
        torch.testing.assert_close(average.double(), expected[name], rtol=1e-5, atol=1e-6)
        began.get_parameter(name).data.copy_(average)
    said = answers(batch())
    assert not said.logits.requires_grad
    assert torch.equal(said.logits, forward(began, batch()).logits)
    assert set(answers.state()) == {name for name, _ in model.model.named_parameters()}


def test_alone_it_teaches_its_student_nothing(cache: Cache) -> None:
    """KL(self || self) = 0 with zero gradient; a student that starts elsewhere than its teacher does learn."""
    going, _ = trainer(cache, Ema(), KL())
    going.run()
    assert [(line["loss"], line["grad_norm"]) for line in going.lines] == [(0.0, 0.0)] * STEPS
    apart, _ = trainer(cache, Ema(start="dense"), KL())
    apart.run()
    assert all(line["grad_norm"] > 0 for line in apart.lines)


def test_what_is_kept_after_the_last_step_has_no_teacher(cache: Cache, tmp_path: Path) -> None:
    path = tmp_path / "key.safetensors"
    going, _ = trainer(cache, Ema(decay=0.5), path=path)
    going.run(until=STEPS - 1)
    assert going.state().teacher
    going.run()
    assert not going.state().teacher
    again, _ = trainer(cache, Ema(decay=0.5), path=path)
    again.run()
    assert again.lines == going.lines


@pytest.mark.parametrize("teacher", [Ema(decay=0.5), Several(teachers={"a": Ema(decay=0.5), "b": Ema(start="dense")})])
def test_interrupted_it_goes_on_to_the_bit(cache: Cache, tmp_path: Path, teacher: Teacher) -> None:
    whole, averages = trainer(cache, teacher)
    whole.run()
    path = tmp_path / "key.safetensors"
    trainer(cache, teacher, path=path)[0].run(until=3)
    second, again = trainer(cache, teacher, path=path)
    second.run()
    assert second.lines == whole.lines
    weights = whole.student.model.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in second.student.model.state_dict().items())
    assert averages.state().keys() == again.state().keys()
    assert all(torch.equal(tensor, again.state()[name]) for name, tensor in averages.state().items())


def test_a_student_in_half_precision_is_averaged_in_float32(cache: Cache) -> None:
    model = student()
    model.model.to(torch.bfloat16)
    _, answers = trainer(cache, Ema(), start=model)
    assert {tensor.dtype for tensor in answers.state().values()} == {torch.float32}


def test_a_decay_is_a_share() -> None:
    with pytest.raises(ConfigError, match=r"decay=1\.0: must be in \[0, 1\)"):
        Ema(decay=1.0)
