"""A budget of multiply-accumulates: how much a token computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, get_args

from regraft.interfaces import Kind, PruningContext, Removal
from regraft.pruning.budgets.solve import Cost
from regraft.pruning.shapes import Shapes


@dataclass(frozen=True, kw_only=True)
class Macs(Cost):
    """Multiply-accumulates of the last token of a context as long as a mean evaluation question: `macs_per_token`."""

    # a masked matrix is computed in full
    kinds: ClassVar[frozenset[Kind]] = frozenset(get_args(Kind)) - {"weights"}
    reads_length: ClassVar[bool] = True
    unit: ClassVar[str] = "MACs a token"

    def cost(self, removal: Removal, amount: float, context: PruningContext) -> float:
        return removal.macs(amount, self._length(context))

    def dense(self, context: PruningContext) -> float:
        assert context.dense is not None, "a prune stage knows the dense model"
        return Shapes(context.dense()).macs(self._length(context))

    def _length(self, context: PruningContext) -> int:
        assert context.length is not None, "a prune stage knows the evaluation's questions"
        return context.length()
