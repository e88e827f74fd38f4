"""Sparsity within matrices: zeros exactly where the scores are lowest, in every architecture."""

from __future__ import annotations

import copy
import functools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURES, LAYERS, tiny_model
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import nn

from regraft.__main__ import conf
from regraft.config.ranges import ConfigError
from regraft.config.schema import RunConfig, load
from regraft.evaluation import size
from regraft.interfaces import Criterion, LanguageModel, PruningContext
from regraft.models import export
from regraft.pruning.allocation.layerwise import Layerwise
from regraft.pruning.budgets.parameters import Parameters
from regraft.pruning.criteria.l1 import L1
from regraft.pruning.criteria.l2 import L2
from regraft.pruning.criteria.random import Random
from regraft.pruning.criteria.sparsegpt import SparseGPT
from regraft.pruning.criteria.wanda import Wanda
from regraft.pruning.pruner import Pruner
from regraft.pruning.structures.masked import Masked, without_lowest
from regraft.pruning.structures.n_m import NM
from regraft.pruning.structures.weights import Weights

dense_model = functools.cache(tiny_model)
"""A model that no test changes."""
STRUCTURES: dict[str, Masked] = {
    "matrix": Weights(),
    "output": Weights(compare="output"),
    "2:4": NM(),
    "4:8": NM(n=4, m=8),
    "1:4": NM(n=1, m=4),
}


def of(criterion: Criterion, structure: Masked) -> Pruner:
    return Pruner(criterion=criterion, structure=structure, allocation=Layerwise())


def pruned(architecture: str, pruner: Pruner, *sparsities: float, seed: int = 0) -> LanguageModel:
    model = LanguageModel(model=copy.deepcopy(dense_model(architecture)), tokenizer=None)  # type: ignore[arg-type]
    dense = pruner.left(model)
    for sparsity in sparsities:
        pruner.prune(model, dense, sparsity, PruningContext(generator=torch.Generator().manual_seed(seed)))
    return model


def matrices(model: nn.Module, architecture: str) -> dict[str, torch.Tensor]:
    """Name of the parameter -> (outputs, inputs) of every linear map of the decoder layers, by the library's names."""
    inside = "transformer.h." if architecture == "gpt2" else "model.layers."
    found = {
        name: tensor for name, tensor in model.state_dict().items() if name.startswith(inside) and tensor.ndim == 2
    }
    assert len(found) == LAYERS * (4 if architecture == "gpt2" else 7)
    return {name: tensor.T if architecture == "gpt2" else tensor for name, tensor in found.items()}


def zeros_by_hand(weight: torch.Tensor, way: str, sparsity: float) -> list[list[bool]]:
    """Which weights go: plain Python, one group of rivals after the other."""
    rows = weight.abs().tolist()
    outputs, inputs = len(rows), len(rows[0])
    if way == "matrix":
        rivals = [[(i, j) for i in range(outputs) for j in range(inputs)]]
    else:
        width = inputs if way == "output" else int(way.split(":")[1])
        rivals = [[(i, j) for j in range(at, at + width)] for i in range(outputs) for at in range(0, inputs, width)]
    gone = [[False] * inputs for _ in range(outputs)]
    for group in rivals:
        for i, j in sorted(group, key=lambda at: rows[at[0]][at[1]])[: round(sparsity * len(group))]:
            gone[i][j] = True
    return gone


@pytest.mark.parametrize("way", STRUCTURES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_zeros_are_where_the_scores_are_lowest(architecture: str, way: str) -> None:
    sparsity = 0.75 if way == "1:4" else 0.5
    model = pruned(architecture, of(L2(), STRUCTURES[way]), sparsity)
    before = dense_model(architecture).state_dict()
    left, masks = matrices(model.model, architecture), model.masks
    assert set(masks) == set(left)
    for name, weight in matrices(dense_model(architecture), architecture).items():
        gone = torch.tensor(zeros_by_hand(weight, way, sparsity))
        assert torch.equal(left[name], weight.masked_fill(gone, 0)), name
        assert torch.equal(masks[name].T if architecture == "gpt2" else masks[name], ~gone), name
        assert int(gone.sum()) == sparsity * weight.numel()
    for name, tensor in model.model.state_dict().items():
        if name not in masks:
            assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_masked_weights_are_no_parameters(architecture: str) -> None:
    model = pruned(architecture, of(L1(), Weights()), 0.25)
    dense = size.measure(dense_model(architecture), 16)
    found = size.measure(model.model, 16, model.masks)
    weights = sum(weight.numel() for weight in matrices(model.model, architecture).values())
    assert dense.parameters - found.parameters == weights // 4
    assert sum(STRUCTURES["matrix"].left(model)) == weights - weights // 4


@given(
    scores=st.lists(st.sampled_from([float("-inf"), -1.0, 0.0, 0.0, 0.25, 0.5, 3.0]), min_size=12, max_size=12),
    rows=st.sampled_from([1, 3, 12]),
    data=st.data(),
)
def test_of_equal_scores_the_lower_number_goes_first(scores: list[float], rows: int, data: st.DataObject) -> None:
    given_ = torch.tensor(scores).view(rows, -1)
    lost = data.draw(st.integers(0, given_.shape[1]))
    keep = without_lowest(given_, lost)
    for row, kept in zip(given_.tolist(), keep.tolist(), strict=True):
        gone = sorted(range(len(row)), key=lambda at: (row[at], at))[:lost]
        assert [at for at, stays in enumerate(kept) if not stays] == sorted(gone)


def test_what_cannot_be_shared_out_evenly_the_first_outputs_lose() -> None:
    keep = Weights(compare="output").choose(torch.arange(20.0).view(4, 5), 20 - 10)
    assert keep.sum(dim=1).tolist() == [2, 2, 3, 3]
    assert keep.flatten().nonzero().flatten().tolist() == [3, 4, 8, 9, 12, 13, 14, 17, 18, 19]


@pytest.mark.parametrize("criterion", [L1(), Random()], ids=["magnitude", "random"])
@pytest.mark.parametrize("way", ["matrix", "output"])
def test_steps_take_what_one_shot_takes(way: str, criterion: Criterion) -> None:
    pruner = of(criterion, STRUCTURES[way])
    steps, first, at_once = (
        pruned("olmo2", pruner, *sparsities, seed=3) for sparsities in ((0.2, 0.45, 0.7), (0.2,), (0.7,))
    )
    for name, mask in steps.masks.items():
        assert torch.equal(mask, at_once.masks[name])
        assert not (mask & ~first.masks[name]).any()


def test_what_is_gone_stays_gone_whatever_it_scores() -> None:
    model = pruned("llama", of(L1(), Weights()), 0.5)
    before = {name: mask.clone() for name, mask in model.masks.items()}
    parameters = dict(model.model.named_parameters())
    for name, mask in before.items():
        parameters[name].data[mask] *= -1e-6  # what is left is now smaller than noise
    pruner = of(Random(), Weights())
    dense = [mask.numel() for mask in before.values()]
    pruner.prune(model, {"weights": dense}, 0.75, PruningContext(generator=torch.Generator().manual_seed(0)))
    for name, mask in model.masks.items():
        assert not (mask & ~before[name]).any()
        assert int(mask.sum()) == mask.numel() // 4
        assert torch.equal(parameters[name] != 0, mask)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_share_of_the_parameters_is_met_in_steps(architecture: str) -> None:
    pruner = replace(of(L1(), Weights()), budget=Parameters())
    dense = LanguageModel(model=dense_model(architecture), tokenizer=None)  # type: ignore[arg-type]
    model = LanguageModel(model=copy.deepcopy(dense.model), tokenizer=None)  # type: ignore[arg-type]
    whole = size.measure(dense.model, 16).parameters
    for share in (0.2, 0.4):
        context = PruningContext(generator=torch.Generator(), dense=lambda: dense, length=lambda: 16)
        pruner.prune(model, pruner.left(dense), share, context)
        assert 1 - size.measure(model.model, 16, model.masks).parameters / whole == pytest.approx(share, abs=2e-4)


def test_named_layers_alone_are_pruned() -> None:
    model = pruned("qwen3", of(L1(), Weights(layers=(2, 0))), 0.5)
    assert {name.split(".")[2] for name in model.masks} == {"0", "2"} and len(model.masks) == 14
    with pytest.raises(ConfigError, match=r"layers=\[3\]: must name layers of the model, 0 to 2"):
        Weights(layers=(3,)).groups(dense_model("qwen3"))
    for layers in ((), (1, 1), (-1,)):
        with pytest.raises(ConfigError, match="layers"):
            Weights(layers=layers)


def test_a_pattern_that_does_not_divide_the_width_is_refused() -> None:
    model = tiny_model("llama", intermediate_size=46)
    with pytest.raises(ConfigError, match=r"m=4: must divide .* but down of layer 0 has 46"):
        NM().groups(model)
    for n, m in ((0, 4), (4, 4), (5, 4)):
        with pytest.raises(ConfigError):
            NM(n=n, m=m)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_masks_are_saved_and_read_again(architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoTokenizer:
        def save_pretrained(self, folder: Path) -> None: ...

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_, **__: None)
    model = pruned(architecture, of(L1(), NM()), 0.5)
    model.tokenizer = NoTokenizer()  # type: ignore[assignment]
    export.save(model, tmp_path / "checkpoint")
    again = export.load(tmp_path / "checkpoint")
    assert set(again.masks) == set(model.masks)
    parameters = dict(again.model.named_parameters())
    for name, mask in model.masks.items():
        assert torch.equal(again.masks[name], mask)
        assert torch.equal(parameters[name] != 0, mask)
    assert NM().left(again) == NM().left(model)


def composed(*overrides: str) -> RunConfig:
    with initialize_config_dir(str(conf()), version_base="1.3"):
        config = compose("config", list(overrides))
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    return load({str(key): value for key, value in plain.items()})


def test_the_command_line_builds_them() -> None:
    assert composed("pruner=weights").pruner == of(L1(), Weights())
    assert composed("pruner=weights", "pruner/structure=n_m", "pruner.structure.m=8", "sparsity=0.75").pruner == of(
        L1(), NM(n=2, m=8)
    )
    assert composed("pruner=wanda").pruner == of(Wanda(), Weights(compare="output"))
    assert composed("pruner=sparsegpt").pruner == of(SparseGPT(), Weights())
    assert composed("pruner/structure=n_m", "pruner.structure.n=1", "pruner.structure.m=3", "sparsity=0.6667")
    assert composed("pruner/structure=n_m", "sparsity=0", "schedule=iterative")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["pruner/structure=n_m", "sparsity=0.4"], r"sparsity=0.4: must be 0 or 0.5 .*Choose sparsity=0.5"),
        (
            ["pruner/structure=n_m", "sparsity=0.5", "schedule=iterative"],
            r"sparsity=0.5, in steps of 0.125, .* schedule=one_shot",
        ),
        (["pruner/criterion=sparsegpt"], "SparseGPT knows weights, and the units of mlp_neurons are neurons"),
        (["pruner=sparsegpt", "pruner.shuffled=true"], "SparseGPT, which chooses weights while"),
        (["pruner=weights", "pruner/structure=n_m", "schedule=rigl"], "of n_m its pattern would be lost"),
        (["pruner/structure=n_m", "pruner/allocation=per_layer"], "a pattern that fixes the share"),
        (
            ["pruner=weights", "pruner/criterion=sparsegpt", "pruner/allocation=global"],
            r"GlobalThreshold compares the scores .* SparseGPT .*sequential=false",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        composed(*overrides)


@pytest.mark.gpu
@pytest.mark.parametrize("way", STRUCTURES)
def test_a_gpu_chooses_what_the_cpu_chooses(way: str) -> None:
    structure = STRUCTURES[way]
    scores = torch.randint(0, 50, (24, 64), generator=torch.Generator().manual_seed(0)).float()
    left = scores.numel() // (4 if way == "1:4" else 2)
    assert torch.equal(structure.choose(scores.cuda(), left).cpu(), structure.choose(scores, left))
