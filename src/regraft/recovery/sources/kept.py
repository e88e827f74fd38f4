"""What the teacher wrote or chose once, from the cache."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from regraft.cache import digest
from regraft.interfaces import BatchContext, EncodedQuestion, LanguageModel
from regraft.models.cost import Ledger, counted
from regraft.models.precision import computed_in
from regraft.recovery.writing import ends

FORMAT = 2
"""Raise when what is written changes."""
KIND = "written"
SAID = "said.json"

Author = Callable[[LanguageModel, Sequence[EncodedQuestion]], list[EncodedQuestion]]
"""Of the teacher, and questions of which the contexts are read."""


def written(
    context: BatchContext, asked: Sequence[EncodedQuestion], settings: dict[str, Any], author: Author
) -> list[EncodedQuestion]:
    """The questions with what the teacher wrote behind them, as `author` has it.

    Args:
        context: Of the training.
        asked: Each with an id of its own.
        settings: All that decides what is written besides teacher and questions, as plain data.
        author: Is called if nobody has written these yet.
    """

    def write(writer: LanguageModel) -> tuple[dict[str, Any], dict[str, list[int]]]:
        last = ends(writer)
        texts = {question.id: list(question.choices[0]) for question in author(writer, asked)}
        about = {
            "texts": len(texts),
            "tokens": sum(map(len, texts.values())),
            "ended": sum(text[-1] in last for text in texts.values()) / len(texts),
        }
        return about, texts

    texts = remembered(context, asked, settings, write)
    return [replace(question, choices=(tuple(texts[question.id]),), answer=None, characters=()) for question in asked]


def remembered(
    context: BatchContext,
    asked: Sequence[EncodedQuestion],
    settings: dict[str, Any],
    say: Callable[[LanguageModel], tuple[dict[str, Any], Any]],
) -> Any:
    """What the teacher says of some questions, as plain data.

    Args:
        context: Of the training.
        asked: Of which the contexts are read.
        settings: All that decides it besides teacher and questions, as plain data.
        say: Gives what is told in the record, and what is said, if nobody has asked this yet.
    """
    device = context.student.model.device.type
    with context.autocast():
        precision = str(computed_in(next(context.student.model.parameters())))
    key = digest(
        {
            "format": FORMAT,
            "writer": context.writer_key,
            "asked": sorted((question.id, question.context) for question in asked),
            "settings": settings,
            "precision": precision,
        }
    )

    def make(folder: Path) -> None:
        began = time.perf_counter()
        writer = context.writer()
        with counted(Ledger()) as counts, torch.no_grad(), context.autocast():
            about, said = say(writer)
        about |= {
            "seconds": time.perf_counter() - began,
            "written_tokens": counts.teacher_tokens,
            "written_flops": counts.teacher_flops,
        }
        (folder / SAID).write_text(json.dumps({"about": about, "said": said}), encoding="utf-8")

    folder = context.cache.entry(KIND if device == "cpu" else f"{KIND}-{device}", key, make)
    found = json.loads((folder / SAID).read_text(encoding="utf-8"))
    context.report(found["about"])
    return found["said"]
