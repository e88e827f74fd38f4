"""RigL (Evci et al. 2020, arXiv 1911.11134): grow where the gradient of the loss is largest.

What is off has a gradient too: how fast the loss would fall if the weight were there. An iteration moves the masks or
takes an optimizer step, never both (algorithm 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from regraft.pruning.schedules.dynamic import Dynamic

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class RigL(Dynamic):
    """Drop the smallest weights, grow those of largest gradient."""

    replaces_step: ClassVar[bool] = True

    def wishes(self, seed: int) -> tuple[Callable[[str, torch.Tensor], None], Callable[[str, int], torch.Tensor]]:
        gradients: dict[str, torch.Tensor] = {}

        def note(name: str, gradient: torch.Tensor) -> None:
            gradients[name] = gradient.abs()

        def wanted(name: str, step: int) -> torch.Tensor:
            return gradients.pop(name)

        return note, wanted
