"""Searched allocations on a problem whose answer is known: one layer is useless, another precious."""

from __future__ import annotations

import copy
import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import planted
import pytest
import questions
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_trial import hooks, language_model

from regraft.config.ranges import ConfigError
from regraft.distillation.losses.cross_entropy import CrossEntropy
from regraft.distillation.losses.kl import KL
from regraft.interfaces import Batch, LanguageModel, Loss, LossValue, Scored
from regraft.pruning.allocation import amc
from regraft.pruning.allocation.amc import Amc, truncated_normal
from regraft.pruning.allocation.evolutionary import Evolutionary
from regraft.pruning.allocation.greedy import Greedy
from regraft.pruning.allocation.optuna_search import OptunaSearch
from regraft.pruning.allocation.search import Searched
from regraft.pruning.structures.mlp_neurons import MlpNeurons
from regraft.pruning.structures.weights import Weights
from regraft.pruning.trial import Trial

Make = Callable[..., Searched]
SEARCHES: dict[str, Make] = {
    "greedy": Greedy,
    "evolutionary": Evolutionary,
    "optuna": OptunaSearch,
    "amc": lambda **fields: Amc(**{"hidden": 32, "updates": 2, "tau": 0.05, "actor_learning_rate": 1e-3} | fields),
}
MOST = 45
"""Units that a layer of 48 may lose under the default floor."""


@dataclass(frozen=True, kw_only=True)
class FewerLeft(MlpNeurons):
    """Of the precious layer 20 are gone."""

    def left(self, model: LanguageModel) -> list[int]:
        return [units - 20 * (layer == planted.PRECIOUS) for layer, units in enumerate(planted.UNITS)]


def searched(make: Make, scored: Scored | None = None, sparsity: float = 0.5, **fields: Any) -> tuple[list[int], dict]:
    """The losses and what is reported of the search."""
    told: dict = {}
    scored = scored or planted.problem()
    scored = replace(scored, context=replace(scored.context, report=told.update))
    losses = make(**{"loss": planted.LOSS, "evaluations": 60} | fields).losses(scored, sparsity)
    return losses, told["search"]


@pytest.mark.parametrize("name", SEARCHES)
def test_the_useless_layer_goes_and_the_precious_one_stays(name: str) -> None:
    scored = planted.problem()
    before = copy.deepcopy(scored.model.model.state_dict())
    losses, told = searched(SEARCHES[name], scored)
    assert sum(losses) == 96 and max(losses) <= MOST
    assert told["loss"] < 0.6 * told["even_loss"]
    assert losses[planted.USELESS] > 24 > losses[planted.PRECIOUS]
    assert told["layers"] == losses and told["evaluations"] <= 60
    assert hooks(scored.model.model) == 0
    assert all(torch.equal(before[key], value) for key, value in scored.model.model.state_dict().items())


@pytest.mark.parametrize("name", SEARCHES)
def test_the_seed_decides(name: str) -> None:
    one, same, other = (searched(SEARCHES[name], planted.problem(seed=seed), evaluations=16)[0] for seed in (0, 0, 1))
    assert one == same
    assert SEARCHES[name](loss=planted.LOSS).uses_seed == (name != "greedy")
    assert (one == other) == (name == "greedy")


@pytest.mark.parametrize("name", SEARCHES)
def test_what_is_found_is_never_worse_than_the_same_share(name: str) -> None:
    losses, told = searched(SEARCHES[name], evaluations=7, sparsity=0.25)
    assert sum(losses) == 48 and told["loss"] <= told["even_loss"] and told["evaluations"] <= 7


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize(("sparsity", "total"), [(0.0, 0), (45 / 48, 180)])
def test_nothing_is_searched_where_nothing_is_free(name: str, sparsity: float, total: int) -> None:
    losses, told = searched(SEARCHES[name], sparsity=sparsity)
    assert losses == [total // 4] * 4 and told["evaluations"] == 1
    with pytest.raises(ConfigError, match=r"sparsity=0.95: .* at most 0.9375"):
        searched(SEARCHES[name], sparsity=0.95)


@pytest.mark.parametrize("name", SEARCHES)
def test_what_is_gone_stays_gone(name: str) -> None:
    scored = planted.problem()
    scores = list(scored.scores)
    # the useless layer lost nothing and the precious one 20 before: masked, for this test
    scores[planted.PRECIOUS] = scores[planted.PRECIOUS].index_fill(0, torch.arange(20), float("-inf"))
    scored = replace(scored, scores=scores, structure=FewerLeft())
    losses, _ = searched(SEARCHES[name], scored, evaluations=12)
    assert sum(losses) == 96 and losses[planted.PRECIOUS] >= 20


def test_greedy_takes_where_the_loss_rises_least() -> None:
    """Against a literal walk: the rise a unit, of the model measured anew each time."""
    losses, told = searched(Greedy, evaluations=4 * 6 + 3)
    measure = Trial(planted.problem(), planted.LOSS)
    expected = [0] * 4
    while sum(expected) < 96:
        rises = []
        for layer in range(4):
            units = min(16, 96 - sum(expected), MOST - expected[layer])
            if units:
                more = [lost + units * (layer == other) for other, lost in enumerate(expected)]
                rises.append(((measure(more) - measure(expected)) / units, layer, more))
        expected = min(rises)[2]
    assert losses == expected and told["evaluations"] <= 27


class Breaking(questions.Made):
    """Of the models that are measured a third compute no number, and a third infinity; the first is well."""

    measured = 0

    def value(self, model: LanguageModel, loss: Loss, batch: Batch) -> LossValue:
        value = super().value(model, loss, batch)
        self.measured += 1
        wrong = {0: math.nan, 2: math.inf}.get(self.measured % 3)
        return value if wrong is None else replace(value, total=value.total * wrong)


@pytest.mark.parametrize("name", SEARCHES)
def test_candidates_that_compute_no_number_are_the_worst(name: str) -> None:
    asked = questions.Made(questions.made(12), batch_size=12)
    breaking = Breaking(asked.questions, batch_size=12, dense=copy.deepcopy(planted.model()))
    losses, told = searched(SEARCHES[name], planted.problem(calibration=breaking), evaluations=20)
    assert sum(losses) == 96 and math.isfinite(told["loss"]) and told["loss"] <= told["even_loss"]


def test_no_reward_is_infinite() -> None:
    worst = [amc.rewarded(loss, 2.0) for loss in (math.inf, 1e30)]
    assert worst == [amc.WORST, amc.WORST] and amc.rewarded(3.0, 2.0) == -1.5 and amc.rewarded(3.0, math.inf) == 0


def test_greedy_with_too_small_a_budget_is_told_so() -> None:
    with pytest.raises(ConfigError, match=r"evaluations=6: must be at least 7 for 4 layers"):
        searched(Greedy, evaluations=6)


def test_the_matrices_of_a_layer_are_one_decision() -> None:
    model, structure = language_model("llama"), Weights()
    units = structure.units(model.model)
    scores = [next(iter(group.weights().values())).flatten().abs() for group in structure.groups(model.model)]
    context = planted.problem(calibration=questions.Made(dense=copy.deepcopy(model))).context
    scored = Scored(model=model, structure=structure, scores=scores, dense_units=units, context=context)
    losses, told = searched(Evolutionary, scored, evaluations=10)
    assert len(told["layers"]) == 3 and len(losses) == 21 and sum(losses) == sum(units) // 2
    shares = [lost / each for lost, each in zip(losses, units, strict=True)]
    for layer in range(3):
        within = shares[7 * layer : 7 * layer + 7]
        assert max(within) - min(within) <= 1.001 / min(units)
    assert max(shares) - min(shares) > 0.01


@pytest.mark.parametrize("name", SEARCHES)
def test_what_a_search_needs_follows_from_its_loss(name: str) -> None:
    assert SEARCHES[name](loss=CrossEntropy()).needs == {"calibration", "labels"}
    assert SEARCHES[name](loss=KL()).needs == {"calibration", "teacher_logits"}


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (Greedy, {"evaluations": 0}),
        (OptunaSearch, {"floor": 1.0}),
        (Evolutionary, {"population": 0}),
        (Evolutionary, {"survivors": 0}),
        (Evolutionary, {"step": 0.0}),
        (Amc, {"hidden": 0}),
        (Amc, {"warmup": 1.5}),
        (Amc, {"sigma": 0.0}),
    ],
)
def test_fields_are_checked(make: Make, wrong: dict) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))}="):
        make(**{"loss": planted.LOSS} | wrong)


@given(mean=st.floats(0, 1), sigma=st.floats(1e-3, 2), uniform=st.floats(0, 1))
def test_actions_are_drawn_from_a_normal_cut_to_shares(mean: float, sigma: float, uniform: float) -> None:
    drawn = truncated_normal(mean, sigma, uniform)
    assert 0 <= drawn <= 1

    def below(value: float) -> float:
        return 0.5 * (1 + math.erf((value - mean) / (sigma * math.sqrt(2))))

    assert (below(drawn) - below(0)) / (below(1) - below(0)) == pytest.approx(uniform, abs=1e-6)


def test_the_agent_learns_which_action_is_rewarded() -> None:
    """Layers of one decision: actions near 0.8 in the first state are rewarded, near 0.2 in the second."""
    torch.manual_seed(0)
    draw = random.Random(0)
    agent = amc.Agent(Amc(loss=planted.LOSS, hidden=32, actor_learning_rate=1e-3), 2, draw)
    for _ in range(60):
        for state, wanted in (([1.0, 0.0], 0.8), ([0.0, 1.0], 0.2)):
            action = draw.random()
            agent.remember([(state, action)], -((action - wanted) ** 2))
    agent.average = 0.0
    for _ in range(500):
        agent.learn()
    assert agent.action([1.0, 0.0], 1e-6) == pytest.approx(0.8, abs=0.15)
    assert agent.action([0.0, 1.0], 1e-6) == pytest.approx(0.2, abs=0.15)


@pytest.mark.slow
def test_the_agent_does_about_as_well_as_the_other_searches_at_equal_evaluations() -> None:
    """methods.md 3.3: better than uniform, about as good as evolutionary and greedy search."""
    found: dict[str, list[float]] = {}
    for (name, make), seed in itertools.product({**SEARCHES, "amc": Amc}.items(), range(3)):
        _, told = searched(make, planted.problem(seed=seed), evaluations=100)
        found.setdefault(name, []).append(told["loss"] / told["even_loss"])
    mean = {name: sum(ratios) / len(ratios) for name, ratios in found.items()}
    assert mean["amc"] < 0.4
    assert mean["amc"] < min(mean["evolutionary"], mean["greedy"]) + 0.1
