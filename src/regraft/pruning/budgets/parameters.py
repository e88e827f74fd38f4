"""A budget of parameters: how large the model is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from regraft.interfaces import PruningContext, Removal
from regraft.pruning.budgets.solve import Cost
from regraft.pruning.shapes import Shapes


@dataclass(frozen=True, kw_only=True)
class Parameters(Cost):
    """Parameters of the whole model, embeddings and norms too; tied weights count once."""

    unit: ClassVar[str] = "parameters"

    def cost(self, removal: Removal, amount: float, context: PruningContext) -> float:
        return removal.parameters(amount)

    def dense(self, context: PruningContext) -> float:
        assert context.dense is not None, "a prune stage knows the dense model"
        return Shapes(context.dense()).parameters()
