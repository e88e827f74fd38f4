"""Magnitude, Wanda and SparseGPT, one number at a time in float64: slow, and meant to be read beside the papers.

Magnitude: Han et al. 2015. Wanda: arXiv 2306.11695, equation 1. SparseGPT: arXiv 2301.00774, section 3, with the mask
of a block chosen as in its algorithm 1. `tests/golden/README.md` says what llm-compressor adds to them. The inverses
are taken afresh for each column, as the papers derive it, where implementations read them off one Cholesky factor.

A weight is `(outputs, inputs)`, `inputs` are the rows `(tokens, inputs)` that it is multiplied with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Pattern = tuple[int, int]
"""`(n, m)`: n of m consecutive inputs are removed."""


def magnitude(weight: Array, sparsity: float) -> Mask:
    """What is kept: what lies above the k-th smallest |w| of the matrix, k = floor(sparsity * size)."""
    scores = [abs(value) for row in weight for value in row]
    threshold = sorted(scores)[int(sparsity * len(scores)) - 1]
    return np.array([[abs(value) > threshold for value in row] for row in weight])


def wanda(weight: Array, inputs: Array, sparsity: float, pattern: Pattern | None = None) -> Mask:
    """What is kept: in each row (or each group of m in it) all but the smallest |w_ij| * ||x_j||."""
    rows, columns = weight.shape
    norms = [sum(x**2 for x in inputs[:, j]) ** 0.5 for j in range(columns)]
    kept = np.ones((rows, columns), dtype=bool)
    removed, size = (int(sparsity * columns), columns) if pattern is None else pattern
    for i in range(rows):
        for start in range(0, columns, size):
            group = range(start, start + size)
            ordered = sorted(group, key=lambda j: abs(weight[i, j]) * norms[j])
            for j in ordered[:removed]:
                kept[i, j] = False
    return kept


def hessian(inputs: Array, sequences: int) -> Array:
    """2 / sequences * sum over tokens of x x^T."""
    total = np.zeros((inputs.shape[1], inputs.shape[1]))
    for x in inputs:
        total += np.outer(x, x)
    return 2 / sequences * total


def sparsegpt(
    weight: Array,
    inputs: Array,
    sequences: int,
    sparsity: float,
    pattern: Pattern | None = None,
    *,
    block_size: int,
    dampening: float,
) -> Array:
    """The new weight: columns left to right, each removed weight made up for by those to its right.

    With F = inverse of H over columns j, j+1, ...: score w_j^2 / F_00, and w_k -= w_j * F_0,k-j / F_00 for k >= j.
    """
    w = weight.copy()
    h = hessian(inputs, sequences)
    rows, columns = w.shape
    for j in range(columns):
        if h[j, j] == 0:
            h[j, j] = 1
            w[:, j] = 0
    damping = dampening * sum(h[j, j] for j in range(columns)) / columns
    for j in range(columns):
        h[j, j] += damping
    inverse = [np.linalg.inv(h[j:, j:]) for j in range(columns)]

    def score(i: int, j: int) -> float:
        return float(w[i, j] ** 2 / inverse[j][0, 0])

    for start in range(0, columns, block_size):
        block = range(start, min(start + block_size, columns))
        removed = np.zeros((rows, columns), dtype=bool)
        if pattern is None:
            scores = sorted(score(i, j) for i in range(rows) for j in block)
            threshold = scores[int(sparsity * len(scores))]
            for i in range(rows):
                for j in block:
                    removed[i, j] = score(i, j) <= threshold
        for j in block:
            if pattern is not None and (j - start) % pattern[1] == 0:
                for i in range(rows):
                    group = sorted(range(j, j + pattern[1]), key=lambda k: score(i, k))
                    removed[i, group[: pattern[0]]] = True
            for i in range(rows):
                if removed[i, j]:
                    w[i, j:] -= w[i, j] * inverse[j][0] / inverse[j][0, 0]
                    w[i, j] = 0
    return w


def projections(model: PreTrainedModel) -> list[dict[str, torch.nn.Linear]]:
    """For each decoder layer its linear layers, by their names in the model."""
    import torch

    return [
        {
            f"model.layers.{index}.{name}": module
            for name, module in layer.named_modules()
            if isinstance(module, torch.nn.Linear)
        }
        for index, layer in enumerate(model.model.layers)
    ]


def inputs_of(model: PreTrainedModel, layer: dict[str, torch.nn.Linear], ids: torch.Tensor) -> dict[str, Array]:
    """What each linear layer of `layer` is given, `(sequences * tokens, inputs)`."""
    import torch

    inputs: dict[str, Array] = {}
    hooks = []
    for name, module in layer.items():

        def keep(_: torch.nn.Module, arguments: tuple[torch.Tensor], name: str = name) -> None:
            inputs[name] = arguments[0].double().flatten(0, 1).numpy()

        hooks.append(module.register_forward_pre_hook(keep))
    with torch.no_grad():
        model(ids)
    for hook in hooks:
        hook.remove()
    return inputs


def prune_sequentially(
    model: PreTrainedModel, ids: torch.Tensor, prune: Callable[[Array, Array], Array]
) -> dict[str, Array]:
    """`prune(weight, inputs)` for every linear layer of `model`, which is changed; the new weights by name.

    All linear layers of a decoder layer see the inputs that they have while that layer is whole and the ones before it
    are pruned. `ids` is `(sequences, tokens)`, without padding.
    """
    import torch

    pruned = {}
    for layer in projections(model):
        inputs = inputs_of(model, layer, ids)
        for name, module in layer.items():
            weight = module.weight.detach()
            pruned[name] = prune(weight.double().numpy().copy(), inputs[name])
            weight.copy_(torch.from_numpy(pruned[name]))
    return pruned
