"""A budget of measured time: how long a token takes on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, get_args

from regraft.config.ranges import require
from regraft.interfaces import Kind, PruningContext, Removal
from regraft.pruning.budgets.solve import Cost

if TYPE_CHECKING:
    from transformers import PreTrainedModel


DENSE = "milliseconds of the dense model"
"""Name under which they are kept while a share is looked for."""


@dataclass(frozen=True, kw_only=True)
class Latency(Cost):
    """Milliseconds that a new token takes, measured.

    Batch 1, with the keys and values of a context as long as a mean evaluation question in the cache; the median of
    `repeats` tokens, in the dtype of the weights. The dense model is measured once on a machine, which must then be as
    quiet as it will be. Copies of the model are cut, and tokens of each are timed in turn with tokens of the dense
    model: the ratio of the fastest counts, which a load on the machine changes least. What was measured is kept with
    the stage: it is not measured again when the model is made again.
    """

    # a masked matrix is computed in full
    kinds: ClassVar[frozenset[Kind]] = frozenset(get_args(Kind)) - {"weights"}
    reads_length: ClassVar[bool] = True
    halvings: ClassVar[int] = 8
    unit: ClassVar[str] = "milliseconds a token"

    repeats: int = 15
    """Tokens that are timed, after a few that are not."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.repeats >= 1, "repeats", self.repeats, "at least 1")

    def cost(self, removal: Removal, amount: float, context: PruningContext) -> float:
        from regraft.models.latency import time_beside

        def measure() -> float:
            dense, length = self._given(context)
            return time_beside(removal.candidate(amount).model, dense, length, self.repeats)

        return self.dense(context) * float(context.once(f"{removal.name} {amount!r} beside dense", measure))

    def dense(self, context: PruningContext) -> float:
        from regraft.models.latency import milliseconds_per_token

        def measure() -> float:
            dense, length = self._given(context)
            return milliseconds_per_token(dense, length, self.repeats)

        def known() -> float:
            _, length = self._given(context)
            return float(context.once_of_dense(f"{self.repeats} tokens after {length}", measure))

        if DENSE not in context.measured:
            context.measured[DENSE] = float(context.once("dense", known))
        return float(context.measured[DENSE])

    def _given(self, context: PruningContext) -> tuple[PreTrainedModel, int]:
        assert context.dense is not None, "a prune stage knows the dense model"
        assert context.length is not None, "a prune stage knows the evaluation's questions"
        return context.dense().model, context.length()
