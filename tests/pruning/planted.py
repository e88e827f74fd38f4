"""A problem whose answer is known: of four layers one is useless and one precious, and the scores do not say so."""

from __future__ import annotations

import copy

import questions
import torch
from architectures import INTERMEDIATE, tiny_model

from regraft.distillation.losses.kl import KL
from regraft.interfaces import Calibration, LanguageModel, PruningContext, Scored
from regraft.pruning.structures.mlp_neurons import MlpNeurons

USELESS, PRECIOUS, LAYERS = 1, 2, 4
UNITS = [INTERMEDIATE] * LAYERS
LOSS = KL()


def model() -> LanguageModel:
    """The MLP of one layer says nothing, that of another four times as much as the others."""
    made = tiny_model("llama", layers=LAYERS)
    layers = made.model.layers  # type: ignore[union-attr]
    layers[USELESS].mlp.down_proj.weight.data.zero_()
    layers[PRECIOUS].mlp.down_proj.weight.data.mul_(4)
    return LanguageModel(model=made, tokenizer=None)  # type: ignore[arg-type]


def problem(planted: LanguageModel | None = None, calibration: Calibration | None = None, seed: int = 0) -> Scored:
    """Scored at random, alike in every layer."""
    planted = planted or model()
    dense = copy.deepcopy(planted)
    generator = torch.Generator().manual_seed(7)
    return Scored(
        model=planted,
        structure=MlpNeurons(),
        scores=[torch.rand(units, generator=generator) for units in UNITS],
        dense_units=UNITS,
        context=PruningContext(
            generator=torch.Generator().manual_seed(seed),
            data=calibration or questions.Made(questions.made(12), batch_size=12, dense=dense),
        ),
    )
