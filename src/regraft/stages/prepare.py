"""Prepare: get the dense model, fine-tune it if asked. What comes out is pruned, and teaches."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from regraft.interfaces import LanguageModel
from regraft.models import export
from regraft.recovery.batches import Questions
from regraft.recovery.loop import Trainer
from regraft.stages.context import Context, Lineage
from regraft.stages.outcome import Outcome
from regraft.stages.plan import PlannedStage
from regraft.stages.preparation import FineTune


def dense(stage: PlannedStage, context: Context) -> Lineage:
    """The dense model; a fine-tuned one is trained once and kept in the cache."""
    preparation = context.config.preparation

    def make() -> LanguageModel:
        if isinstance(preparation, FineTune):
            make = partial(_fine_tune, key=stage.key, preparation=preparation, context=context)
            folder = context.cache.entry(context.kind("prepared"), stage.key, make)
            return export.load(folder / "model")
        return context.config.model.load(context.cache)

    return Lineage(stage.model_after, lambda: context.place(make()))


def run(stage: PlannedStage, model: LanguageModel, context: Context) -> Outcome:
    """Note what the dense model is."""
    details = {"parameters": sum(parameter.numel() for parameter in model.model.parameters())}
    if context.config.preparation.trains:
        details["questions"] = len(context.splits.preparation)
    return Outcome(details=details)


def _fine_tune(folder: Path, key: str, preparation: FineTune, context: Context) -> None:
    """Train the loaded model and save it."""
    model = context.place(context.config.model.load(context.cache))
    encoded = context.encode(model, context.splits.preparation)
    training = preparation.training
    steps = training.total_steps(len(encoded))
    batches = Questions(
        encoded=encoded,
        loss=preparation.loss,
        batch_size=training.batch_size,
        accumulation=training.accumulation,
        pad_token_id=model.pad_token_id,
        seed=preparation.seed,
        first=0,
        steps=steps,
    )
    torch.manual_seed(preparation.seed)
    progress = context.progress(key)
    Trainer(
        model,
        batches,
        preparation.loss,
        training,
        steps,
        seed=preparation.seed,
        vocabulary=model.vocabulary,
        bar="prepare" if context.config.runtime.progress else None,
        progress=progress,
        key="preparation.training",
    ).run()
    export.save(model, folder / "model")
    progress.path.unlink(missing_ok=True)
