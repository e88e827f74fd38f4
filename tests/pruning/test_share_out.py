"""Shares that rise together until a total is met, and OWL, which shifts them by its ratio of outliers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import questions
import torch
from architectures import INTERMEDIATE, tiny_model
from hypothesis import given
from hypothesis import strategies as st

from regraft.config.ranges import ConfigError
from regraft.interfaces import Batch, LanguageModel, ModelOutputs, PruningContext, Scored
from regraft.pruning.allocation.owl import Owl, densities
from regraft.pruning.allocation.shares import Room, share_out
from regraft.pruning.structures.mlp_neurons import MlpNeurons


def room(units: list[int], total: int, least: list[int] | None = None, most: list[int] | None = None) -> Room:
    return Room(units=tuple(units), least=tuple(least or [0] * len(units)), most=tuple(most or units), total=total)


@pytest.mark.parametrize(
    ("units", "total", "more", "expected"),
    [
        ([10, 30], 20, {}, [5, 15]),
        ([10, 10, 10, 10], 10, {}, [3, 3, 2, 2]),
        ([10, 10], 10, {"offsets": [0.1, -0.1]}, [4, 6]),
        ([10, 10], 18, {"offsets": [0.1, -0.1]}, [8, 10]),  # the second is empty, the first makes up for it
        ([10, 20], 15, {"offsets": [0.1, -0.1]}, [4, 11]),  # shares differ by 0.2
        ([10, 10], 6, {"weights": [2.0, 1.0]}, [4, 2]),
        ([10, 10], 6, {"weights": [0.0, 1.0]}, [0, 6]),
        ([10, 10], 12, {"weights": [0.0, 1.0]}, [2, 10]),
        ([1_000_003, 2_000_006], 1_500_000, {}, [500_000, 1_000_000]),
    ],
)
def test_by_hand(units: list[int], total: int, more: dict, expected: list[int]) -> None:
    assert share_out(room(units, total), **more) == expected


layers = st.lists(
    st.tuples(st.integers(1, 30), st.floats(0, 1), st.floats(0, 1), st.floats(-0.5, 0.5), st.floats(0, 2)),
    min_size=1,
    max_size=6,
)


@given(layers=layers, part=st.floats(0, 1))
def test_it_is_the_cheapest_first_one_by_one(layers: list[tuple[int, float, float, float, float]], part: float) -> None:
    units = [layer[0] for layer in layers]
    least = [int(layer[1] * 0.5 * layer[0]) for layer in layers]
    most = [low + int(layer[2] * (layer[0] - low)) for low, layer in zip(least, layers, strict=True)]
    total = sum(least) + int(part * (sum(most) - sum(least)))
    offsets, weights = [layer[3] for layer in layers], [max(layer[4], 1e-9) for layer in layers]
    prices = sorted(
        (offsets[group] + (unit - 0.5) / (weights[group] * units[group]), group)
        for group in range(len(units))
        for unit in range(least[group] + 1, most[group] + 1)
    )
    expected = list(least)
    for _, group in prices[: total - sum(least)]:
        expected[group] += 1
    assert share_out(room(units, total, least, most), offsets=offsets, weights=weights) == expected


def owl_problem() -> Scored:
    """Three layers, in the second of which some weights are eight times as large as they were."""
    model = tiny_model("llama")
    model.model.layers[1].mlp.down_proj.weight.data[:4, :10] *= 8  # type: ignore[union-attr]
    return Scored(
        model=LanguageModel(model=model, tokenizer=None),  # type: ignore[arg-type]
        structure=MlpNeurons(),
        scores=[torch.rand(INTERMEDIATE, generator=torch.Generator().manual_seed(0))] * 3,
        dense_units=[INTERMEDIATE] * 3,
        context=PruningContext(generator=torch.Generator(), data=questions.Made()),
    )


def inputs_of(scored: Scored) -> dict[torch.nn.Module, list[list[float]]]:
    """What each projection of the blocks is fed by the questions, one question at a time: no padding."""
    fed: dict[torch.nn.Module, list[list[float]]] = {}
    handles = []
    for layer in scored.model.model.model.layers:  # type: ignore[union-attr]
        for module in (layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj):
            rows = fed.setdefault(module, [])
            hook = lambda _, given, rows=rows: rows.extend(given[0].flatten(0, 1).double().tolist())  # noqa: E731
            handles.append(module.register_forward_pre_hook(hook))
    calibration = scored.context.calibration
    assert isinstance(calibration, questions.Made)
    with torch.no_grad():
        for question in calibration.questions:
            alone = questions.Made([question], batch_size=1)
            for batch in alone.batches():
                alone.forward(scored.model, batch)
    for handle in handles:
        handle.remove()
    return fed


def test_owl_is_the_formula() -> None:
    scored = owl_problem()
    fed = inputs_of(scored)
    ratios = []
    for layer in scored.model.model.model.layers:  # type: ignore[union-attr]
        scores = []
        for module in (layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj):
            norms = [sum(row[channel] ** 2 for row in fed[module]) ** 0.5 for channel in range(module.in_features)]
            for row in module.weight.double().tolist():
                scores.extend(abs(weight) * norm for weight, norm in zip(row, norms, strict=True))
        mean = sum(scores) / len(scores)
        ratios.append(sum(score > 5 * mean for score in scores) / len(scores))
    assert Owl().ratios(scored) == dict(enumerate(ratios))
    assert len(set(ratios)) == 3

    sparsity, spread = 0.5, 0.2
    low, high = min(ratios), max(ratios)
    stretched = [2 * spread * (ratio - low) / (high - low) for ratio in ratios]
    density = [each - sum(stretched) / 3 + 1 - sparsity for each in stretched]
    told: dict = {}
    scored = replace(scored, context=replace(scored.context, report=told.update))
    found = Owl(spread=spread).losses(scored, sparsity)
    assert sum(found) == 72
    assert all(abs(lost - INTERMEDIATE * (1 - dense)) <= 1 for lost, dense in zip(found, density, strict=True))
    assert told == {"outlier_ratios": {str(layer): ratio for layer, ratio in enumerate(ratios)}}


def test_owl_measures_once_however_many_amounts_are_asked_and_tells_dense_layers() -> None:
    scored = owl_problem()
    looked: list[int] = []

    class Counted(questions.Made):
        def forward(self, model: LanguageModel, batch: Batch) -> ModelOutputs:
            looked.append(1)
            return super().forward(model, batch)

    told: dict = {}
    scored.model.removed = {"layers": ((0, 2),)}
    scored = replace(scored, context=replace(scored.context, data=Counted(), report=told.update))
    first = Owl().losses(scored, 0.5)
    once = len(looked)
    assert once > 0
    assert Owl().losses(scored, 0.25) != first == Owl().losses(scored, 0.5)
    assert len(looked) == once
    assert list(told["outlier_ratios"]) == ["1", "3", "4"]


def test_the_layer_with_more_outliers_stays_denser() -> None:
    assert densities({0: 0.01, 1: 0.03, 2: 0.02}, 0.08) == pytest.approx({0: -0.08, 1: 0.08, 2: 0.0})
    assert densities({0: 0.01, 1: 0.01}, 0.08) == {0: 0.0, 1: 0.0}


def test_owl_without_spread_is_the_same_share_for_all() -> None:
    assert Owl(spread=0.0).losses(owl_problem(), 0.25) == [12, 12, 12]


@pytest.mark.parametrize("wrong", [{"outlier": 0.0}, {"spread": 0.6}, {"floor": 1.0}])
def test_owl_checks_its_fields(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))}="):
        Owl(**wrong)
