"""The recovery's questions, as the task asks them."""

from __future__ import annotations

from dataclasses import dataclass

from regraft.interfaces import BatchContext, Batches, BatchSource


@dataclass(frozen=True, kw_only=True)
class Asked(Batches):
    """Every loss reads the same questions in the same order; which of their choices it reads, the loss says."""

    def source(self, context: BatchContext) -> BatchSource:
        from regraft.recovery.batches import Questions

        return Questions.of(context, context.encode(context.questions))
