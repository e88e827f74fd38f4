"""Wanda's scores of single weights against plain Python; equal to llm-compressor's masks in test_golden_masks.py."""

from __future__ import annotations

import math

import pytest
import torch
from architectures import ARCHITECTURES
from test_sparsegpt import context, copied, inputs, matrix

from regraft.pruning.allocation.layerwise import Layerwise
from regraft.pruning.allocation.owl import Owl
from regraft.pruning.criteria.wanda import Wanda
from regraft.pruning.pruner import Pruner
from regraft.pruning.structures.weights import Weights


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_are_the_formula(architecture: str) -> None:
    model, structure = copied(architecture), Weights(layers=(1,))
    scores = Wanda().scores(model, structure, context())
    groups = structure.groups(model.model)
    for group, found, fed in zip(groups, scores, inputs(model, groups), strict=True):
        columns = list(zip(*fed.tolist(), strict=True))
        norms = [math.sqrt(math.fsum(x * x for x in column)) for column in columns]
        rows = matrix(group)[:4].tolist()
        expected = [[abs(w) * norm for w, norm in zip(row, norms, strict=True)] for row in rows]
        torch.testing.assert_close(
            found.view(-1, len(norms))[:4].double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_output_loses_the_same_share(architecture: str) -> None:
    model = copied(architecture)
    pruner = Pruner(criterion=Wanda(), structure=Weights(compare="output"), allocation=Layerwise())
    pruner.prune(model, pruner.left(model), 0.25, context())
    for group in pruner.structure.groups(model.model):
        weight = matrix(group)
        assert (weight == 0).sum(dim=1).tolist() == [weight.shape[1] // 4] * len(weight), group.name


def test_owl_shares_out_before_the_layers_are_pruned_in_turn() -> None:
    model, structure = copied("llama"), Weights(compare="output")
    pruner = Pruner(criterion=Wanda(), structure=structure, allocation=Owl(outlier=3.0))
    dense = pruner.left(model)
    pruner.prune(model, dense, 0.5, context())
    left = structure.left(model)
    total = sum(dense["weights"])
    assert sum(left) == total - round(0.5 * total)
    shares = [round(there / units, 2) for there, units in zip(left, dense["weights"], strict=True)]
    assert len(set(shares)) > 1
