"""All at once."""

from __future__ import annotations

from dataclasses import dataclass

from regraft.interfaces import Schedule


@dataclass(frozen=True, kw_only=True)
class OneShot(Schedule):
    """Prune to the target in one step, then recover."""

    def targets(self, sparsity: float) -> tuple[float, ...]:
        return (sparsity,)
