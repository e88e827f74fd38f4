"""Rewind: what is left gets the weights back that it had in an earlier model (arXiv 1803.03635, 1912.05671)."""

from __future__ import annotations

from regraft.interfaces import LanguageModel
from regraft.stages.context import Context
from regraft.stages.fingerprints import weights
from regraft.stages.outcome import Outcome
from regraft.stages.plan import PlannedStage


def run(stage: PlannedStage, model: LanguageModel, context: Context) -> Outcome:
    """Take from the anchor what `model` lacks, and make `model` that, in place."""
    entered = weights(model.model)
    earlier = context.anchors[stage.anchor].take()
    for structure in context.config.pruner.structures:
        keep = structure.still_in(earlier, model)
        # where nothing is missing the anchor stays as it is, without masks that hide nothing
        if not all(bool(kept.all()) for kept in keep):
            structure.remove(earlier, keep)
    model.model, model.removed, model.masks = earlier.model, earlier.removed, earlier.masks
    return Outcome(fingerprints={"model_in": entered, "model_out": weights(model.model)})
