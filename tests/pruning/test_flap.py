"""FLAP's bias: what goes is missed less, and no checkpoint loses it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import questions
import torch
from architectures import ARCHITECTURES, INTERMEDIATE, LAYERS, tiny_model
from transformers import PreTrainedModel
from units import flags

from regraft.interfaces import LanguageModel, PruningContext
from regraft.models import export
from regraft.models.architecture import mlp_blocks
from regraft.models.surgery import give_biases
from regraft.pruning.activations import input_statistics
from regraft.pruning.allocation.layerwise import Layerwise
from regraft.pruning.criteria.flap import FLAP
from regraft.pruning.criteria.wanda import Wanda
from regraft.pruning.pruner import Pruner
from regraft.pruning.structures.mlp_neurons import MlpNeurons

TOKENS = torch.arange(3, 51).remainder(97).view(2, 24)


class NoTokens:
    """A tokenizer that leaves no file."""

    def save_pretrained(self, folder: Path) -> None:
        pass


def context() -> PruningContext:
    return PruningContext(generator=torch.Generator(), data=questions.Made(batch_size=4))


def language_model(architecture: str, **overrides: object) -> LanguageModel:
    return LanguageModel(model=tiny_model(architecture, **overrides), tokenizer=NoTokens())  # type: ignore[arg-type]


def pruned(architecture: str, criterion: FLAP | Wanda, *sparsities: float) -> LanguageModel:
    model = language_model(architecture)
    for sparsity in sparsities:
        pruner = Pruner(criterion=criterion, structure=MlpNeurons(), allocation=Layerwise())
        pruner.prune(model, {"mlp_neurons": [INTERMEDIATE] * LAYERS}, sparsity, context())
    return model


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    return model(input_ids=TOKENS).logits


def mean_outputs(model: LanguageModel, layer: int) -> torch.Tensor:
    """(hidden,) what the feed-forward block says on average over the calibration questions: W mean(x) + b."""
    module = mlp_blocks(model.model)[layer].down
    (statistics,) = input_statistics(model, questions.Made(batch_size=4), [module.module])
    bias = 0.0 if module.module.bias is None else module.module.bias.detach()  # type: ignore[union-attr]
    return module.weight.detach().double() @ statistics.mean + bias


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_block_says_on_average_what_it_said(architecture: str) -> None:
    model = language_model(architecture)
    before = mean_outputs(model, 0)
    keep = [flags(INTERMEDIATE, range(20)), *(flags(INTERMEDIATE, range(INTERMEDIATE)) for _ in range(LAYERS - 1))]
    plain = copy.deepcopy(model)
    assert FLAP().adjust(model, MlpNeurons(), keep, context()) is keep
    for one in (model, plain):
        MlpNeurons().remove(one, keep)
    torch.testing.assert_close(mean_outputs(model, 0), before, rtol=1e-4, atol=1e-5)
    assert float((mean_outputs(plain, 0) - before).abs().max()) > 0.01


def test_nothing_is_changed_where_nothing_goes_or_nothing_is_wanted() -> None:
    model = language_model("olmo2")
    everything = [flags(INTERMEDIATE, range(INTERMEDIATE)) for _ in range(LAYERS)]
    FLAP().adjust(model, MlpNeurons(), everything, context())
    some = [flags(INTERMEDIATE, range(9)) for _ in range(LAYERS)]
    FLAP(compensate=False).adjust(model, MlpNeurons(), some, context())
    assert all(name.endswith("weight") for name, _ in model.model.named_parameters())


def test_what_is_always_the_same_goes_first_and_is_not_missed() -> None:
    """A neuron that reads nothing and says something large: its weights and activations are, its variance is zero."""
    model = language_model("gpt2")
    block = mlp_blocks(model.model)[1]
    with torch.no_grad():
        block.up.weight[7] = 0
        block.up.module.bias[7] = 5.0  # type: ignore[index,union-attr]
    (_, fluctuation, _), (_, size, _) = (
        criterion.scores(model, MlpNeurons(), context()) for criterion in (FLAP(), Wanda())
    )
    assert int(fluctuation.argmin()) == 7 and int(size.argmax()) == 7
    before = logits(model.model)
    keep = [flags(INTERMEDIATE, range(INTERMEDIATE)) for _ in range(LAYERS)]
    keep[1][7] = False
    FLAP().adjust(model, MlpNeurons(), keep, context())
    MlpNeurons().remove(model, keep)
    torch.testing.assert_close(logits(model.model), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_checkpoint_loses_the_bias(architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read again with it, or it is not written."""
    model = pruned(architecture, FLAP(), 0.25, 0.5)
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_, **__: NoTokens())
    try:
        export.save(model, tmp_path / "checkpoint")
    except ValueError as error:
        assert architecture not in ("llama", "gpt2") and "down_proj.bias" in str(error)
        assert not list(tmp_path.iterdir())
        return
    loaded = export.load(tmp_path / "checkpoint")
    torch.testing.assert_close(logits(loaded.model), logits(model.model), rtol=0, atol=1e-6)
    assert MlpNeurons().units(loaded.model) == [INTERMEDIATE // 2] * LAYERS


def test_llama_keeps_its_bias_where_its_config_says_so() -> None:
    model = pruned("llama", FLAP(), 0.5).model
    assert model.config.mlp_bias is True and model.config.attention_bias is False
    for block in mlp_blocks(model):
        assert block.gate is not None
        for projection in (block.gate, block.up):
            assert projection.module.bias is not None
            assert len(projection.module.bias) == INTERMEDIATE // 2 and not projection.module.bias.any()  # type: ignore[arg-type,operator]
        assert block.down.module.bias.all()  # type: ignore[operator,union-attr]


def test_biases_that_are_there_stay() -> None:
    model = tiny_model("llama", mlp_bias=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    give_biases(model, [block.down.module for block in mlp_blocks(model)])
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert len(before) == len(model.state_dict())


@pytest.mark.parametrize("architecture", ["llama", "olmo2"])
def test_the_pruned_model_trains_and_is_pruned_again(architecture: str) -> None:
    model = pruned(architecture, FLAP(), 0.25, 0.5)
    model.model(input_ids=TOKENS).logits.logsumexp(-1).sum().backward()
    for name, parameter in model.model.named_parameters():
        assert parameter.grad is not None and parameter.grad.shape == parameter.shape, name
