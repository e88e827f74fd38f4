"""Instruct: the student gets the prompt behind which it is nearest to its teacher (arXiv 2602.21103)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy

from regraft.cache import digest
from regraft.evaluation import metrics
from regraft.interfaces import AnyQuestion, LanguageModel
from regraft.models.precision import autocast
from regraft.recovery.instructions import BETWEEN, Instructions
from regraft.stages.context import Context
from regraft.stages.fingerprints import weights
from regraft.stages.outcome import Outcome
from regraft.stages.plan import PlannedStage
from regraft.tasks.encoding import tokens

KIND = "instructions"
FOUND = "found.json"


def run(stage: PlannedStage, model: LanguageModel, context: Context) -> Outcome:
    """Set the prompt of `model`, whose weights stay: of the teacher's texts the best one, or none.

    What was found is kept: a model that is made again has it without a second search.

    Raises:
        ConfigError: A question behind a text is longer than the model's context, or there are too few examples.
    """
    entered = weights(model.model)

    def make(folder: Path) -> None:
        (folder / FOUND).write_text(json.dumps(_search(model, context)), encoding="utf-8")

    folder = context.cache.entry(context.kind(KIND), stage.key, make)
    found: dict[str, Any] = json.loads((folder / FOUND).read_text(encoding="utf-8"))
    model.prompt = found["prompt"]
    return Outcome(fingerprints={"model_in": entered, "prompt": digest(model.prompt)}, details=found)


def _search(student: LanguageModel, context: Context) -> dict[str, Any]:
    """Every text with how near the student is to the teacher behind it, and the best of them."""
    config = context.config
    assert context.dense is not None and config.pipeline.instructions is not None
    teacher, instructions = context.dense.read(), config.pipeline.instructions
    questions = context.unlabelled("recovery")[: instructions.questions]
    wanted = _scores(teacher, "", questions, context)
    tried: list[dict[str, Any]] = []
    for text in ("", *_texts(instructions, teacher, context)):
        near = metrics.against_dense(_scores(student, text, questions, context), wanted)
        length = len(tokens(student.tokenizer, [text])[0])
        tried.append(
            {"text": text, "kl": near["dense_kl"].value, "agreement": near["dense_agreement"].value, "tokens": length}
        )
    best = min(tried, key=lambda each: each["kl"])  # the first of equals, so that no text comes before any
    return {"prompt": best["text"], "questions": len(questions), "candidates": tried}


def _texts(instructions: Instructions, teacher: LanguageModel, context: Context) -> list[str]:
    """What the teacher proposes."""
    preparation, config = context.unlabelled("preparation"), context.config
    shown = instructions.shown(len(preparation), config.seed)
    numbers = sorted(set().union(*shown))
    solved: dict[int, str] = {}
    if numbers:
        asked = [preparation[number] for number in numbers]
        preferred = _scores(teacher, "", asked, context).argmax(axis=1)
        for number, question, choice in zip(numbers, asked, preferred, strict=True):
            before, choices = config.task.prompt(question)
            solved[number] = before + choices[choice] + BETWEEN
    with autocast(teacher.model, config.evaluation.precision):
        return instructions.texts(
            ["".join(solved[number] for number in one) for one in shown],
            lambda text: tuple(tokens(teacher.tokenizer, [text])[0]),
            teacher,
            config.seed,
        )


def _scores(model: LanguageModel, prompt: str, questions: Sequence[AnyQuestion], context: Context) -> numpy.ndarray:
    """(questions, choices): what the evaluation decides by, behind `prompt`."""
    evaluation = context.config.evaluation
    return evaluation.scores(model, context.encode(model, questions, prompt))[evaluation.normalisation]
