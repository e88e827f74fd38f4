"""Load: take a saved checkpoint."""

from __future__ import annotations

from regraft.interfaces import LanguageModel
from regraft.models import export
from regraft.stages.context import Context, Lineage
from regraft.stages.fingerprints import weights
from regraft.stages.outcome import Outcome
from regraft.stages.plan import PlannedStage


def saved(stage: PlannedStage, context: Context) -> Lineage:
    """The model of the checkpoint folder that the config names."""
    checkpoint = context.config.evaluate
    assert checkpoint is not None
    return Lineage(stage.model_after, lambda: context.place(export.load(checkpoint.path)))


def run(stage: PlannedStage, model: LanguageModel, context: Context) -> Outcome:
    """Note which weights these are."""
    return Outcome(fingerprints={"model_in": weights(model.model)})
