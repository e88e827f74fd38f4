"""A budget of measured time: how long a token takes on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, get_args

from regraft.config.ranges import require
from regraft.interfaces import Kind, PruningContext, Removal
from regraft.pruning.budgets.solve import Cost

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Latency(Cost):
    """Milliseconds that a new token takes, measured.

    Batch 1, with the keys and values of a context as long as a mean evaluation question in the cache; the median of
    `repeats` tokens, in the dtype of the weights. Copies of the model are cut and measured, so a machine must be as
    quiet as it will be. What was measured is kept with the stage: it is not measured again when the model is made
    again.
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
        def measure() -> float:
            return self._measured(removal.candidate(amount).model, context)

        return float(context.once(f"{removal.name} {amount!r}", measure))

    def dense(self, context: PruningContext) -> float:
        assert context.dense is not None, "a prune stage knows the dense model"
        dense = context.dense
        return float(context.once("dense", lambda: self._measured(dense().model, context)))

    def _measured(self, model: PreTrainedModel, context: PruningContext) -> float:
        from regraft.models.latency import milliseconds_per_token

        assert context.length is not None, "a prune stage knows the evaluation's questions"
        return milliseconds_per_token(model, context.length(), self.repeats)
