"""SparseGPT against its formula and what it promises; equal to llm-compressor's in test_golden_masks.py."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
import questions
import reference_obs
import torch
from architectures import ARCHITECTURES, tiny_model

from regraft.config.ranges import ConfigError
from regraft.interfaces import Group, LanguageModel, PruningContext
from regraft.models.forward import forward
from regraft.pruning.activations import visit_inputs
from regraft.pruning.allocation.layerwise import Layerwise
from regraft.pruning.criteria.sparsegpt import SparseGPT
from regraft.pruning.pruner import Pruner
from regraft.pruning.structures.masked import Masked
from regraft.pruning.structures.n_m import NM
from regraft.pruning.structures.weights import Weights

dense_model = functools.cache(tiny_model)
"""A model that no test changes."""


def copied(architecture: str) -> LanguageModel:
    return LanguageModel(model=copy.deepcopy(dense_model(architecture)), tokenizer=None)  # type: ignore[arg-type]


def context() -> PruningContext:
    return PruningContext(generator=torch.Generator(), data=questions.Made(questions.made(24)))


def prune(model: LanguageModel, criterion: SparseGPT, structure: Masked, *sparsities: float) -> None:
    pruner = Pruner(criterion=criterion, structure=structure, allocation=Layerwise())
    dense = {structure.name: structure.units(model.model)}
    for sparsity in sparsities:
        pruner.prune(model, dense, sparsity, context())


def matrix(group: Group) -> torch.Tensor:
    """(outputs, inputs) float64."""
    (part,) = group.parts
    return part.parameter.detach().movedim(part.dimension, 0).double().clone()


def inputs(model: LanguageModel, groups: list[Group]) -> list[np.ndarray]:
    """(tokens, inputs) of each group's map: each question alone, so that there is no padding."""
    rows: list[list[torch.Tensor]] = [[] for _ in groups]
    handles = [
        group.parts[0].module.register_forward_pre_hook(lambda _, fed, to=to: to.append(fed[0].flatten(0, 1).double()))
        for group, to in zip(groups, rows, strict=True)
    ]
    with torch.no_grad():
        for question in questions.made(24):
            (batch,) = questions.Made([question], 1).batches()
            forward(model.model, batch)
    for handle in handles:
        handle.remove()
    return [torch.cat(each).numpy() for each in rows]


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_scores_are_the_formula(architecture: str) -> None:
    model, structure = copied(architecture), Weights(layers=(1,))
    scores = SparseGPT(dampening=0.05).scores(model, structure, context())
    groups = structure.groups(model.model)
    for group, found, fed in list(zip(groups, scores, inputs(model, groups), strict=True))[-2:]:
        h = reference_obs.hessian(fed, 24)
        h += 0.05 * np.mean(np.diag(h)) * np.eye(len(h))
        weight = matrix(group).numpy()
        expected = np.array(
            [[row[j] ** 2 / np.linalg.inv(h[j:, j:])[0, 0] for j in range(len(h))] for row in weight[:5]]
        )
        np.testing.assert_allclose(found.view(weight.shape)[:5].numpy(), expected, rtol=1e-3, err_msg=group.name)


@pytest.mark.parametrize("structure", [Weights(), NM()], ids=["weights", "2:4"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_stays_makes_up_for_what_goes(architecture: str, structure: Masked) -> None:
    """In each matrix the error on its inputs is below that of the same mask without an update."""
    model = copied(architecture)
    groups = structure.groups(model.model)
    before = [matrix(group) for group in groups]
    fed = inputs(model, groups)
    prune(model, SparseGPT(sequential=False), structure, 0.5)
    errors = []
    for group, weight, x in zip(groups, before, fed, strict=True):
        left = matrix(group)
        mask = left != 0
        assert int(mask.sum()) == weight.numel() // 2, group.name
        if isinstance(structure, NM):
            assert (mask.reshape(-1, 4).sum(dim=1) == 2).all(), group.name
        tokens = torch.from_numpy(x)
        updated = float(((left - weight) @ tokens.T).norm())
        plain = float(((weight * mask - weight) @ tokens.T).norm())
        assert updated < plain, group.name
        errors.append((updated, plain))
    together, apart = map(sum, zip(*errors, strict=True))
    assert together < 0.9 * apart


def test_layers_in_turn_make_up_for_the_layers_before() -> None:
    at_once, in_turn = copied("llama"), copied("llama")
    prune(at_once, SparseGPT(sequential=False), Weights(), 0.5)
    prune(in_turn, SparseGPT(), Weights(), 0.5)
    first = [name for name in at_once.masks if ".layers.0." in name]
    one, other = (dict(model.model.named_parameters()) for model in (at_once, in_turn))
    assert len(first) == 7
    assert all(torch.allclose(one[name], other[name], rtol=1e-4, atol=1e-5) for name in first)
    assert not any(torch.equal(at_once.masks[name], in_turn.masks[name]) for name in at_once.masks if name not in first)


@pytest.mark.parametrize("block_size", [5, 16, 128])
def test_what_was_gone_stays_gone_and_the_count_is_met(block_size: int) -> None:
    model = copied("olmo2")
    criterion = SparseGPT(block_size=block_size)
    prune(model, criterion, Weights(), 0.3)
    before = dict(model.masks)
    prune(model, criterion, Weights(), 0.65)
    parameters = dict(model.model.named_parameters())
    for name, mask in model.masks.items():
        assert not (mask & ~before[name]).any()
        assert torch.equal(parameters[name] != 0, mask)
        assert int((~mask).sum()) == round(0.65 * mask.numel()), name


@pytest.mark.parametrize("block_size", [3, 5, 128])
def test_outputs_that_compete_alone_lose_as_many_to_within_one(block_size: int) -> None:
    model = copied("olmo2")
    before: dict[str, torch.Tensor] = {}
    for sparsity in (0.3, 0.65):
        prune(model, SparseGPT(block_size=block_size), Weights(compare="output"), sparsity)
        for name, mask in model.masks.items():
            lost = (~mask).sum(dim=1)
            assert int(lost.sum()) == round(sparsity * mask.numel()) and int(lost.max() - lost.min()) <= 1, name
            assert not (mask & ~before.get(name, mask)).any()
        before = dict(model.masks)


def test_inputs_that_are_always_zero_go_first_and_move_nothing() -> None:
    model = copied("llama")
    norm = model.model.model.layers[0].input_layernorm  # type: ignore[union-attr]
    norm.weight.data[:6] = 0
    query = model.model.model.layers[0].self_attn.q_proj  # type: ignore[union-attr]
    before = query.weight.detach().clone()
    prune(model, SparseGPT(), Weights(layers=(0,)), 0.1)
    gone = ~model.masks["model.layers.0.self_attn.q_proj.weight"]
    assert int(gone.sum()) == 102 and not gone[:, 6:].any()
    assert torch.equal(query.weight[:, 6:], before[:, 6:])
    assert torch.equal(query.weight[:, :6], before[:, :6].masked_fill(gone[:, :6], 0))


def test_padding_moves_nothing() -> None:
    narrow, wide = copied("llama"), copied("llama")
    for model, batch_size in ((narrow, 1), (wide, 24)):
        pruner = Pruner(criterion=SparseGPT(precision="float64"), structure=NM(), allocation=Layerwise())
        data = questions.Made(questions.made(24), batch_size)
        pruner.prune(model, pruner.left(model), 0.5, PruningContext(generator=torch.Generator(), data=data))
    for name, tensor in narrow.model.state_dict().items():
        torch.testing.assert_close(tensor, wide.model.state_dict()[name], rtol=1e-3, atol=1e-4)


def test_sparsity_zero_changes_nothing() -> None:
    model = copied("olmo2")
    prune(model, SparseGPT(), Weights(), 0.0)
    for name, tensor in dense_model("olmo2").state_dict().items():
        assert torch.equal(tensor, model.model.state_dict()[name])


def test_the_watched_inputs_of_a_stored_bfloat16_model_are_float32() -> None:
    model = copied("llama")
    model.model.to(torch.bfloat16)  # type: ignore[arg-type]
    prune(model, SparseGPT(), Weights(), 0.5)
    assert model.model.dtype == torch.bfloat16
    parameters = dict(model.model.named_parameters())
    for name, mask in model.masks.items():
        assert not parameters[name][~mask].any() and parameters[name].isfinite().all()
    groups = Weights(layers=(0,)).groups(model.model)
    visit_inputs(model, questions.Made(), [groups[0].parts[0].module], lambda _, rows: _float32(rows))


def _float32(rows: torch.Tensor) -> None:
    assert rows.dtype == torch.float32


def test_too_little_dampening_is_said() -> None:
    model = copied("llama")
    fewer = PruningContext(generator=torch.Generator(), data=questions.Made(questions.made(1)))  # tokens than inputs
    with pytest.raises(ValueError, match=r"criterion.dampening=1e-12: is too small .* of layer 0\. Raise it to 0\.1"):
        SparseGPT(dampening=1e-12).scores(model, Weights(), fewer)
    for wrong in ({"dampening": 0.0}, {"block_size": 0}):
        with pytest.raises(ConfigError):
            SparseGPT(**wrong)  # type: ignore[arg-type]
