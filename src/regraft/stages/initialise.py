"""Initialise: weights drawn anew, as the architecture draws them; the teacher stays the trained dense model."""

from __future__ import annotations

from regraft.cache import digest
from regraft.interfaces import LanguageModel
from regraft.models.initialise import initialise
from regraft.stages.context import Context
from regraft.stages.fingerprints import weights
from regraft.stages.outcome import Outcome
from regraft.stages.plan import PlannedStage

SEEDS = 2**63


def run(stage: PlannedStage, model: LanguageModel, context: Context) -> Outcome:
    """Draw all weights of `model` by the run's seed, in place; shapes and masks stay."""
    entered = weights(model.model)
    seed = int(digest({"seed": context.config.seed, "draw": stage.draw}), 16) % SEEDS
    initialise(model, seed)
    return Outcome(fingerprints={"model_in": entered, "model_out": weights(model.model)})
