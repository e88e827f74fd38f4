"""A trial measures the model that pruning would make, and leaves it as it was."""

from __future__ import annotations

import copy

import planted
import pytest
import questions
import torch
from architectures import ARCHITECTURES, INTERMEDIATE, VOCABULARY, tiny_model
from transformers import PreTrainedModel
from units import flags

from regraft.interfaces import (
    BEGINNING,
    Batch,
    LanguageModel,
    Loss,
    LossValue,
    ModelOutputs,
    Moment,
    Scored,
    Structure,
)
from regraft.pruning.structures.kv_groups import KvGroups
from regraft.pruning.structures.layers import Layers
from regraft.pruning.structures.mlp_neurons import MlpNeurons
from regraft.pruning.structures.weights import Weights
from regraft.pruning.trial import Trial, silenced


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    return model(input_ids=torch.arange(3, 51).remainder(VOCABULARY).view(2, 24), use_cache=False).logits


def hooks(model: torch.nn.Module) -> int:
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules())


def language_model(architecture: str) -> LanguageModel:
    return LanguageModel(model=tiny_model(architecture), tokenizer=None)  # type: ignore[arg-type]


CASES = [(one, each) for one in ARCHITECTURES for each in (MlpNeurons(), Weights(), KvGroups())]


# OLMo2 norms the queries of all heads together: without a head that norm is another
@pytest.mark.parametrize(("architecture", "structure"), [case for case in CASES if case != ("olmo2", KvGroups())])
def test_silenced_is_removed_and_comes_back(architecture: str, structure: Structure) -> None:
    model = language_model(architecture)
    before, state = logits(model.model), copy.deepcopy(model.model.state_dict())
    generator = torch.Generator().manual_seed(0)
    keep = [
        torch.rand(units, generator=generator).argsort() < max(1, 0.4 * units) for units in structure.units(model.model)
    ]
    with silenced(model, structure, keep):
        inside = logits(model.model)
    assert hooks(model.model) == 0
    assert all(torch.equal(state[name], each) for name, each in model.model.state_dict().items())
    assert torch.equal(logits(model.model), before)
    structure.remove(model, keep)
    torch.testing.assert_close(inside, logits(model.model), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(inside, before, atol=1e-2)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_silenced_layer_is_passed_over(architecture: str) -> None:
    model = language_model(architecture)
    with silenced(model, Layers(), [flags(3, [0, 2])]):
        inside = logits(model.model)
    assert hooks(model.model) == 0
    decoder = model.model.get_decoder()
    layers = decoder.h if architecture == "gpt2" else decoder.layers
    del layers[1]
    model.model.config.num_hidden_layers = 2
    torch.testing.assert_close(inside, logits(model.model), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("structure", [MlpNeurons(), Weights(), Layers()], ids=["neurons", "weights", "layers"])
def test_a_fault_inside_leaves_the_model_whole(structure: Structure) -> None:
    model = language_model("llama")
    weight = model.model.model.layers[0].mlp.up_proj.weight  # type: ignore[union-attr]
    weight.data[0, :2] = torch.tensor([-0.0, float("nan")])
    before = weight.detach().clone().view(torch.int32)
    keep = [flags(group.units, [0]) for group in structure.groups(model.model)]
    with pytest.raises(RuntimeError, match="stopped"), silenced(model, structure, keep):
        raise RuntimeError("stopped")
    assert hooks(model.model) == 0 and torch.equal(weight.detach().view(torch.int32), before)


def test_the_loss_is_that_of_the_pruned_model_and_is_measured_once() -> None:
    scored = planted.problem()
    trial = Trial(scored, planted.LOSS)
    losses = [10, 40, 0, 7]
    value = trial(losses)
    assert trial(tuple(losses)) == value and trial.evaluations == 1
    trial([10, 40, 0, 8])
    assert trial.evaluations == 2

    structure = MlpNeurons()
    keep = [
        structure.select(group, score, INTERMEDIATE - lost)
        for group, score, lost in zip(structure.groups(scored.model.model), scored.scores, losses, strict=True)
    ]
    structure.remove(scored.model, keep)
    calibration = scored.context.calibration
    with torch.no_grad():
        values = [calibration.value(scored.model, planted.LOSS, batch) for batch in calibration.batches(planted.LOSS)]
    assert value == pytest.approx(float(values[0].total) / values[0].count, rel=1e-4)


class Broken(Loss):
    """Not a number."""

    needs, reads, positions = frozenset(), "choices", "answer"  # type: ignore[assignment]

    def __call__(
        self, batch: Batch, student: ModelOutputs, teacher: ModelOutputs | None, moment: Moment = BEGINNING
    ) -> LossValue:
        return LossValue(total=torch.tensor(float("nan")), count=1)


def test_a_loss_that_is_no_number_is_the_worst() -> None:
    assert Trial(planted.problem(calibration=questions.Made()), Broken())([0, 0, 0, 1]) == float("inf")


def test_masked_weights_stay_masked_through_a_trial() -> None:
    model, structure = language_model("llama"), Weights()
    units = structure.units(model.model)
    structure.remove(model, [torch.arange(each) >= 100 for each in units])
    scores = [score.flatten() for group in structure.groups(model.model) for score in group.weights().values()]
    scores = [
        score.abs().masked_fill(~there, float("-inf"))
        for score, there in zip(scores, structure.there(model), strict=True)
    ]
    dense = copy.deepcopy(model)
    context = planted.problem(calibration=questions.Made(dense=dense)).context
    trial = Trial(
        Scored(model=model, structure=structure, scores=scores, dense_units=units, context=context), planted.LOSS
    )
    assert trial([100] * len(units)) == pytest.approx(0.0, abs=1e-6)
    assert trial([200] * len(units)) > 1e-6
