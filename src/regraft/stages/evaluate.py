"""Evaluate: measure the model on held-out questions, against the dense one, and weigh it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy
import pandas

from regraft.evaluation import metrics, size
from regraft.interfaces import LabelledQuestion, LanguageModel
from regraft.models.latency import milliseconds_per_token, time_beside
from regraft.models.precision import resolved_precision
from regraft.records import PREDICTIONS
from regraft.stages.context import Context
from regraft.stages.outcome import Metric, Outcome
from regraft.stages.plan import PlannedStage, dense_evaluate_key


def run(stage: PlannedStage, model: LanguageModel, context: Context) -> Outcome:
    """Metrics and predictions of `model`, which stays as it is.

    The dense model is asked the preparation's and the recovery's questions too: what a teacher knows of a question that
    it was trained on is not what it knows of others.

    Raises:
        ConfigError: A split has no labelled questions.
    """
    measured: list[Metric] = []
    tables = []
    evaluation = context.config.evaluation
    is_dense = context.dense is not None and stage.key == dense_evaluate_key(context.config, context.dense.key)
    for split in context.splits_learned(evaluation.splits) if is_dense else evaluation.splits:
        questions = context.labelled(split)
        encoded = context.encode(model, questions)
        started = time.perf_counter()
        scores = evaluation.scores(model, encoded)
        seconds = time.perf_counter() - started
        decides = scores[evaluation.normalisation]
        if numpy.isnan(decides).any():
            raise ValueError(
                f"the model's scores on {split} are not numbers: its weights are broken, most likely by a recovery "
                "that diverged in its last step. Lower recovery.learning_rate "
                f"({context.config.recovery.learning_rate})."
            )
        gold = numpy.array([question.answer for question in questions])
        found = {"accuracy": metrics.accuracy(decides, gold)}
        found |= {f"accuracy_{name}": metrics.accuracy(by, gold) for name, by in scores.items()}
        found |= metrics.likelihoods(decides, gold)
        if context.dense is not None:
            found |= metrics.against_dense(decides, _dense_scores(split, decides, stage, context))
        measured += [
            Metric(metric=name, split=split, value=e.value, n=e.n, ci_low=e.ci_low, ci_high=e.ci_high)
            for name, e in found.items()
        ]
        tokens = sum(question.length for question in encoded)
        measured.append(Metric(metric="tokens_per_second", split=split, value=tokens / seconds, deterministic=False))
        tables.append(_predictions(split, questions, decides))
    context_length = context.length(model)
    weighed = size.measure(model.model, context_length, model.masks)
    dense = None if context.dense is None else size.measure(context.dense.read().model, context_length)
    measured += [
        Metric(metric="parameters", value=weighed.parameters),
        Metric(metric="non_embedding_parameters", value=weighed.non_embedding_parameters),
        Metric(metric="bytes", value=weighed.bytes),
        Metric(metric="macs_per_token", value=weighed.macs_per_token),
    ]
    if evaluation.latency:
        milliseconds = milliseconds_per_token(model.model, context_length)
        measured.append(Metric(metric="milliseconds_per_new_token", value=milliseconds, deterministic=False))
        if context.dense is not None and not is_dense:
            speedup = 1 / time_beside(model.model, context.dense.read().model, context_length)
            measured.append(Metric(metric="speedup_of_new_token", value=speedup, deterministic=False))
    return Outcome(
        metrics=tuple(measured),
        block_sparsity=_block_sparsity(model, context),
        model_sparsity=None if dense is None else 1 - weighed.parameters / dense.parameters,
        bits=weighed.bits,
        details={
            "macs_context": context_length,
            "precision": resolved_precision(model.model, evaluation.precision),
            "device": model.model.device.type,
        },
        tables={PREDICTIONS: pandas.concat(tables, ignore_index=True)},
    )


def _predictions(split: str, questions: Sequence[LabelledQuestion], scores: numpy.ndarray) -> pandas.DataFrame:
    return pandas.DataFrame(
        {
            "split": split,
            "id": [question.id for question in questions],
            "gold": [question.answer for question in questions],
            "predicted": scores.argmax(axis=1),
            "scores": [row[: len(question.choices)].tolist() for row, question in zip(scores, questions, strict=True)],
        }
    )


def _dense_scores(split: str, scores: numpy.ndarray, stage: PlannedStage, context: Context) -> numpy.ndarray:
    """What the dense model said to the same questions: this very model, or kept in the cache."""
    assert context.dense is not None
    if stage.model_before == context.dense.key:
        return scores
    assert context.dense_evaluation is not None, "the dense model is evaluated first"
    table = context.dense_evaluation.tables[PREDICTIONS]
    dense = numpy.full_like(scores, -numpy.inf)
    for row, line in enumerate(table[table.split == split].scores):
        dense[row, : len(line)] = line
    return dense


def _block_sparsity(model: LanguageModel, context: Context) -> float | None:
    """Share of the dense model's units of the pruned structure that is gone.

    None if no dense model is known, or units of several structures are gone, which do not add up. The dense model's
    is 0 whatever is pruned: its evaluation is shared.
    """
    if context.dense is None:
        return None
    left, dense = context.config.pruner.left(model), context.dense_units()
    if left == dense:
        return 0.0
    if len(dense) > 1:
        return None
    return 1 - sum(map(sum, left.values())) / sum(map(sum, dense.values()))
