"""Movement pruning: scores by the formula, masks by the ramp, weights trained whole."""

from __future__ import annotations

import copy

import pytest
import torch
from architectures import INTERMEDIATE, LAYERS
from at_hand import AtHand, language_model

from regraft.config.ranges import ConfigError
from regraft.distillation.losses.cross_entropy import CrossEntropy
from regraft.interfaces import Criterion, LanguageModel, PruningContext, Structure
from regraft.pruning.allocation.layerwise import Layerwise, removed
from regraft.pruning.criteria.movement import Movement
from regraft.pruning.criteria.soft_movement import SoftMovement
from regraft.pruning.pruner import Pruner
from regraft.pruning.structures.mlp_neurons import MlpNeurons
from regraft.pruning.structures.weights import Weights
from regraft.recovery.training import Training

PLAIN = Training(batch_size=24, learning_rate=1e-2, warmup=0.0, decay="constant", max_grad_norm=None, betas=(0.0, 0.0))
"""Every question at each step, and a step that a test can take by hand: w <- w - eta * g / (|g| + eps)."""
STEPS, SPARSITY = 6, 0.6


class Watched(AtHand):
    """Notes what the forward pass sees, the gradients, and the weights that the optimizer leaves."""

    def __init__(self) -> None:
        super().__init__(PLAIN)
        self.seen: list[dict[str, torch.Tensor]] = []
        self.gradients: list[dict[str, torch.Tensor]] = []

    def train(self, model, loss, steps, **seams) -> None:
        def note(network, step):
            self.seen.append({name: p.detach().clone() for name, p in network.named_parameters()})
            self.gradients.append({name: p.grad.clone() for name, p in network.named_parameters()})

        seams["on_gradients"] = [note, *seams["on_gradients"]]
        super().train(model, loss, steps, **seams)


def run(criterion: Criterion, structure: Structure) -> tuple[LanguageModel, Watched, list[torch.Tensor]]:
    model, data = language_model(), Watched()
    context = PruningContext(generator=torch.Generator().manual_seed(0), sparsity=SPARSITY, data=data)
    return model, data, criterion.scores(model, structure, context)


def owned(structure: Structure, model: LanguageModel, of: dict[str, torch.Tensor]) -> list[list[float]]:
    """For each group and unit the sum of `of` over its weights, in loops over rows and columns."""
    sums = []
    if isinstance(structure, Weights):
        names = {id(p): name for name, p in model.model.named_parameters()}
        return [of[names[id(g.parts[0].parameter)]].flatten().tolist() for g in structure.groups(model.model)]
    for layer in range(LAYERS):
        mlp = [of[f"model.layers.{layer}.mlp.{name}_proj.weight"] for name in ("gate", "up", "down")]
        sums.append(
            [sum(float(x) for x in (*mlp[0][unit], *mlp[1][unit], *mlp[2][:, unit])) for unit in range(INTERMEDIATE)]
        )
    return sums


@pytest.mark.parametrize("structure", [Weights(), MlpNeurons()], ids=["weights", "neurons"])
def test_the_scores_are_the_sums_of_the_formula_and_the_masks_their_top(structure: Structure) -> None:
    criterion = Movement(loss=CrossEntropy(), steps=STEPS, warmup=1 / 6, cooldown=1 / 3)
    model, data, scores = run(criterion, structure)
    scored = {n for n in data.seen[0] if "_proj" in n and ("mlp" in n or isinstance(structure, Weights))}
    whole = {name: data.seen[0][name].double() for name in scored}
    expected = [torch.zeros(len(score), dtype=torch.float64) for score in scores]
    shares = []
    for step in range(STEPS):
        gradient = {name: data.gradients[step][name].double() for name in scored}
        for total, moved in zip(
            expected, owned(structure, model, {n: gradient[n] * whole[n] for n in scored}), strict=True
        ):
            total -= torch.tensor(moved, dtype=torch.float64)
        # what the forward pass saw is whole where it is kept, and zero elsewhere
        hidden = {name: (data.seen[step][name] == 0) & (whole[name] != 0) for name in scored}
        gone = owned(structure, model, {name: mask.double() for name, mask in hidden.items()})
        shares.append([sum(1 for unit in group if unit) / len(group) for group in gone])
        for name in scored:
            seen = data.seen[step][name].double()
            torch.testing.assert_close(seen, whole[name].masked_fill(hidden[name], 0), rtol=1e-6, atol=1e-8)
            # and the optimizer moves the whole weights, those that are masked not at all
            used = gradient[name].masked_fill(hidden[name], 0)
            whole[name] -= 1e-2 * used / (used.abs() + 1e-8)
    for found, wanted in zip(scores, expected, strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-3, atol=1e-5)
    ramp = [0.0, 0.0, *(SPARSITY - SPARSITY * (1 - t) ** 3 for t in (1 / 3, 2 / 3, 1.0)), SPARSITY]
    for found, share in zip(shares, ramp, strict=True):
        units = [group.units for group in structure.groups(model.model)]
        assert found == pytest.approx([removed(each, share) / each for each in units])
    for name in scored:
        torch.testing.assert_close(model.model.get_parameter(name).detach().double(), whole[name], rtol=1e-3, atol=1e-4)


def test_the_pruner_keeps_the_trained_weights_of_the_highest_scores() -> None:
    criterion = Movement(loss=CrossEntropy(), steps=3)
    model, trained = language_model(), language_model()
    pruner = Pruner(criterion=criterion, structure=Weights(), allocation=Layerwise())
    context = PruningContext(generator=torch.Generator(), sparsity=0.5, data=AtHand())
    before = copy.deepcopy(model.model.state_dict())
    pruned = pruner.prune(model, pruner.left(model), 0.5, context)
    criterion.scores(trained, Weights(), PruningContext(generator=torch.Generator(), sparsity=0.5, data=AtHand()))
    after = trained.model.state_dict()
    for name, mask in model.masks.items():
        assert torch.equal(model.model.get_parameter(name), after[name] * mask)
        assert not torch.equal(after[name], before[name])
    for group in pruned:
        assert float(group.scores[group.keep].min()) >= float(group.scores[~group.keep].max())


def test_what_is_masked_already_stays_gone() -> None:
    model = language_model()
    pruner = Pruner(criterion=Movement(loss=CrossEntropy(), steps=3), structure=Weights(), allocation=Layerwise())
    dense = pruner.left(model)
    masks = []
    for sparsity in (0.3, 0.6):
        context = PruningContext(generator=torch.Generator(), sparsity=sparsity, data=AtHand())
        pruner.prune(model, dense, sparsity, context)
        masks.append(dict(model.masks))
    for name, mask in masks[1].items():
        assert not (mask & ~masks[0][name]).any()
        assert int((~mask).sum()) == removed(mask.numel(), 0.6)


def test_soft_scores_follow_adam_on_gradient_and_penalty() -> None:
    rate, penalty = 0.5, 30.0
    criterion = SoftMovement(
        loss=CrossEntropy(), steps=STEPS, score_learning_rate=rate, penalty=penalty, warmup=0.0, cooldown=0.0
    )
    structure = MlpNeurons()
    model, data, scores = run(criterion, structure)
    scored = [name for name in data.seen[0] if "mlp" in name]
    whole = {name: data.seen[0][name].double() for name in scored}
    expected = [torch.zeros(INTERMEDIATE, dtype=torch.float64) for _ in range(LAYERS)]
    first, second = ([torch.zeros_like(each) for each in expected] for _ in range(2))
    masked = 0
    for step in range(STEPS):
        strength = penalty * (1 - (1 - (step + 1) / STEPS) ** 3)
        moved = owned(structure, model, {n: data.gradients[step][n].double() * whole[n] for n in scored})
        hidden = {name: (data.seen[step][name] == 0) & (whole[name] != 0) for name in scored}
        for layer, score in enumerate(expected):
            gone = hidden[f"model.layers.{layer}.mlp.up_proj.weight"].all(dim=1)
            assert gone.tolist() == [1 / (1 + 2.718281828459045 ** -float(s)) <= 0.1 for s in score]
            masked += int(gone.sum())
            s = 1 / (1 + (-score).exp())
            g = torch.tensor(moved[layer], dtype=torch.float64) + strength * s * (1 - s) / INTERMEDIATE / LAYERS
            first[layer] = 0.9 * first[layer] + 0.1 * g
            second[layer] = 0.999 * second[layer] + 0.001 * g * g
            mean, square = first[layer] / (1 - 0.9 ** (step + 1)), second[layer] / (1 - 0.999 ** (step + 1))
            score -= rate * mean / (square.sqrt() + 1e-8)
        for name in scored:
            used = data.gradients[step][name].double().masked_fill(hidden[name], 0)
            whole[name] -= 1e-2 * used / (used.abs() + 1e-8)
    assert masked > 0, "the penalty masks units within these steps"
    for found, wanted in zip(scores, expected, strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-3, atol=1e-3)


def test_what_they_need_and_refuse() -> None:
    for criterion in (Movement(loss=CrossEntropy()), SoftMovement(loss=CrossEntropy())):
        assert criterion.needs == {"calibration", "labels", "training"}
    with pytest.raises(ConfigError, match="warmup=0.6: must be at least 0, and below 1 together with cooldown"):
        Movement(loss=CrossEntropy(), warmup=0.6, cooldown=0.4)
    with pytest.raises(ConfigError, match=r"threshold=0\.5: must be in \(0, 0\.5\)"):
        SoftMovement(loss=CrossEntropy(), threshold=0.5)
