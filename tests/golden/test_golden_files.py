"""The kept numbers of llm-compressor: made from the inputs beside them, and equal to a slow reading of the formulas."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference_obs
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel

HERE = Path(__file__).parent
ARCHITECTURES = ("llama", "olmo2")
METHODS = (
    "magnitude_50",
    "wanda_50",
    "wanda_2_4",
    "wanda_4_8",
    "sparsegpt_50",
    "sparsegpt_50_blocks",
    "sparsegpt_2_4",
    "sparsegpt_4_8_blocks",
)


def made_with(architecture: str) -> dict[str, Any]:
    with safe_open(HERE / f"{architecture}.safetensors", "pt") as file:
        return json.loads(file.metadata()["made_with"])


def golden(architecture: str, method: str) -> dict[str, torch.Tensor]:
    """Linear layer -> its tensor under `method`."""
    tensors = load_file(HERE / f"{architecture}.safetensors")
    return {name.removeprefix(f"{method}/"): t for name, t in tensors.items() if name.startswith(f"{method}/")}


def dense(architecture: str) -> PreTrainedModel:
    folder = HERE / "inputs" / architecture
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).double().eval()


def calibration() -> torch.Tensor:
    return torch.tensor(json.loads((HERE / "inputs" / "calibration.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_files_say_what_they_were_made_with(architecture: str) -> None:
    found = made_with(architecture)
    requirements = (HERE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    for library, version in found["versions"].items():
        assert f"{library}=={version.partition('+')[0]}" in requirements
    inputs = [*(HERE / "inputs" / architecture).iterdir(), HERE / "inputs" / "calibration.json"]
    assert found["inputs"] == {
        path.relative_to(HERE).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in inputs
    }
    assert set(found["methods"]) == set(METHODS)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("method", METHODS)
def test_golden_tensors_have_the_pattern_that_their_method_names(architecture: str, method: str) -> None:
    arguments = made_with(architecture)["methods"][method]["arguments"]
    kept = {name: tensor != 0 for name, tensor in golden(architecture, method).items()}
    shapes = {name: module.weight.shape for layer in linears(architecture) for name, module in layer.items()}
    assert {name: mask.shape for name, mask in kept.items()} == shapes
    for name, mask in kept.items():
        if ":" in arguments["mask_structure"] and arguments["mask_structure"] != "0:0":
            n, m = map(int, arguments["mask_structure"].split(":"))
            assert ((~mask).unflatten(1, (-1, m)).sum(2) == n).all(), name
        elif method.startswith("wanda"):
            assert ((~mask).sum(1) == mask.shape[1] // 2).all(), name
        else:
            block = arguments.get("block_size", mask.shape[1])
            one_more = int(method.startswith("sparsegpt"))  # its threshold is removed as well
            for part in mask.split(block, dim=1):
                assert (~part).sum() == part.numel() // 2 + one_more, name


def linears(architecture: str) -> list[dict[str, torch.nn.Linear]]:
    return reference_obs.projections(dense(architecture))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("method", METHODS)
def test_golden_numbers_are_the_formulas_in_float64(architecture: str, method: str) -> None:
    arguments = made_with(architecture)["methods"][method]["arguments"]
    n, m = map(int, arguments["mask_structure"].replace("unstructured", "0:0").split(":"))
    pattern = (n, m) if n else None
    ids = calibration()

    def prune(weight: reference_obs.Array, inputs: reference_obs.Array) -> reference_obs.Array:
        if method.startswith("magnitude"):
            return weight * reference_obs.magnitude(weight, arguments["final_sparsity"])
        if method.startswith("wanda"):
            return weight * reference_obs.wanda(weight, inputs, arguments["sparsity"], pattern)
        return reference_obs.sparsegpt(
            weight,
            inputs,
            len(ids),
            arguments["sparsity"],
            pattern,
            block_size=arguments["block_size"],
            dampening=arguments["dampening_frac"],
        )

    expected = reference_obs.prune_sequentially(dense(architecture), ids, prune)
    found = golden(architecture, method)
    assert set(found) == set(expected)
    for name, weight in expected.items():
        np.testing.assert_array_equal(found[name].numpy() != 0, weight != 0, err_msg=name)
        if method.startswith("sparsegpt"):
            np.testing.assert_allclose(found[name].numpy(), weight, rtol=0, atol=1e-5, err_msg=name)
