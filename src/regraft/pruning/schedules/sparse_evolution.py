"""Sparse evolutionary training, SET (Mocanu et al. 2018, arXiv 1707.04780): grow at random.

The masks move after a training step (algorithm 1, where they do so after each epoch).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regraft.cache import digest
from regraft.pruning.schedules.dynamic import Dynamic

if TYPE_CHECKING:
    import torch

SEEDS = 2**63


@dataclass(frozen=True, kw_only=True)
class SparseEvolution(Dynamic):
    """Drop the smallest weights, grow as many anywhere; drawn by the run's seed."""

    def wishes(self, seed: int) -> tuple[Callable[[str, torch.Tensor], None], Callable[[str, int], torch.Tensor]]:
        import torch

        shapes: dict[str, torch.Size] = {}

        def note(name: str, gradient: torch.Tensor) -> None:
            shapes[name] = gradient.shape

        def wanted(name: str, step: int) -> torch.Tensor:
            # by step and name, so that a training that was interrupted draws the same
            own = int(digest({"seed": seed, "name": name, "step": step}), 16) % SEEDS
            return torch.rand(shapes[name], generator=torch.Generator().manual_seed(own))

        return note, wanted
