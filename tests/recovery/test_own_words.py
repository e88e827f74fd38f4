"""The miniature of on-policy distillation: who learns where its own words lead is nearer to the teacher there."""

from __future__ import annotations

import pytest
import torch
from writers import context, encoded, language_model

from regraft.cache import Cache
from regraft.distillation.losses.divergence import forward_kl
from regraft.distillation.losses.kl import KL
from regraft.distillation.teachers.answers import Live
from regraft.interfaces import Batches, EncodedQuestion, LanguageModel
from regraft.models.forward import forward
from regraft.recovery.loop import Trainer
from regraft.recovery.sources.on_policy import OnPolicy
from regraft.recovery.sources.teacher_written import TeacherWritten
from regraft.recovery.training import Training
from regraft.recovery.writing import write
from regraft.tasks.packing import pack

STEPS, TOKENS = 60, 10


def sharp(seed: int) -> LanguageModel:
    model = language_model("llama", seed=seed, layers=2)
    model.model.get_output_embeddings().weight.data.mul_(4)
    return model


def damaged() -> LanguageModel:
    """The teacher after half of each MLP block has gone."""
    student = sharp(0)
    for layer in student.model.model.layers:
        layer.mlp.down_proj.weight.data[:, ::2] = 0
    return student


def own_divergence(student: LanguageModel, teacher: LanguageModel, asked: list[EncodedQuestion]) -> float:
    texts = write([(student, 1.0)], asked, tokens=TOKENS, temperature=1.0, seed="measure")
    batch = pack(texts, "choices", "answer", 0, labelled=False)
    with torch.no_grad():
        return float(forward_kl(forward(student.model, batch).logits, forward(teacher.model, batch).logits).mean())


@pytest.mark.slow
def test_own_words_bring_the_student_nearer_to_the_teacher_on_its_own_words(cache: Cache) -> None:
    teacher, contexts = sharp(0), encoded(256, tokens=3)
    found = {}
    for share in (0.0, 1.0):
        student = damaged()
        data = TeacherWritten(tokens=TOKENS, temperature=1.0)
        batches: Batches = OnPolicy(share=share, tokens=TOKENS, temperature=1.0, data=data)
        settings = {"encode": lambda some: contexts[:64], "batch_size": 32, "accumulation": 1, "steps": STEPS}
        made = context(cache, student, teacher, **settings)
        training = Training(batch_size=32, steps=STEPS, learning_rate=3e-3)
        before = own_divergence(student, teacher, contexts[64:])
        Trainer(student, batches.source(made), KL(), training, STEPS, teacher=Live(teacher.model)).run()
        found[share] = own_divergence(student, teacher, contexts[64:])
        assert found[share] < before
    # 1.72 before, then 0.77 and 0.54
    assert found[1.0] < 0.85 * found[0.0]
