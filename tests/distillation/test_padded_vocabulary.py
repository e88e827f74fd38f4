"""Heads are padded to round sizes: logits that no token has enter no softmax of a loss."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from architectures import tiny_model
from combinations import base

from regraft.cache import Cache
from regraft.distillation.losses.cross_entropy import CrossEntropy
from regraft.distillation.losses.kl import KL
from regraft.distillation.losses.sampled_kl import SampledKL
from regraft.distillation.teachers.cached import Cached
from regraft.distillation.teachers.dense import Dense
from regraft.interfaces import EncodedQuestion, LanguageModel, Loss, ModelOutputs, TeacherContext
from regraft.models.forward import forward
from regraft.models.tiny_olmo2 import TinyOlmo2
from regraft.pruning.criteria.taylor import Taylor
from regraft.recovery.batches import Questions
from regraft.recovery.loop import Trainer
from regraft.recovery.training import Training
from regraft.run import run
from regraft.tasks.packing import pack

TOKENS = 97
QUESTIONS = [
    EncodedQuestion(id=str(number), context=(1, 2, 3 + number % 5), choices=((4, 5), (6,)), answer=number % 2)
    for number in range(8)
]


class Words:
    """A tokenizer whose largest number is 96."""

    def get_vocab(self) -> dict[str, int]:
        # numbers may have gaps: fewer tokens than numbers
        return {f"w{number}": number for number in range(TOKENS) if number != 50}

    def __len__(self) -> int:
        return TOKENS - 1


def model(seed: int, beyond: int, architecture: str = "gpt2") -> LanguageModel:
    """The same weights for the tokens, whatever is beyond them, which would be likelier than any token."""
    plain, made = (
        tiny_model(architecture, seed=seed, vocab_size=size, tie_word_embeddings=False)
        for size in (TOKENS, TOKENS + beyond)
    )
    weights = plain.state_dict()
    for name, tensor in made.state_dict().items():
        if tensor.shape == weights[name].shape:
            tensor.copy_(weights[name])
        else:
            tensor[:TOKENS] = weights[name]
            tensor[TOKENS:] = 9 * weights[name][:beyond]
    return LanguageModel(model=made, tokenizer=Words())  # type: ignore[arg-type]


def context(cache: Cache, student: LanguageModel, teacher: LanguageModel) -> TeacherContext:
    batch = pack(QUESTIONS, "choices", "answer", 0, labelled=False)
    return TeacherContext(
        dense=lambda: teacher,
        dense_key="dense",
        student=student,
        cache=cache,
        questions=lambda: iter([batch]),
        questions_key=f"{len(teacher.model.get_output_embeddings().weight)}",  # type: ignore[union-attr, arg-type]
        autocast=nullcontext,
        report=lambda told: None,
    )


def trained(loss: Loss, teacher: Any, student: LanguageModel, taught_by: LanguageModel, cache: Cache) -> list[float]:
    training, steps, lines = Training(batch_size=4, warmup=0.0), 3, []
    batches = Questions(
        encoded=QUESTIONS,
        loss=loss,
        batch_size=4,
        accumulation=1,
        pad_token_id=0,
        seed=0,
        first=0,
        steps=steps,
    )
    answers = teacher.build(context(cache, student, taught_by)) if "teacher_logits" in loss.needs else None
    Trainer(
        student,
        batches,
        loss,
        training,
        steps,
        teacher=answers,
        vocabulary=student.vocabulary,
        observe=lambda line: lines.append(line["loss"]),
    ).run()
    return lines


@pytest.mark.parametrize("loss", [KL(), SampledKL(), CrossEntropy(label_smoothing=0.5)], ids=["kl", "drawn", "ce"])
@pytest.mark.parametrize(("ours", "theirs"), [(0, 15), (15, 0), (15, 15), (3, 31)])
def test_a_student_learns_as_if_no_head_were_padded(loss: Loss, ours: int, theirs: int, cache: Cache) -> None:
    plain, padded = model(0, 0), model(0, ours)
    expected = trained(loss, Dense(), plain, model(1, 0), cache)
    got = trained(loss, Dense(), padded, model(1, theirs), cache)
    assert got == pytest.approx(expected, rel=1e-5)
    weights, before = plain.model.state_dict(), model(0, ours).model.state_dict()
    for name, tensor in padded.model.state_dict().items():
        torch.testing.assert_close(tensor[:TOKENS], weights[name][:TOKENS], rtol=1e-4, atol=2e-5)
        if tensor.shape != weights[name].shape:
            assert torch.equal(tensor[TOKENS:], before[name][TOKENS:])


@pytest.mark.parametrize("keep", ["hidden_states", "top_k"])
def test_what_is_kept_of_a_padded_teacher_says_nothing_beyond_the_tokens(keep: Any, cache: Cache) -> None:
    expected = trained(KL(), Cached(keep=keep, k=5), model(0, 0), model(1, 0), cache)
    got = trained(KL(), Cached(keep=keep, k=5), model(0, 3), model(1, 31), cache)
    assert got == pytest.approx(expected, rel=1e-5)


def test_a_padded_teacher_and_its_cache_answer_with_as_many_logits_as_there_are_tokens(cache: Cache) -> None:
    student, teacher = model(0, 3), model(1, 31)
    batch = pack(QUESTIONS, "choices", "answer", 0, labelled=False)
    whole = forward(teacher.model, batch).logits
    for kind in (Dense(), Cached()):
        answer = kind.build(context(cache, student, teacher))(batch)
        torch.testing.assert_close(answer.logits, whole[:, :TOKENS], rtol=1e-5, atol=1e-5)


def test_nothing_is_copied_where_nothing_is_padded() -> None:
    said = forward(model(0, 0).model, pack(QUESTIONS, "choices", "answer", 0, labelled=False))
    assert said.within(TOKENS).head is said.head
    bare = ModelOutputs(logits=torch.randn(2, TOKENS))
    assert bare.within(TOKENS).logits.data_ptr() == bare.logits.data_ptr()


def test_a_head_without_room_for_every_token_is_refused(cache: Cache) -> None:
    small = LanguageModel(model=tiny_model("gpt2", vocab_size=90), tokenizer=Words())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"its vocabulary \(90 logits, 96 tokens\) must be the student's \(97 logits"):
        Dense().build(context(cache, model(0, 0), small))


def test_a_run_of_a_padded_model_is_that_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Units that a loss scores, and the recovery."""
    given, load, found = base(), TinyOlmo2.load, {}
    pruner = dataclasses.replace(given.pruner, criterion=Taylor(loss=CrossEntropy()))
    for beyond in (0, 13):

        def padded(self: TinyOlmo2, cache: Cache, beyond: int = beyond) -> LanguageModel:
            loaded = load(self, cache)
            loaded.model.resize_token_embeddings(loaded.vocabulary + beyond, mean_resizing=False)
            for embedding in (loaded.model.get_input_embeddings(), loaded.model.get_output_embeddings()):
                embedding.weight.data[loaded.vocabulary :] = 5.0  # type: ignore[union-attr, index, operator]
            return loaded

        monkeypatch.setattr(TinyOlmo2, "load", padded)
        folder = tmp_path / str(beyond)
        folder.mkdir()
        runtime = dataclasses.replace(given.runtime, cache=str(folder / "cache"))
        record = run(
            dataclasses.replace(given, pruner=pruner, loss=CrossEntropy(), runtime=runtime), folder, {}, {}, "padded"
        )
        assert record.status == "finished", record.error
        units = next(each for each in record.stages if each.stage == "prune").fingerprints["units"]
        found[beyond] = (units, pandas.read_parquet(folder / "training.parquet")["loss"].tolist())
    assert found[0][0] == found[13][0]
    assert found[0][1] == pytest.approx(found[13][1], rel=1e-5)
