"""Scores of whole layers, against the formulas in float64, one token at a time and without packing."""

from __future__ import annotations

import copy
import math

import pytest
import questions
import torch
from architectures import tiny_model
from standins import Layers
from torch import nn

from regraft.distillation.losses.cross_entropy import CrossEntropy
from regraft.interfaces import LanguageModel, PruningContext
from regraft.pruning.criteria.alternate import Alternate, spread
from regraft.pruning.criteria.angular_distance import AngularDistance, of_layers
from regraft.pruning.criteria.block_influence import BlockInfluence
from regraft.pruning.criteria.sleb import SLEB
from regraft.pruning.depth import layers_to_go

DEEP = 5


def language_model(architecture: str = "llama", **overrides: object) -> LanguageModel:
    model = tiny_model(architecture, layers=DEEP, **overrides).double()  # type: ignore[operator]
    return LanguageModel(model=model, tokenizer=None)  # type: ignore[arg-type]


def context(sparsity: float = 0.4) -> PruningContext:
    data = questions.Made(batch_size=4)
    return PruningContext(generator=torch.Generator(), sparsity=sparsity, data=data)


def layers_of(model: nn.Module) -> nn.ModuleList:
    (found,) = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return found


def states(model: nn.Module, ids: list[int]) -> list[torch.Tensor]:
    """What enters each layer, and last what leaves the last one: (seq, hidden) each."""
    layers, seen = layers_of(model), []
    handles = [layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0])) for layer in layers]
    end = layers[-1].register_forward_hook(
        lambda _, inputs, out: seen.append((out[0] if type(out) is tuple else out)[0])
    )
    with torch.no_grad():
        model(input_ids=torch.tensor([ids]))
    for handle in (*handles, end):
        handle.remove()
    return seen


def cosine(one: list[float], other: list[float]) -> float:
    dot = math.fsum(a * b for a, b in zip(one, other, strict=True))
    return dot / math.sqrt(math.fsum(a * a for a in one)) / math.sqrt(math.fsum(b * b for b in other))


@pytest.mark.parametrize("architecture", ["llama", "olmo2", "gemma3", "gpt2"])
def test_block_influence(architecture: str) -> None:
    model = language_model(architecture)
    (scores,) = BlockInfluence().scores(model, Layers(), context())
    each: list[list[float]] = [[] for _ in range(DEEP)]
    for question in questions.made():
        for ids, new in questions.sequences(question):
            seen = [state.tolist() for state in states(model.model, ids)]
            for layer in range(DEEP):
                each[layer] += [cosine(seen[layer][at], seen[layer + 1][at]) for at in new]
    expected = [1 - math.fsum(cosines) / len(cosines) for cosines in each]
    torch.testing.assert_close(scores, torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("sparsity", "length"), [(0.2, 1), (0.4, 2), (0.6, 3), (0.99, 4)])
def test_angular_distance(sparsity: float, length: int) -> None:
    model = language_model()
    (scores,) = AngularDistance().scores(model, Layers(), context(sparsity))
    asked = [[state[-1].tolist() for state in states(model.model, list(one.context))] for one in questions.made()]
    distances = [
        math.fsum(math.acos(cosine(seen[first], seen[first + length])) / math.pi for seen in asked) / len(asked)
        for first in range(DEEP - length + 1)
    ]
    best = min(range(len(distances)), key=lambda first: distances[first])
    assert sorted(scores.argsort()[:length].tolist()) == list(range(best, best + length))
    expected = [
        min(distances[first] for first in range(len(distances)) if first <= layer < first + length)
        for layer in range(DEEP)
    ]
    torch.testing.assert_close(scores, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=0)


def test_the_best_block_goes_whole_though_another_is_as_good() -> None:
    scores = of_layers(torch.tensor([0.3, 0.1, 0.2, 0.1, 0.4], dtype=torch.float64), 3)
    assert scores.argsort(stable=True)[:3].tolist() == [1, 2, 3]
    assert scores.tolist() == pytest.approx([0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.4])


def without(model: nn.Module, gone: list[int]) -> nn.Module:
    smaller = copy.deepcopy(model)
    smaller.model.layers = nn.ModuleList(  # type: ignore[union-attr]
        layer for number, layer in enumerate(layers_of(smaller)) if number not in gone
    )
    return smaller


def perplexity(model: nn.Module) -> float:
    """Its log, of the questions without their choices."""
    nll = []
    for question in questions.made():
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([question.context])).logits[0].tolist()
        for at, token in enumerate(question.context[1:]):
            nll.append(math.log(math.fsum(map(math.exp, logits[at]))) - logits[at][token])
    return math.fsum(nll) / len(nll)


def test_sleb() -> None:
    model = language_model()
    (scores,) = SLEB().scores(model, Layers(), context(0.6))
    order: list[int] = []
    for _ in range(3):
        losses = {n: perplexity(without(model.model, [*order, n])) for n in range(DEEP) if n not in order}
        order.append(min(losses, key=lambda layer: losses[layer]))
    order += sorted(set(range(DEEP)) - set(order), key=lambda layer: losses[layer])
    assert scores.argsort().tolist() == order
    assert sorted(scores.tolist()) == list(range(DEEP))


def test_sleb_is_greedy_by_the_loss_that_it_is_given() -> None:
    model = language_model()
    loss = CrossEntropy(reads="choices")
    (scores,) = SLEB(loss=loss).scores(model, Layers(), context(0.2))
    losses = []
    for gone in range(DEEP):
        smaller = LanguageModel(model=without(model.model, [gone]), tokenizer=None)  # type: ignore[arg-type]
        data = questions.Made(batch_size=1)
        values = [data.value(smaller, loss, batch) for batch in data.batches(loss)]
        losses.append(sum(float(value.total.detach()) for value in values) / sum(value.count for value in values))
    assert scores.argsort().tolist() == sorted(range(DEEP), key=lambda layer: losses[layer])


@pytest.mark.parametrize("criterion", [BlockInfluence(), AngularDistance()], ids=lambda one: type(one).__name__)
def test_a_layer_that_does_nothing_goes_first(criterion: BlockInfluence | AngularDistance) -> None:
    model = language_model()
    idle = layers_of(model.model)[2]
    with torch.no_grad():
        idle.self_attn.o_proj.weight.zero_()  # type: ignore[union-attr,operator]
        idle.mlp.down_proj.weight.zero_()  # type: ignore[union-attr,operator]
    (scores,) = criterion.scores(model, Layers(), context(0.2))
    assert int(scores.argmin()) == 2 and float(scores[2]) == pytest.approx(0, abs=1e-7)


def test_how_many_layers_go_counts_those_that_are_gone() -> None:
    model = language_model()
    assert layers_to_go(model, Layers(), context(0.4)) == 2
    assert layers_to_go(model, Layers(), context(0.5)) == 3  # halves up
    model.removed["layers"] = ((0, 3, 4),)  # of eight
    assert layers_to_go(model, Layers(), context(0.5)) == 1
    assert layers_to_go(model, Layers(), context(0.25)) == 0
    assert layers_to_go(model, Layers(), context(0.99)) == 4


@pytest.mark.parametrize(
    ("layers", "left", "expected"),
    [
        (12, 6, [0, 2, 4, 7, 9, 11]),  # DistilBERT's
        (12, 12, list(range(12))),
        (12, 1, [0]),
        (12, 2, [0, 11]),
        (5, 3, [0, 2, 4]),
        (4, 3, [0, 2, 3]),
    ],
)
def test_alternate_layers_are_evenly_spread(layers: int, left: int, expected: list[int]) -> None:
    assert spread(layers, left) == expected


@pytest.mark.parametrize(
    ("sparsity", "kept"), [(0.0, [0, 1, 2, 3, 4]), (0.2, [0, 1, 3, 4]), (0.4, [0, 2, 4]), (0.8, [0])]
)
def test_alternate(sparsity: float, kept: list[int]) -> None:
    model = language_model()
    (scores,) = Alternate().scores(model, Layers(), context(sparsity))
    left = DEEP - layers_to_go(model, Layers(), context(sparsity))
    assert sorted(scores.argsort(stable=True)[DEEP - left :].tolist()) == kept


def test_alternate_spreads_what_is_left_anew() -> None:
    model = language_model()
    model.removed["layers"] = ((1, 3),)
    model.model.model.layers = nn.ModuleList([model.model.model.layers[layer] for layer in (0, 2, 4)])
    (scores,) = Alternate().scores(model, Layers(), context(0.6))
    assert scores.tolist() == [1, 0, 1]
