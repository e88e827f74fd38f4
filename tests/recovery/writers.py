"""Models and words for those who write: no task, no run."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from architectures import VOCABULARY, tiny_model

from regraft.cache import Cache
from regraft.distillation.losses.kl import KL
from regraft.interfaces import AnyQuestion, BatchContext, EncodedQuestion, LabelledQuestion, LanguageModel
from regraft.tasks.facts import Facts, World

END = 2


class Letters:
    """A tokenizer: each character is a token, and some begin every text with one of their own."""

    pad_token_id, eos_token_id, all_special_ids = 0, END, (0, 1, END)

    def __init__(self, begins: bool = False) -> None:
        self.bos_token_id = 1 if begins else None

    def __len__(self) -> int:
        return VOCABULARY

    def get_vocab(self) -> dict[str, int]:
        return {f"token{number}": number for number in range(VOCABULARY)}

    def __call__(self, texts: str | list[str], **settings: Any) -> dict[str, Any]:
        if isinstance(texts, list):
            return {"input_ids": [self(text)["input_ids"] for text in texts]}
        begin = [] if self.bos_token_id is None else [self.bos_token_id]
        return {"input_ids": begin + [3 + ord(character) % (VOCABULARY - 3) for character in texts]}


def language_model(architecture: str = "olmo2", seed: int = 0, begins: bool = False, **shape: Any) -> LanguageModel:
    model = tiny_model(architecture, seed=seed, max_position_embeddings=1024, **shape)
    return LanguageModel(model=model, tokenizer=Letters(begins))  # type: ignore[arg-type]


WORLD = World(entities=6, types=2, relations=4)
TASK = Facts(world=WORLD, test_relations=1)


def questions(shift: int = 0) -> list[LabelledQuestion]:
    """Of `TASK`; `shift` moves every answer."""
    asked = [WORLD.ask(fact, 0) for fact in WORLD.facts]
    return [
        LabelledQuestion(id=q.id, question=q.question, choices=q.choices, answer=(q.answer + shift) % len(q.choices))
        for q in asked
    ]


def context(cache: Cache | Path, student: LanguageModel, teacher: LanguageModel, **changes: Any) -> BatchContext:
    """Of a training of two parts a step on the first 12 questions; the others are preparation's."""
    from regraft.tasks.encoding import encode_all

    shift, loss = changes.pop("shift", 0), changes.pop("loss", KL())
    asked = questions(shift)
    told = changes.pop("told", False)

    def seen(some: list[LabelledQuestion], labels: bool) -> list[AnyQuestion]:
        return [q if labels else q.unlabelled for q in some]

    settings: dict[str, Any] = {
        "student": student,
        "task": TASK,
        "questions": seen(asked[:12], "labels" in loss.needs),
        "encode": lambda some: encode_all(student.tokenizer, TASK, some),
        "loss": loss,
        "batch_size": 4,
        "accumulation": 2,
        "seed": 0,
        "first": 0,
        "steps": 12,
        "cache": cache,
        "writer": lambda: teacher,
        "writer_key": "teacher",
        "autocast": nullcontext,
        "preparation": lambda: seen(asked[12:], told),
    }
    return BatchContext(**(settings | changes))


def encoded(count: int, tokens: int = 5, seed: int = 0) -> list[EncodedQuestion]:
    """Contexts of unlike lengths."""
    generator = torch.Generator().manual_seed(seed)
    return [
        EncodedQuestion(
            id=f"q{number}",
            context=tuple(torch.randint(3, VOCABULARY, (tokens + number % 4,), generator=generator).tolist()),
            choices=((5, 6),),
        )
        for number in range(count)
    ]
