"""N:M sparsity: n of every m consecutive inputs of an output stay (Mishra et al. 2021, arXiv 2104.08378, for 2:4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from regraft.config.ranges import ConfigError, require
from regraft.pruning.structures.masked import Masked, without_lowest

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class NM(Masked):
    """Weights of the linear maps of the decoder layers, in the pattern that sparse tensor cores multiply fast."""

    even: ClassVar[bool] = True

    name: str = "n_m"
    """Name of the structure in records."""
    n: int = 2
    """Weights that stay of every m, at least 1 and below m."""
    m: int = 4
    """Consecutive inputs; divides the inputs of every matrix."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.n >= 1, "n", self.n, "at least 1")
        require(self.m > self.n, "m", self.m, f"above n, which is {self.n}")

    @property
    def only_sparsity(self) -> float:
        return 1 - self.n / self.m

    @property
    def strip_width(self) -> int:
        return self.m

    def check(self, matrix: str, inputs: int) -> None:
        if inputs % self.m:
            raise ConfigError(
                f"pruner.structure.m={self.m}: must divide the inputs of every matrix, but {matrix} has {inputs}. "
                "Choose another m, name layers that fit in pruner.structure.layers, or choose pruner/structure=weights."
            )

    def choose(self, scores: torch.Tensor, left: int) -> torch.Tensor:
        lost = self.m - self.n if left < scores.numel() else 0
        return without_lowest(scores.reshape(-1, self.m), lost).view(scores.shape)
