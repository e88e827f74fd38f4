"""L1 and group lasso: exact zeros by the proximal step, gradients by the formula, a path that is monotone."""

from __future__ import annotations

import math

import pytest
import torch
from architectures import INTERMEDIATE
from at_hand import AtHand, language_model

from regraft.config.ranges import ConfigError
from regraft.distillation.losses.cross_entropy import CrossEntropy
from regraft.interfaces import Criterion, LanguageModel, PruningContext
from regraft.pruning.criteria.group_lasso import GroupLasso
from regraft.pruning.criteria.l1_regularised import L1Regularised
from regraft.pruning.structures.mlp_neurons import MlpNeurons
from regraft.pruning.structures.weights import Weights

CE = CrossEntropy()


def run(criterion: Criterion, data: AtHand | None = None, structure=None) -> tuple[LanguageModel, list[torch.Tensor]]:
    model = language_model()
    context = PruningContext(generator=torch.Generator(), sparsity=0.5, data=data or AtHand())
    return model, criterion.scores(model, structure or MlpNeurons(), context)


def neuron(model: LanguageModel, layer: int, unit: int) -> list[float]:
    mlp = model.model.model.layers[layer].mlp  # type: ignore[union-attr, index]
    rows = (mlp.gate_proj.weight[unit], mlp.up_proj.weight[unit], mlp.down_proj.weight[:, unit])
    return [float(x) for row in rows for x in row.detach().double()]


class Still(AtHand):
    """A training in which nothing but the penalty moves anything: it calls the seams, and makes no step."""

    def __init__(self) -> None:
        super().__init__()
        self.penalties: list[torch.Tensor] = []

    def train(self, model, loss, steps, *, learning_rate=None, terms=(), on_gradients=(), after_step=()):
        self.penalties += [term(model.model) for term in terms]
        for step in range(steps):
            for action in after_step:
                action(model.model, step + 1)


def test_the_group_lasso_shrinks_neurons_as_the_formula_says() -> None:
    dense, width = language_model(), 3 * 32
    rate, strength = 0.1, 0.9
    model, scores = run(GroupLasso(loss=CE, steps=1, learning_rate=rate, strength=strength), Still())
    zeros = 0
    for unit in range(INTERMEDIATE):
        before = neuron(dense, 1, unit)
        norm = math.sqrt(sum(x * x for x in before))
        factor = max(0.0, 1 - rate * strength * math.sqrt(width) / norm)
        assert neuron(model, 1, unit) == pytest.approx([factor * x for x in before], rel=1e-5, abs=1e-7)
        assert float(scores[1][unit]) == pytest.approx(factor * norm, rel=1e-5, abs=1e-6)
        zeros += all(x == 0 for x in neuron(model, 1, unit))
    stronger, _ = run(GroupLasso(loss=CE, steps=3, learning_rate=rate, strength=strength), Still())
    assert zeros < sum(all(x == 0 for x in neuron(stronger, 1, unit)) for unit in range(INTERMEDIATE))


def test_l1_shrinks_weights_as_the_formula_says() -> None:
    dense = language_model()
    model, scores = run(L1Regularised(loss=CE, steps=1, learning_rate=0.1, strength=0.5), Still())
    for unit in (0, 7):
        expected = [math.copysign(max(0.0, abs(x) - 0.05), x) for x in neuron(dense, 0, unit)]
        assert neuron(model, 0, unit) == pytest.approx(expected, rel=1e-5, abs=1e-8)
        assert float(scores[0][unit]) == pytest.approx(sum(map(abs, expected)), rel=1e-5)
    assert 0 < sum(x == 0 for x in neuron(model, 0, 7)) < 96


def test_without_proximal_step_the_penalty_is_a_term_of_the_loss() -> None:
    model = language_model()
    lasso, l1 = Still(), Still()
    run(GroupLasso(loss=CE, steps=1, strength=0.3, proximal=False), lasso)
    run(L1Regularised(loss=CE, steps=1, strength=0.3, proximal=False), l1)
    weights = [neuron(model, layer, unit) for layer in range(3) for unit in range(INTERMEDIATE)]
    norms = sum(math.sqrt(len(owned)) * math.sqrt(sum(x * x for x in owned)) for owned in weights)
    assert float(lasso.penalties[0].detach()) == pytest.approx(0.3 * norms, rel=1e-5)
    assert float(l1.penalties[0].detach()) == pytest.approx(
        0.3 * sum(abs(x) for owned in weights for x in owned), rel=1e-5
    )


@pytest.mark.parametrize(
    ("criterion", "strengths"), [(GroupLasso, (0.0, 2.0, 2.4, 2.8)), (L1Regularised, (0.0, 0.05, 0.2, 0.8))]
)
def test_proximal_training_ends_with_exact_zeros_and_more_of_them_the_stronger_it_is(criterion, strengths) -> None:
    zeros = []
    for strength in strengths:
        data = AtHand()
        model, scores = run(criterion(loss=CE, steps=12, learning_rate=5e-3, strength=strength), data)
        zeros.append(sum(int((p == 0).sum()) for name, p in model.model.named_parameters() if "mlp" in name))
        assert strength > 0 or data.lines[-1]["loss"] < data.lines[0]["loss"]
        assert all(score.isfinite().all() for score in scores)
    assert zeros[0] == 0 and zeros == sorted(zeros) and zeros[-1] > zeros[1]


def test_single_weights_make_both_penalties_one() -> None:
    lasso, _ = run(GroupLasso(loss=CE, steps=2, learning_rate=0.1, strength=0.3), Still(), Weights())
    l1, _ = run(L1Regularised(loss=CE, steps=2, learning_rate=0.1, strength=0.3), Still(), Weights())
    for one, other in zip(lasso.model.parameters(), l1.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_what_they_need_and_refuse() -> None:
    assert GroupLasso(loss=CE).needs == L1Regularised(loss=CE).needs == {"calibration", "labels", "training"}
    with pytest.raises(ConfigError, match="strength=-1"):
        GroupLasso(loss=CE, strength=-1)
