"""What several teachers are for, in small: two models that each know one task by heart teach a third one both.

Compared is the share of the answers of both tasks that the student gives, over seeds, at equal steps and questions.
"""

from __future__ import annotations

from functools import cache as remembered

import pytest
import torch
from architectures import tiny_model
from test_teachers import Given, Words, context, unavailable

from regraft.cache import Cache
from regraft.distillation.losses.cross_entropy import CrossEntropy
from regraft.distillation.losses.kl import KL
from regraft.distillation.teachers.other import Other
from regraft.distillation.teachers.several import Several
from regraft.interfaces import Answers, EncodedQuestion, LanguageModel, Loss
from regraft.models.forward import forward
from regraft.models.initialise import initialise
from regraft.recovery.batches import Questions
from regraft.recovery.loop import Trainer
from regraft.recovery.training import Training
from regraft.tasks.packing import pack

SEEDS = (0, 1, 2)
TRAINING = Training(batch_size=32, learning_rate=3e-3, warmup=0.05, precision="float32")
STEPS = 300


def by_heart(task: str, seed: int) -> list[EncodedQuestion]:
    """Thirty-two questions of four drawn tokens, whose answer is one of 16, drawn as well."""
    draw = torch.Generator().manual_seed(2 * seed + (task == "b"))
    low = 16 if task == "a" else 32
    contexts = torch.randint(low, low + 16, (32, 4), generator=draw).tolist()
    answers = torch.randint(48, 64, (32,), generator=draw).tolist()
    return [
        EncodedQuestion(id=f"{task}:{n}", context=tuple(context), choices=((answer, 3), (4, 3)), answer=0)
        for n, (context, answer) in enumerate(zip(contexts, answers, strict=True))
    ]


def drawn(seed: int) -> LanguageModel:
    model = LanguageModel(model=tiny_model("llama", layers=2), tokenizer=Words(97))  # type: ignore[arg-type]
    initialise(model, seed)
    return model


def learn(model: LanguageModel, questions: list[EncodedQuestion], loss: Loss, teacher: Answers | None = None) -> None:
    source = Questions(
        encoded=questions, loss=loss, batch_size=32, accumulation=1, pad_token_id=0, seed=0, first=0, steps=STEPS
    )
    Trainer(model, source, loss, TRAINING, STEPS, teacher=teacher).run()


@remembered
def specialists(seed: int) -> dict[str, Other]:
    made = {}
    for number, task in enumerate("ab"):
        model = drawn(10 * seed + number)
        learn(model, by_heart(task, seed), CrossEntropy())
        made[task] = Other(model=Given(name=task, model=model))
    return made


@torch.no_grad()
def right(model: LanguageModel, questions: list[EncodedQuestion]) -> float:
    """Share of the questions whose most likely token is the answer."""
    batch = pack(questions, reads="gold", positions="answer", pad_token_id=0, labelled=True)
    first = [row for row, token in zip(batch.token_read.tolist(), batch.token_id.tolist(), strict=True) if token >= 48]
    said = forward(model.model, batch).logits[first, :].argmax(dim=1)
    return float((said == torch.tensor([question.choices[0][0] for question in questions])).float().mean())


def taught(cache: Cache, seed: int, teacher: Other | Several) -> float:
    both = by_heart("a", seed) + by_heart("b", seed)
    student = drawn(10 * seed + 2)
    learn(student, both, KL(), teacher.build(context(cache, unavailable, student)))
    return right(student, both)


@pytest.mark.slow
def test_the_mean_of_two_specialists_beats_either_alone_on_both_tasks(cache: Cache) -> None:
    """You et al. 2017; FuseLLM, arXiv 2401.10491."""
    found: dict[str, list[float]] = {}
    for seed in SEEDS:
        ones = specialists(seed)
        for name, teacher in {
            **ones,
            "arithmetic": Several(teachers=ones),
            "geometric": Several(teachers=ones, mean="geometric"),
            "confidence": Several(teachers=ones, weighting="confidence", sharpness=3.0),
            "by_task": Several(teachers=ones, weighting="by_task"),
        }.items():
            found.setdefault(name, []).append(taught(cache, seed, teacher))
    for seed in SEEDS:
        alone = max(found["a"][seed], found["b"][seed])
        assert found["arithmetic"][seed] > alone, found
        assert found["confidence"][seed] > alone + 0.1, found
        assert found["by_task"][seed] > 0.9, found
    # a product lets the one who does not know veto the one who does
    assert sum(found["geometric"]) < sum(found["arithmetic"]), found
