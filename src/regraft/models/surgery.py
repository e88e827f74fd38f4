"""Cuts units out of a model: its tensors become smaller."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from regraft.interfaces import Group, Part
from regraft.models.architecture import Projection

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

BIAS_KEYS = ("mlp_bias", "attention_bias")
"""Config keys by which architectures give the linear maps of a block biases."""
LINES = 64
"""Rows of a matrix whose columns are chosen at once."""


def owned(name: str, projection: Projection, index: torch.Tensor, side: Literal["writes", "reads"]) -> list[Part]:
    """What units own of a linear map: rows and biases where they write, columns where they read.

    Args:
        name: Of the matrix.
        projection: The map.
        index: (units, width) long; rows or columns of each unit.
        side: Which of both.
    """
    module = projection.module
    along = 1 if (side == "reads") != projection.transposed else 0
    parts = [Part(name=name, module=module, attribute="weight", dimension=along, index=index, side=side)]
    if side == "writes" and module.bias is not None:
        parts.append(Part(name=f"{name}.bias", module=module, attribute="bias", dimension=0, index=index, side=side))
    return parts


def consecutive(units: int, width: int = 1) -> torch.Tensor:
    """(units, width) long: each unit owns the next `width` positions."""
    import torch

    return torch.arange(units * width).view(units, width)


def give_biases(model: PreTrainedModel, modules: Iterable[nn.Module]) -> None:
    """Zero biases for linear maps that have none.

    Where a key of the model's config gives them to the whole block, the other maps of the block get zero biases too,
    and the config says so: a plain checkpoint then holds them. Elsewhere the config stays as it is.
    """
    from torch import nn

    lacking, keys = lacking_biases(model, modules)
    for key in keys:
        setattr(model.config.get_text_config(), key, True)
    for module in lacking:
        zeros = module.weight.new_zeros(len(module.weight))
        module.bias = nn.Parameter(zeros, requires_grad=module.weight.requires_grad)


def lacking_biases(model: PreTrainedModel, modules: Iterable[nn.Module]) -> tuple[list[Any], list[str]]:
    """The linear maps that get a bias when `modules` are given theirs, and the keys of the config that will say so."""
    import torch

    lacking = {id(module) for module in modules if module.bias is None}
    names = {f"{name}.bias" for name, module in model.named_modules() if id(module) in lacking}
    untold, there = set(names), {name for name, _ in model.named_parameters()}
    keys: list[str] = []
    for key in BIAS_KEYS:
        if untold and getattr(model.config.get_text_config(), key, None) is False:
            told = copy.deepcopy(model.config)
            for each in (*keys, key):
                setattr(told.get_text_config(), each, True)
            with torch.device("meta"):
                more = {name for name, _ in type(model)(told).named_parameters()} - there
            if more & untold:
                keys.append(key)
                names, untold = names | more, untold - more
    return [model.get_submodule(name.removesuffix(".bias")) for name in sorted(names)], keys


@dataclass(frozen=True, kw_only=True)
class Slice:
    """What stays of one parameter along one dimension."""

    module: nn.Module
    attribute: str
    dimension: int
    stays: torch.Tensor
    """(size,) bool."""

    @property
    def parameter(self) -> nn.Parameter:
        parameter: nn.Parameter = getattr(self.module, self.attribute)
        return parameter

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """The part of `tensor`, of the parameter's shape, that stays."""
        left = self.stays.nonzero().flatten().to(tensor.device)
        return tensor.index_select(0, left) if self.dimension == 0 else columns_of(tensor, left)


def columns_of(matrix: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """What `matrix.index_select(1, chosen)` gives, in a fraction of its time.

    Torch is slow to choose along any dimension but the first: so the numbers of some rows are chosen as one line.
    """
    import torch

    rows, width = matrix.shape
    line = (width * torch.arange(LINES, device=matrix.device)[:, None] + chosen).flatten()
    left = matrix.new_empty(rows, len(chosen))
    for some, place in zip(matrix.split(LINES), left.split(LINES), strict=True):
        torch.index_select(some.reshape(-1), 0, line[: place.numel()], out=place.view(-1))
    return left


def slices(groups: Iterable[Group], keep: Iterable[torch.Tensor]) -> list[Slice]:
    """What is left of each parameter when only the units of `keep` stay, (units,) bool for each group.

    Queries, keys and values may lie in one matrix: so all that goes from it is known before anything is cut.
    """
    import torch

    found: dict[tuple[int, str, int], Slice] = {}
    for group, kept in zip(groups, keep, strict=True):
        for part in group.parts:
            assert part.index is not None, "single weights are masked, not cut"
            key = (id(part.module), part.attribute, part.dimension)
            if key not in found:
                stays = torch.ones(part.parameter.shape[part.dimension], dtype=torch.bool)
                found[key] = Slice(module=part.module, attribute=part.attribute, dimension=part.dimension, stays=stays)
            found[key].stays[part.index[~kept.cpu()].flatten()] = False
    return list(found.values())


def cut(pieces: Iterable[Slice]) -> None:
    """Make each parameter as small as what stays of it, in place.

    A parameter that several modules share is to be named once, and tied again by the caller.
    """
    from torch import nn

    for piece in pieces:
        chosen = piece.of(piece.parameter.detach())
        setattr(piece.module, piece.attribute, nn.Parameter(chosen, requires_grad=piece.parameter.requires_grad))
        tell_size(piece.module)


def tell_size(module: Any) -> None:
    """What the module says of its shape."""
    from torch import nn

    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = module.weight.shape
    elif hasattr(module, "nx"):
        module.nx, module.nf = module.weight.shape


def rebuilt(model: PreTrainedModel, device: str = "meta", **changes: Any) -> PreTrainedModel:
    """The model as its config makes it, with `changes` of the config.

    Args:
        model: Whose config it is.
        device: On `meta` it has shapes and settings, no weights.
        changes: Keys of the config with other values.

    Raises:
        Exception: Of any kind; the model's class cannot be made with these settings.
    """
    import torch

    config = copy.deepcopy(model.config)
    for key, value in changes.items():
        setattr(config.get_text_config(), key, value)
    with torch.random.fork_rng(devices=[]), torch.device(device):
        return type(model)(config)
