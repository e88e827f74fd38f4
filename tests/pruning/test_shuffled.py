"""The control: the same counts, other units."""

from __future__ import annotations

from dataclasses import replace

import torch
from architectures import INTERMEDIATE, LAYERS, tiny_model

from regraft.interfaces import LanguageModel, PruningContext
from regraft.pruning.allocation.per_layer import PerLayer
from regraft.pruning.criteria.l2 import L2
from regraft.pruning.pruner import Pruner
from regraft.pruning.structures.mlp_neurons import MlpNeurons
from regraft.pruning.structures.weights import Weights


def pruned(pruner: Pruner, *sparsities: float, seed: int = 0) -> LanguageModel:
    model = LanguageModel(model=tiny_model("llama"), tokenizer=None)  # type: ignore[arg-type]
    dense = pruner.left(model)
    for sparsity in sparsities:
        pruner.prune(model, dense, sparsity, PruningContext(generator=torch.Generator().manual_seed(seed)))
    return model


NEURONS = Pruner(criterion=L2(), structure=MlpNeurons(), allocation=PerLayer(weights={0: 0.5}), shuffled=True)


def test_each_layer_loses_as_many_but_others() -> None:
    plain = pruned(replace(NEURONS, shuffled=False), 0.5).removed["mlp_neurons"]
    one, same, other = (pruned(NEURONS, 0.5, seed=seed).removed["mlp_neurons"] for seed in (1, 1, 2))
    assert [len(layer) for layer in plain] == [len(layer) for layer in one] == [len(layer) for layer in other]
    assert len(set(map(len, plain))) > 1
    assert one == same
    assert all(len({layer, drawn, again}) == 3 for layer, drawn, again in zip(plain, one, other, strict=True))
    assert NEURONS.uses_seed and not replace(NEURONS, shuffled=False).uses_seed


def test_it_is_no_choice_by_score() -> None:
    """Over many seeds each neuron of a layer goes about as often as any other."""
    gone = torch.zeros(LAYERS, INTERMEDIATE)
    for seed in range(60):
        for layer, units in enumerate(pruned(NEURONS, 0.5, seed=seed).removed["mlp_neurons"]):
            gone[layer, list(units)] += 1
    share = gone / gone.mean(dim=1, keepdim=True)
    assert float(share.min()) > 0.3 and float(share.max()) < 1.9


def test_masked_weights_stay_gone() -> None:
    pruner = Pruner(criterion=L2(), structure=Weights(), allocation=PerLayer(), shuffled=True)
    first, second = pruned(pruner, 0.3), pruned(pruner, 0.3, 0.6)
    for name, mask in second.masks.items():
        assert not (mask & ~first.masks[name]).any()
        assert int((~mask).sum()) > int((~first.masks[name]).sum())
        assert not second.model.get_parameter(name)[~mask].any()
