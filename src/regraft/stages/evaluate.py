"""Evaluate: measure the model on held-out questions, against the dense one, and weigh it."""

from __future__ import annotations

from regraft.evaluation import size
from regraft.interfaces import LanguageModel
from regraft.records import PREDICTION_COLUMNS, PREDICTIONS
from regraft.stages.context import Context
from regraft.stages.outcome import Metric, Outcome
from regraft.stages.plan import PlannedStage


def run(stage: PlannedStage, model: LanguageModel, context: Context) -> Outcome:
    """Metrics and predictions of `model`, which stays as it is."""
    raise NotImplementedError
