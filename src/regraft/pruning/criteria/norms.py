"""What the norm criteria share: one norm a matrix, combined over the matrices in which a unit owns something."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from regraft.config.ranges import ConfigError
from regraft.interfaces import Group

if TYPE_CHECKING:
    import torch


def norms(group: Group, projections: Sequence[str] | None, order: float) -> list[torch.Tensor]:
    """The p-norm of what each unit owns, (units,) float32 for each matrix that is asked for and there.

    A block without a gate (GPT-2) is scored by what it has: so one config serves every architecture.

    Raises:
        ConfigError: The group has none of the matrices.
    """
    import torch

    weights = group.weights()
    found = [weights[name] for name in (weights if projections is None else projections) if name in weights]
    if not found:
        raise ConfigError(
            f"pruner.criterion.projections={list(projections or ())}: must name at least one of {', '.join(weights)}, "
            f"the matrices of the {group.name}."
        )
    return [torch.linalg.vector_norm(weight, ord=order, dim=1, dtype=torch.float32) for weight in found]
