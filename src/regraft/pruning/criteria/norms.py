"""What the norm criteria share: one norm a projection, combined over the projections of a unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from regraft.config.ranges import ConfigError

if TYPE_CHECKING:
    import torch

Projection = Literal["gate", "up", "down"]


def norms(weights: dict[str, torch.Tensor], projections: Sequence[str], order: int) -> list[torch.Tensor]:
    """The p-norm of what each unit owns, (units,) float32 for each projection that is asked for and there.

    A block without a gate (GPT-2) is scored by what it has: so one config serves every architecture.

    Raises:
        ConfigError: The block has none of the projections.
    """
    import torch

    found = [weights[name] for name in projections if name in weights]
    if not found:
        raise ConfigError(
            f"pruner.criterion.projections={list(projections)}: must name at least one of {', '.join(weights)}, "
            "the projections of this model."
        )
    return [torch.linalg.vector_norm(weight.detach().float(), ord=order, dim=1) for weight in found]
