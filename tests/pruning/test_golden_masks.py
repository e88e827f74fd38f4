"""Masks and weights are those of llm-compressor (tests/golden), on the same weights and the same tokens."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import questions
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from regraft.interfaces import (
    Allocation,
    Batch,
    Criterion,
    EncodedQuestion,
    LanguageModel,
    Loss,
    PruningContext,
    Scored,
    Structure,
)
from regraft.pruning.allocation.layerwise import Layerwise
from regraft.pruning.criteria.l1 import L1
from regraft.pruning.criteria.sparsegpt import SparseGPT
from regraft.pruning.criteria.wanda import Wanda
from regraft.pruning.pruner import Pruner
from regraft.pruning.structures.n_m import NM
from regraft.pruning.structures.weights import Weights
from regraft.tasks.packing import pack

GOLDEN = Path(__file__).parents[1] / "golden"


class Sequences(questions.Made):
    """The tokens that llm-compressor was given: plain text, one sequence a batch."""

    def __init__(self) -> None:
        rows = json.loads((GOLDEN / "inputs" / "calibration.json").read_text(encoding="utf-8"))
        super().__init__([EncodedQuestion(id=str(n), context=tuple(row), choices=()) for n, row in enumerate(rows)])

    def batches(self, loss: Loss | None = None) -> Iterator[Batch]:
        for question in self.questions:
            yield pack([question], reads="question", positions="all", pad_token_id=0, labelled=False)


class OneMoreABlock(Allocation):
    """Half of each matrix and one weight for each block: SparseGPT's authors remove the threshold as well.

    Args:
        block_size: Columns of a block.
    """

    compares_scores = False

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size

    def losses(self, scored: Scored, sparsity: float) -> list[int]:
        modules = [group.parts[0].module for group in scored.structure.groups(scored.model.model)]
        return [module.weight.numel() // 2 + math.ceil(module.in_features / self.block_size) for module in modules]


METHODS: dict[str, tuple[Criterion, Structure, Allocation]] = {
    "magnitude_50": (L1(), Weights(), Layerwise()),
    "wanda_50": (Wanda(), Weights(compare="output"), Layerwise()),
    "wanda_2_4": (Wanda(), NM(n=2, m=4), Layerwise()),
    "wanda_4_8": (Wanda(), NM(n=4, m=8), Layerwise()),
    "sparsegpt_50": (SparseGPT(), Weights(), OneMoreABlock(128)),
    "sparsegpt_50_blocks": (SparseGPT(block_size=16, dampening=0.1), Weights(), OneMoreABlock(16)),
    "sparsegpt_2_4": (SparseGPT(), NM(n=2, m=4), Layerwise()),
    "sparsegpt_4_8_blocks": (SparseGPT(block_size=16), NM(n=4, m=8), Layerwise()),
}


@functools.cache
def golden(architecture: str) -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / f"{architecture}.safetensors")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("architecture", ["llama", "olmo2"])
def test_what_is_left_is_what_llm_compressor_leaves(architecture: str, method: str) -> None:
    criterion, structure, allocation = METHODS[method]
    dense = AutoModelForCausalLM.from_pretrained(GOLDEN / "inputs" / architecture, dtype=torch.float32).eval()
    model = LanguageModel(model=dense, tokenizer=None)  # type: ignore[arg-type]
    before = {name: parameter.detach().clone() for name, parameter in dense.named_parameters()}
    pruner = Pruner(criterion=criterion, structure=structure, allocation=allocation)
    context = PruningContext(generator=torch.Generator(), data=Sequences())
    pruner.prune(model, pruner.left(model), 0.5, context)
    expected = {
        f"{name.removeprefix(f'{method}/')}.weight": tensor
        for name, tensor in golden(architecture).items()
        if name.startswith(f"{method}/")
    }
    assert set(model.masks) == set(expected)
    for name, parameter in dense.named_parameters():
        if name not in expected:
            assert torch.equal(parameter, before[name]), name
            continue
        wanted = expected[name]
        assert torch.equal(model.masks[name], wanted != 0), name
        if wanted.dtype == torch.bool:
            wanted = before[name] * wanted
        torch.testing.assert_close(
            parameter.detach(), wanted, rtol=0, atol=1e-4, msg=lambda text, of=name: f"{of} {text}"
        )
        assert not parameter[~model.masks[name]].any(), name


@pytest.mark.parametrize("criterion", [Wanda(), SparseGPT()], ids=["wanda", "sparsegpt"])
def test_the_inputs_of_the_whole_model_give_other_masks(criterion: Criterion) -> None:
    """So the equality above says that layers are pruned in turn."""
    masks = []
    for each in (criterion, replace(criterion, sequential=False)):  # type: ignore[type-var]
        dense = AutoModelForCausalLM.from_pretrained(GOLDEN / "inputs" / "llama", dtype=torch.float32).eval()
        model = LanguageModel(model=dense, tokenizer=None)  # type: ignore[arg-type]
        pruner = Pruner(criterion=each, structure=NM(), allocation=Layerwise())
        pruner.prune(model, pruner.left(model), 0.5, PruningContext(generator=torch.Generator(), data=Sequences()))
        masks.append(model.masks)
    one, other = masks
    assert {name.split(".")[2] for name in one if not torch.equal(one[name], other[name])} == {"1"}
