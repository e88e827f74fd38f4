"""Statistics of what linear maps are fed, against sums over one token at a time in float64."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import questions
import torch
from architectures import ARCHITECTURES, tiny_model

from regraft.interfaces import LanguageModel
from regraft.models.architecture import attention_blocks, mlp_blocks
from regraft.models.forward import forward
from regraft.pruning.activations import Statistics, input_statistics, visit_inputs


def language_model(architecture: str = "llama", **overrides: object) -> LanguageModel:
    return LanguageModel(model=tiny_model(architecture, **overrides), tokenizer=None)  # type: ignore[arg-type]


def fed(model: LanguageModel, calibration: questions.Made, module: torch.nn.Module) -> list[list[float]]:
    """What a module is fed, a list of numbers for each token: each question goes through the model alone, unpadded."""
    rows: list[list[float]] = []
    handle = module.register_forward_pre_hook(lambda _, inputs: rows.extend(inputs[0].flatten(0, -2).tolist()))
    with torch.no_grad():
        for question in calibration.questions:
            (batch,) = questions.Made([question], 1).batches()
            forward(model.model, batch)
    handle.remove()
    return rows


def by_hand(rows: list[list[float]]) -> dict[str, list[float]]:
    """Plain Python floats, one channel at a time."""
    channels = list(zip(*rows, strict=True))
    return {
        "mean": [math.fsum(channel) / len(channel) for channel in channels],
        "squares": [math.fsum(x * x for x in channel) for channel in channels],
        "norm": [math.sqrt(math.fsum(x * x for x in channel)) for channel in channels],
        "absolute": [math.fsum(map(abs, channel)) for channel in channels],
        "largest": [max(map(abs, channel)) for channel in channels],
        "variance": [
            math.fsum((x - math.fsum(channel) / len(channel)) ** 2 for x in channel) / (len(channel) - 1)
            for channel in channels
        ],
    }


def same(statistics: Statistics, rows: list[list[float]], tolerance: float) -> None:
    assert statistics.count == len(rows)
    for name, expected in by_hand(rows).items():
        found = getattr(statistics, name)
        assert found.dtype == torch.float64
        wanted = torch.tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(
            found, wanted, rtol=tolerance, atol=tolerance, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_statistics_are_those_of_the_questions_without_padding(architecture: str) -> None:
    model, calibration = language_model(architecture), questions.Made(batch_size=4)
    mlp, attention = mlp_blocks(model.model)[1], attention_blocks(model.model)[2]
    modules = [mlp.down.module, attention.output.module, mlp.up.module, model.model.get_output_embeddings()]
    for module, statistics in zip(modules, input_statistics(model, calibration, modules), strict=True):
        same(statistics, fed(model, calibration, module), 2e-5)


def test_in_float64_they_are_exact_and_padding_moves_nothing() -> None:
    model = language_model()
    model.model.double()
    module = mlp_blocks(model.model)[0].down.module
    calibration = questions.Made()
    (one,) = input_statistics(model, calibration, [module])
    same(one, fed(model, calibration, module), 1e-12)
    longest = max(len(question.context) for question in calibration.questions)
    assert any(len(question.context) < longest for question in calibration.questions), "there is padding"
    (other,) = input_statistics(model, questions.Made(batch_size=6, pad=7), [module])
    torch.testing.assert_close(other.norm, one.norm, rtol=1e-12, atol=0)
    torch.testing.assert_close(other.variance, one.variance, rtol=1e-12, atol=0)


def test_the_variance_is_right_where_the_mean_is_large() -> None:
    model = language_model("gpt2")
    block = mlp_blocks(model.model)[0]
    with torch.no_grad():
        block.up.module.bias.add_(1000)  # type: ignore[operator,union-attr]
    calibration = questions.Made(batch_size=1)
    (statistics,) = input_statistics(model, calibration, [block.down.module])
    expected = torch.tensor(by_hand(fed(model, calibration, block.down.module))["variance"], dtype=torch.float64)
    assert float(statistics.mean.min()) > 990
    torch.testing.assert_close(statistics.variance, expected, rtol=1e-3, atol=0)


def test_maps_that_are_fed_one_tensor_share_their_statistics() -> None:
    model = language_model()
    attention, mlp = attention_blocks(model.model)[0], mlp_blocks(model.model)[0]
    assert attention.query and attention.key and attention.value and mlp.gate
    modules = [each.module for each in (attention.query, mlp.gate, attention.key, mlp.up, attention.value)]
    query, gate, key, up, value = input_statistics(model, questions.Made(), modules)
    assert query is key is value and gate is up and gate is not query


def test_each_batch_is_shown_once_and_nothing_is_left_behind() -> None:
    model = language_model()
    before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    module = mlp_blocks(model.model)[0].down.module
    shown: list[torch.Size] = []
    visit_inputs(model, questions.Made(batch_size=2), [module], lambda _, rows: shown.append(rows.shape))
    counts = [
        len(question.context) + sum(len(choice) - 1 for choice in question.choices) for question in questions.made()
    ]
    assert shown == [torch.Size([sum(counts[at : at + 2]), 48]) for at in (0, 2, 4)]
    after = model.model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not module._forward_pre_hooks and all(one.grad is None for one in model.model.parameters())
    with pytest.raises(RuntimeError, match="stop"):
        visit_inputs(model, questions.Made(), [module], _stop)
    assert not module._forward_pre_hooks


def _stop(number: int, rows: torch.Tensor) -> None:
    raise RuntimeError("stop")


def test_answers_move_nothing() -> None:
    model = language_model()
    module = mlp_blocks(model.model)[0].down.module
    turned = [replace(one, answer=(one.answer or 0) + 1 if one.answer != 2 else 0) for one in questions.made()]
    (one,) = input_statistics(model, questions.Made(), [module])
    (other,) = input_statistics(model, questions.Made(turned), [module])
    assert torch.equal(one.deviations, other.deviations) and torch.equal(one.mean, other.mean)
