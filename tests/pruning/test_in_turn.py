"""One decoder layer after the other: each sees what the layers before it, pruned already, make of the questions."""

from __future__ import annotations

import pytest
import questions
import torch
from architectures import ARCHITECTURES, LAYERS, tiny_model
from torch import nn

from regraft.interfaces import Group, LanguageModel
from regraft.pruning.activations import input_statistics
from regraft.pruning.in_turn import in_turn
from regraft.pruning.structures.weights import Weights


def language_model(architecture: str) -> LanguageModel:
    return LanguageModel(model=tiny_model(architecture), tokenizer=None)  # type: ignore[arg-type]


def modules(groups: list[Group]) -> list[nn.Module]:
    return [group.parts[0].module for group in groups]


def norms(model: LanguageModel, groups: list[Group]) -> list[torch.Tensor]:
    return [each.norm for each in input_statistics(model, questions.Made(batch_size=2), modules(groups))]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_unpruned_layer_sees_what_it_sees_in_the_model(architecture: str) -> None:
    model = language_model(architecture)
    groups = Weights().groups(model.model)
    whole = norms(model, groups)
    seen = []
    for layer, calibration in in_turn(model, questions.Made(batch_size=2)):
        of_layer = [group for group in groups if group.layer == layer]
        seen += [each.norm for each in input_statistics(model, calibration, modules(of_layer))]
    assert len(seen) == len(whole) == LAYERS * (4 if architecture == "gpt2" else 7)
    for group, one, other in zip(groups, seen, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6, msg=lambda text, of=group.name: f"{of}: {text}")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_layer_sees_the_pruned_layers_before_it(architecture: str) -> None:
    model, plain = language_model(architecture), language_model(architecture)
    groups, others = Weights().groups(model.model), Weights().groups(plain.model)
    dense = norms(plain, others)
    for layer, calibration in in_turn(model, questions.Made(batch_size=2)):
        numbers = [number for number, group in enumerate(groups) if group.layer == layer]
        seen = input_statistics(model, calibration, modules([groups[number] for number in numbers]))
        expected = norms(plain, [others[number] for number in numbers])
        for number, one, other in zip(numbers, seen, expected, strict=True):
            torch.testing.assert_close(one.norm, other, rtol=1e-6, atol=1e-6)
            assert torch.allclose(other, dense[number]) == (layer == 0)
        for module in modules([groups[number] for number in numbers]) + modules([others[n] for n in numbers]):
            module.weight.data[::2] = 0  # type: ignore[index,union-attr]


def test_each_layer_runs_twice_and_nothing_is_left_behind() -> None:
    model = language_model("gemma3")
    layers = model.model.model.layers  # type: ignore[union-attr]
    runs = [0] * LAYERS
    for number, layer in enumerate(layers):
        layer.mlp.register_forward_pre_hook(lambda *_, of=number: runs.__setitem__(of, runs[of] + 1))
    groups = Weights().groups(model.model)
    for layer, calibration in in_turn(model, questions.Made(batch_size=2)):
        input_statistics(model, calibration, modules([group for group in groups if group.layer == layer]))
    batches = len(list(questions.Made(batch_size=2).batches()))
    assert runs == [2 * batches, 2 * batches, batches]
    for layer in layers:
        assert "forward" not in vars(layer) and not layer._forward_hooks and not layer._forward_pre_hooks


def test_the_model_is_whole_again_after_an_error() -> None:
    model = language_model("llama")
    walk = in_turn(model, questions.Made())
    next(walk)
    _, calibration = next(walk)
    module = Weights().groups(model.model)[7].parts[0].module
    handle = module.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        input_statistics(model, calibration, [module])
    handle.remove()
    assert all("forward" not in vars(layer) for layer in model.model.model.layers)  # type: ignore[union-attr]
    for batch in questions.Made().batches():
        assert questions.Made().forward(model, batch).logits.isfinite().all()
