"""SNIP, GraSP and SynFlow against their formulas, and the collapse that SynFlow avoids."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from architectures import ARCHITECTURES, INTERMEDIATE
from at_hand import AtHand, language_model, logits_loss

from regraft.config.ranges import ConfigError
from regraft.distillation.losses.cross_entropy import CrossEntropy
from regraft.interfaces import Criterion, LanguageModel, PruningContext, Structure
from regraft.pruning.criteria.grasp import Grasp
from regraft.pruning.criteria.snip import Snip
from regraft.pruning.criteria.synflow import Flow, SynFlow
from regraft.pruning.spread import parameters
from regraft.pruning.structures.mlp_neurons import MlpNeurons
from regraft.pruning.structures.weights import Weights

SMALL = {"hidden_size": 8, "intermediate_size": 6, "layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
SNIP, GRASP = Snip(loss=CrossEntropy()), Grasp(loss=CrossEntropy())


def scores(criterion: Criterion, model: LanguageModel, structure: Structure, sparsity: float = 0.5) -> list:
    context = PruningContext(generator=torch.Generator().manual_seed(0), sparsity=sparsity, data=AtHand())
    return criterion.scores(model, structure, context)


def literal(model: LanguageModel, per_weight: Callable[[torch.nn.Module], dict[str, torch.Tensor]]) -> tuple:
    """Sums of a number of each weight, in loops: one a weight for each matrix, one a neuron for each layer."""
    numbers = per_weight(copy.deepcopy(model.model).double())
    names = [name for name in numbers if name.endswith("_proj.weight")]
    weights = {name: numbers[name] for name in names}
    neurons = []
    for layer in range(len(model.model.model.layers)):  # type: ignore[union-attr, arg-type]
        mlp = {key: weights[f"model.layers.{layer}.mlp.{key}_proj.weight"] for key in ("gate", "up", "down")}
        neurons.append(
            [
                sum(float(each) for each in (*mlp["gate"][unit], *mlp["up"][unit], *mlp["down"][:, unit]))
                for unit in range(len(mlp["gate"]))
            ]
        )
    return weights, neurons


def compare(model: LanguageModel, criterion: Criterion, weights: dict, neurons: list, shape: Callable) -> None:
    """`shape` is what the criterion does to all sums of a structure at the end."""
    order = {id(parameter): name for name, parameter in model.model.named_parameters()}
    structure = Weights()
    names = [order[id(group.parts[0].parameter)] for group in structure.groups(model.model)]
    expected = shape([weights[name].flatten() for name in names])
    for found, wanted in zip(scores(criterion, model, structure), expected, strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=2e-3, atol=float(wanted.abs().max()) * 1e-4)
    expected = shape([torch.tensor(layer, dtype=torch.float64) for layer in neurons])
    for found, wanted in zip(scores(criterion, model, MlpNeurons()), expected, strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=2e-3, atol=float(wanted.abs().max()) * 1e-4)


def gradients(model: torch.nn.Module, temperature: float = 1.0) -> dict[str, torch.Tensor]:
    """Of the mean over all questions at once, in the model's own float64."""
    (batch,) = AtHand(batch_size=24).batches(CrossEntropy())
    named = dict(model.named_parameters())
    model.lm_head.weight.data /= temperature  # type: ignore[union-attr]
    found = torch.autograd.grad(logits_loss(model, batch), list(named.values()))
    model.lm_head.weight.data *= temperature  # type: ignore[union-attr]
    return dict(zip(named, found, strict=True))


def test_snip_is_the_share_of_the_sensitivity() -> None:
    model = language_model(**SMALL)

    def per_weight(double: torch.nn.Module) -> dict[str, torch.Tensor]:
        named = dict(double.named_parameters())
        return {name: gradient * named[name].detach() for name, gradient in gradients(double).items()}

    def shares(sums: list[torch.Tensor]) -> list[torch.Tensor]:
        total = sum(abs(float(each)) for group in sums for each in group)
        return [group.abs() / total for group in sums]

    compare(model, SNIP, *literal(model, per_weight), shares)
    assert sum(float(group.sum()) for group in scores(SNIP, model, Weights())) == pytest.approx(1, rel=1e-4)


def test_grasp_is_the_derivative_of_the_gradient_flow() -> None:
    """H g by a difference of gradients: (grad L(w + e g) - grad L(w - e g)) / 2 e, of the loss of logits / 200."""
    model = language_model(**SMALL)

    def per_weight(double: torch.nn.Module) -> dict[str, torch.Tensor]:
        flow = gradients(double, 200.0)
        scored = {name for name in flow if name.endswith("_proj.weight")}
        named = dict(double.named_parameters())
        step = 1e-4 / max(float(flow[name].abs().max()) for name in scored)
        moved = []
        for sign in (1, -1):
            for name in scored:
                named[name].data += sign * step * flow[name]
            moved.append(gradients(double, 200.0))
            for name in scored:
                named[name].data -= sign * step * flow[name]
        curved = {name: (moved[0][name] - moved[1][name]) / (2 * step) for name in scored}
        return {name: curved[name] * named[name].detach() for name in scored}

    weights, _ = literal(model, per_weight)
    named = {id(parameter): name for name, parameter in model.model.named_parameters()}
    found = scores(GRASP, model, Weights())
    for group, score in zip(Weights().groups(model.model), found, strict=True):
        wanted = weights[named[id(group.parts[0].parameter)]].flatten()
        torch.testing.assert_close(score.double(), wanted, rtol=1e-3, atol=float(wanted.abs().max()) * 1e-3)


def test_grasp_drops_first_what_raises_the_gradient_flow() -> None:
    """The sign: without the weights of lowest score the gradient is larger than without those of the highest."""
    model = language_model(**SMALL)
    structure = Weights()
    found = scores(GRASP, model, structure)

    def flow(descending: bool) -> float:
        other = copy.deepcopy(model)
        named = dict(other.model.named_parameters())
        keep = []
        for score in found:
            mask = torch.ones(len(score), dtype=torch.bool)
            mask[score.argsort(descending=descending)[: len(score) // 50 + 1]] = False
            keep.append(mask)
        structure.remove(other, keep)
        kept = gradients(other.model.double(), 200.0)
        return sum(float(kept[name].square().sum()) for name in named if name.endswith("_proj.weight"))

    assert flow(descending=False) > flow(descending=True)


def by_loops(model: torch.nn.Module, hidden: list[float], heads: int, key_value_heads: int) -> float:
    """R of a llama in plain floats."""

    def times(matrix: torch.Tensor, vector: list[float]) -> list[float]:
        return [sum(abs(float(w)) * x for w, x in zip(row, vector, strict=True)) for row in matrix.detach()]

    def normed(vector: list[float]) -> list[float]:
        size = (sum(x * x for x in vector) / len(vector)) ** 0.5
        return [x / size for x in vector]

    for layer in model.model.layers:  # type: ignore[union-attr]
        attention, mlp = layer.self_attn, layer.mlp
        value = times(attention.v_proj.weight, normed(hidden))
        size = len(value) // key_value_heads
        each = [value[head * size : (head + 1) * size] for head in range(key_value_heads)]
        heard = [x for head in range(heads) for x in each[head * key_value_heads // heads]]
        hidden = times(attention.o_proj.weight, heard)
        gate, up = times(mlp.gate_proj.weight, normed(hidden)), times(mlp.up_proj.weight, normed(hidden))
        units = [x * y for x, y in zip(gate, up, strict=True)]
        hidden = times(mlp.down_proj.weight, units)
    return sum(times(model.lm_head.weight, normed(hidden)))


def test_the_flow_is_that_of_the_chain_of_absolute_weights() -> None:
    model = language_model(**SMALL | {"num_attention_heads": 4, "num_key_value_heads": 2}).model
    table = model.model.embed_tokens.weight.detach().double().abs()  # type: ignore[union-attr]
    begin = [float(column.sum()) for column in table.T]
    total = Flow(model, parameters(Weights().groups(model))).total().detach()
    assert float(total) == pytest.approx(by_loops(model, begin, 4, 2), rel=1e-10)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_same_flows_through_every_matrix(architecture: str) -> None:
    """Conservation: the scores of each matrix sum to R; a fused one holds three."""
    model = language_model(architecture).model
    groups = Weights().groups(model)
    flow = Flow(model, parameters(groups))
    total, measured = float(flow.total().detach()), flow.measure()
    for group in groups:
        (part,) = group.parts
        holds = 3 if part.name == "fused" else 1
        assert float(measured[id(part.parameter)].sum()) == pytest.approx(holds * total, rel=1e-9), group.name
    assert total > 0
    # neurons: all that enters one leaves it
    for group in MlpNeurons().groups(model):
        each = [part.of(measured[id(part.parameter)]).sum(dim=1) for part in group.parts if part.attribute == "weight"]
        torch.testing.assert_close(each[0], each[-1], rtol=1e-9, atol=0)


def kept(model: LanguageModel, criterion: Criterion, sparsity: float) -> list[int]:
    """Weights that are left of each matrix when all compete."""
    found = scores(criterion, model, Weights(), sparsity)
    joined = torch.cat([score.double() for score in found])
    line = joined.sort().values[round(sparsity * len(joined))]
    return [int((score >= line).sum()) for score in found]


def test_synflow_keeps_a_layer_that_one_shot_snip_loses() -> None:
    model = language_model(layers=4)
    for layer, scale in enumerate((1.0, 1.0, 0.03, 1.0)):
        for parameter in model.model.model.layers[layer].parameters():  # type: ignore[union-attr]
            parameter.data *= scale
    sparsity = 0.98
    assert min(kept(model, SNIP, sparsity)) == 0
    assert min(kept(model, SynFlow(), sparsity)) > 0
    assert min(kept(model, SynFlow(rounds=1), sparsity)) == 0, "the rounds are what keeps it"


def test_synflow_leaves_the_model_alone_and_needs_no_data() -> None:
    model = language_model()
    before = copy.deepcopy(model.model.state_dict())
    context = PruningContext(generator=torch.Generator(), sparsity=0.9)
    found = SynFlow(rounds=5).scores(model, MlpNeurons(), context)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.model.state_dict().items())
    assert sorted(torch.cat(found).tolist()) == [number / (3 * INTERMEDIATE) for number in range(3 * INTERMEDIATE)]
    assert not SynFlow().needs


def test_what_they_need_and_refuse() -> None:
    assert SNIP.needs == GRASP.needs == {"calibration", "labels"}
    with pytest.raises(ConfigError, match="temperature=0"):
        Grasp(loss=CrossEntropy(), temperature=0)
    with pytest.raises(ConfigError, match="rounds=0"):
        SynFlow(rounds=0)
