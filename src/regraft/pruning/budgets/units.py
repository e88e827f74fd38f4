"""The sparsity is the share of units: no budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from regraft.interfaces import Budget, PruningContext, Removal


@dataclass(frozen=True, kw_only=True)
class Units(Budget):
    """`sparsity` is the share of the dense model's units that goes."""

    tries: ClassVar[bool] = False

    def amount(self, removal: Removal, sparsity: float, context: PruningContext) -> float:
        return sparsity
