"""Scores against a literal reading of the formulas, in float64 and by hand."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from architectures import ARCHITECTURES, INTERMEDIATE, LAYERS, tiny_model
from torch import nn
from units import Made

from regraft.config.ranges import ConfigError
from regraft.interfaces import Criterion, LanguageModel, PruningContext
from regraft.pruning.criteria.l1 import L1
from regraft.pruning.criteria.l2 import L2
from regraft.pruning.criteria.max_abs import MaxAbs
from regraft.pruning.criteria.norms import BLOCK
from regraft.pruning.criteria.random import Random
from regraft.pruning.structures.mlp_neurons import MlpNeurons

GATE = [[1.0, -2.0], [0.0, 3.0], [0.5, 0.5]]
UP = [[2.0, 0.0], [-1.0, 1.0], [4.0, -3.0]]
DOWN = [[1.0, 2.0, -2.0], [3.0, 0.0, 6.0]]
"""Three neurons of a hidden size of two; DOWN is (hidden, units), as in a model."""


def by_hand_structure() -> Made:
    """The weights above, in float16, as one layer."""
    weights = {"gate": torch.tensor(GATE), "up": torch.tensor(UP), "down": torch.tensor(DOWN).T}
    return Made({name: weight.half() for name, weight in weights.items()})


def language_model(model: nn.Module | None = None) -> LanguageModel:
    return LanguageModel(model=model, tokenizer=None)  # type: ignore[arg-type]


def context(seed: int = 0) -> PruningContext:
    return PruningContext(generator=torch.Generator().manual_seed(seed))


def by_hand(order: int, projections: tuple[str, ...], combine: str) -> list[float]:
    """Plain Python floats, one neuron at a time."""
    scores = []
    for neuron in range(3):
        owned = {"gate": GATE[neuron], "up": UP[neuron], "down": [row[neuron] for row in DOWN]}
        norms = [sum(abs(weight) ** order for weight in owned[name]) ** (1 / order) for name in projections]
        if combine == "sum_sq":
            scores.append(math.sqrt(sum(norm**2 for norm in norms)))
        else:
            scores.append({"sum": sum, "product": math.prod, "max": max}[combine](norms))
    return scores


PROJECTIONS = [("gate", "up", "down"), ("down",), ("gate", "up"), ("up",)]


@pytest.mark.parametrize("projections", PROJECTIONS, ids="+".join)
@pytest.mark.parametrize(
    ("criterion", "combine"),
    [(L2, "sum_sq"), (L2, "product"), (L2, "max"), (L1, "sum"), (L1, "product"), (L1, "max")],
)
def test_scores_are_the_formula(criterion: type[L1 | L2], combine: str, projections: tuple[str, ...]) -> None:
    component: Criterion = criterion(projections=projections, combine=combine)  # type: ignore[arg-type]
    (scores,) = component.scores(language_model(), by_hand_structure(), context())
    assert scores.dtype == torch.float32
    expected = by_hand(1 if criterion is L1 else 2, projections, combine)
    torch.testing.assert_close(scores.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=0)


def test_the_default_is_the_norm_of_all_that_a_neuron_owns() -> None:
    (scores,) = L2().scores(language_model(), by_hand_structure(), context())
    expected = [math.sqrt(1 + 4 + 4 + 1 + 9), math.sqrt(9 + 1 + 1 + 4), math.sqrt(0.25 + 0.25 + 16 + 9 + 4 + 36)]
    assert scores.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_l2_score_of_a_model_is_the_norm_of_what_zeroing_its_neuron_changes(architecture: str) -> None:
    model = tiny_model(architecture)
    scores = L2().scores(language_model(model), MlpNeurons(), context())
    assert [score.shape for score in scores] == [(INTERMEDIATE,)] * LAYERS
    state = model.state_dict()
    (prefix,) = {name.split(".1.mlp.")[0] for name in state if ".1.mlp." in name}
    neuron = 7
    owned = []
    for name, weight in state.items():
        if name.startswith(f"{prefix}.1.mlp.") and weight.ndim == 2:
            owned.append((weight[neuron] if weight.shape[0] == INTERMEDIATE else weight[:, neuron]).double())
    assert len(owned) == (2 if architecture == "gpt2" else 3)
    assert float(scores[1][neuron]) == pytest.approx(float(torch.cat(owned).norm()), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("criterion", "order"), [(L1(), 1), (L2(combine="max"), 2), (MaxAbs(), math.inf)])
def test_matrices_of_many_blocks_are_scored_by_the_formula_and_stay(
    criterion: Criterion, order: float, dtype: torch.dtype
) -> None:
    units = 3 * BLOCK // 16 + 5
    model = tiny_model("llama", intermediate_size=units, hidden_size=16, layers=1).to(dtype)
    before = copy.deepcopy(model.state_dict())
    (scores,) = criterion.scores(language_model(model), MlpNeurons(), context())
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    mlp = model.model.layers[0].mlp
    together = sum if order == 1 else max
    for neuron in (0, 1, BLOCK // 16 - 1, BLOCK // 16, units - 1):
        owned = (mlp.gate_proj.weight[neuron], mlp.up_proj.weight[neuron], mlp.down_proj.weight[:, neuron])
        expected = together(literal_norm(weights.tolist(), order) for weights in owned)
        assert float(scores[neuron]) == pytest.approx(expected, rel=1e-6)


def literal_norm(weights: list[float], order: float) -> float:
    sizes = [abs(weight) for weight in weights]
    return max(sizes) if math.isinf(order) else sum(size**order for size in sizes) ** (1 / order)


def test_a_projection_that_a_block_lacks_is_passed_over() -> None:
    model = language_model(tiny_model("gpt2"))
    every = L2().scores(model, MlpNeurons(), context())
    listed = L2(projections=("up", "down")).scores(model, MlpNeurons(), context())
    assert all(torch.equal(one, other) for one, other in zip(every, listed, strict=True))
    with pytest.raises(ConfigError, match=r"projections=\['gate'\]: must name at least one of up, down"):
        L1(projections=("gate",)).scores(model, MlpNeurons(), context())


@pytest.mark.parametrize("criterion", [L1, L2])
@pytest.mark.parametrize("projections", [(), ("up", "up")])
def test_projections_are_named_once_each(criterion: type[L1 | L2], projections: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="projections"):
        criterion(projections=projections)  # type: ignore[arg-type]


def test_random_scores_depend_on_the_seed_alone() -> None:
    structure, model = MlpNeurons(), language_model(tiny_model("llama"))
    one, same, other = (Random().scores(model, structure, context(seed)) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(one[0], one[1])
    otherwise = Random().scores(language_model(tiny_model("llama", seed=9)), structure, context(3))
    assert all(torch.equal(a, b) for a, b in zip(one, otherwise, strict=True))


def test_random_scores_do_not_depend_on_the_number_of_threads() -> None:
    large = Made({"up": torch.zeros(200_000, 1)})
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        (many,) = Random().scores(language_model(), large, context())
        torch.set_num_threads(1)
        (one,) = Random().scores(language_model(), large, context())
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(many, one)


def test_a_unit_keeps_its_random_score_while_others_go() -> None:
    dense = language_model()
    (before,) = Random().scores(dense, by_hand_structure(), context(5))

    two = Made({"up": torch.zeros(2, 1)})
    (after,) = Random().scores(replace(dense, removed={"made": ((1,),)}), two, context(5))
    assert after.tolist() == [before[0].item(), before[2].item()]


def test_only_random_needs_the_seed() -> None:
    assert Random.uses_seed and not L1.uses_seed and not L2.uses_seed
