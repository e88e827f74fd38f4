"""SparseGPT (Frantar and Alistarh 2023, arXiv 2301.00774): prune, and have what stays make up for what goes.

For a matrix W whose inputs are the columns of X (tokens side by side):

    H = 2 / N * X X^T                      N questions
    H_jj = 1                               of inputs j that are always zero; their weights score 0
    H = H + dampening * mean(diag H) * I
    U = upper Cholesky factor of H^-1      H^-1 = U^T U;   U_jj^2 = first entry of the inverse of H over j, j+1, ...
    s_ij = w_ij^2 / U_jj^2

Columns go from left to right, in blocks. When a block begins, its share of the matrix's weights is chosen, those of
lowest s with the weights as they are by then; under a pattern (N:M) each strip is chosen when its first column comes.
Then for each column j, with q_ij = 0 where the weight goes and w_ij where it stays,

    e_i = (w_ij - q_ij) / U_jj;   w_ik = w_ik - e_i * U_jk   for all k > j.

The authors' code removes all up to the score at the position of the share, so one weight a block more; here the
allocation's count is met exactly, and is shared out over the blocks by their widths: that of the matrix, or that of
each output where only its own weights compete (`pruner.structure.compare=output`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from regraft.config.ranges import require
from regraft.interfaces import Criterion, Group, Kind, LanguageModel, PruningContext, PruningNeed, Structure
from regraft.pruning.activations import visit_inputs
from regraft.pruning.structures.masked import Masked, without_lowest_of_each

if TYPE_CHECKING:
    import torch

FACTORS = "sparsegpt"
"""Where the context keeps `Factor` of each group."""


@dataclass(frozen=True)
class Factor:
    """What the questions say of a matrix.

    Args:
        upper: U, (inputs, inputs).
        dead: (inputs,) bool; inputs that are always zero.
    """

    upper: torch.Tensor
    dead: torch.Tensor

    def scores(self, weight: torch.Tensor, first: int) -> torch.Tensor:
        """Scores s of the columns `first`, `first` + 1, ... of a matrix, which are `weight`: (outputs, columns)."""
        columns = slice(first, first + weight.shape[1])
        scores = (weight / self.upper.diagonal()[columns]) ** 2
        return scores.masked_fill(self.dead[columns], 0)


@dataclass(frozen=True, kw_only=True)
class SparseGPT(Criterion):
    """Single weights that the others can make up for go first, and the others do."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"weights"})
    chooses: ClassVar[bool] = True

    dampening: float = 0.01
    """Share of the mean of H's diagonal that is added to it, above 0."""
    block_size: int = 128
    """Columns whose weights are chosen together, at least 1."""
    sequential: bool = True
    """Whether a layer's inputs come from layers that are pruned already, as in the paper; else from the whole model."""
    precision: Literal["float32", "float64"] = "float32"
    """Of H, its inverse and the update."""

    def __post_init__(self) -> None:
        require(self.dampening > 0, "dampening", self.dampening, "above 0")
        require(self.block_size >= 1, "block_size", self.block_size, "at least 1")

    @property
    def needs(self) -> frozenset[PruningNeed]:
        return frozenset({"calibration"})

    @property
    def in_turn(self) -> bool:
        return self.sequential

    def scores(self, model: LanguageModel, structure: Structure, context: PruningContext) -> list[torch.Tensor]:
        """Scores s with the weights as they are before any is changed."""
        groups = structure.groups(model.model)
        context.measured[FACTORS] = factors = self._factors(model, groups, context)
        return [
            factor.scores(self._weight(group), 0).flatten().float()
            for group, factor in zip(groups, factors, strict=True)
        ]

    def adjust(
        self, model: LanguageModel, structure: Structure, keep: list[torch.Tensor], context: PruningContext
    ) -> list[torch.Tensor]:
        """Choose as many weights block by block, and change those that stay."""
        import torch

        assert isinstance(structure, Masked), "single weights are masked"
        groups = structure.groups(model.model)
        there = structure.there(model) or [torch.ones_like(kept) for kept in keep]
        chosen = []
        for group, kept, known, factor in zip(groups, keep, there, context.measured[FACTORS], strict=True):
            if bool(kept.all()):
                chosen.append(kept)
                continue
            weight = self._weight(group)
            gone = ~known.to(weight.device).view(weight.shape)
            stays = kept.to(weight.device).view(weight.shape)
            mask = solve(weight, gone, stays, factor, structure, self.block_size)
            (part,) = group.parts
            part.parameter.data.movedim(part.dimension, 0).copy_(weight)
            chosen.append(mask.flatten())
        return chosen

    def _weight(self, group: Group) -> torch.Tensor:
        """A copy of the matrix: (outputs, inputs)."""
        import torch

        (part,) = group.parts
        weight = part.parameter.detach().movedim(part.dimension, 0)
        return weight.to(getattr(torch, self.precision), copy=True).contiguous()

    def _factors(self, model: LanguageModel, groups: Sequence[Group], context: PruningContext) -> list[Factor]:
        """Of each group; maps that are fed one and the same tensor share one.

        Raises:
            ValueError: H is not positive definite.
        """
        import torch

        products: dict[int, torch.Tensor] = {}
        source: dict[int, int] = {}
        last: list[Any] = [None, -1]

        def take(number: int, rows: torch.Tensor) -> None:
            if rows is not last[0]:
                last[:] = rows, number
                inputs = rows.to(getattr(torch, self.precision))
                if number not in products:
                    products[number] = inputs.new_zeros(inputs.shape[1], inputs.shape[1])
                products[number].addmm_(inputs.T, inputs)
            source[number] = last[1]

        visit_inputs(model, context.calibration, [group.parts[0].module for group in groups], take)
        questions = sum(len(batch.ids) for batch in context.calibration.batches())
        factors: dict[int, Factor] = {}
        for number in sorted(products):
            factor = factorised(products.pop(number) * (2 / questions), self.dampening)
            if factor is None:
                raise ValueError(
                    f"pruner.criterion.dampening={self.dampening}: is too small to invert what the questions say of "
                    f"{groups[number].name}. Raise it to 0.1, or choose pruner.criterion.precision=float64."
                )
            factors[number] = factor
        return [factors[source[number]] for number in range(len(groups))]


def factorised(hessian: torch.Tensor, dampening: float) -> Factor | None:
    """U of H, (inputs, inputs), which is changed; None if H is not positive definite in this precision."""
    import torch

    diagonal = hessian.diagonal()
    dead = diagonal == 0
    diagonal[dead] = 1
    diagonal += dampening * diagonal.mean()
    lower, failed = torch.linalg.cholesky_ex(hessian)
    if failed:
        return None
    upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
    return None if failed else Factor(upper, dead)


def solve(
    weight: torch.Tensor, gone: torch.Tensor, stays: torch.Tensor, factor: Factor, structure: Masked, block_size: int
) -> torch.Tensor:
    """Prune one matrix, in place.

    Args:
        weight: (outputs, inputs).
        gone: (outputs, inputs) bool; what is zero already, and stays it.
        stays: (outputs, inputs) bool; as many stay as of these, of each output where the structure says so.
        factor: What the questions say of it.
        structure: Chooses what stays among some columns.
        block_size: Columns whose weights are chosen together; rounded up to whole strips of the structure's pattern.

    Returns:
        (outputs, inputs) bool, which stay.
    """
    import torch

    def number(mask: torch.Tensor) -> torch.Tensor:
        """Of the whole, (1,), or of each output, (outputs,)."""
        return (mask if structure.by_output else mask.reshape(1, -1)).sum(dim=1)

    keep = torch.ones_like(gone)
    columns = weight.shape[1]
    strip = structure.strip_width or block_size
    size = -(-block_size // strip) * strip
    lost, later = number(~stays), number(gone)
    so_far = torch.zeros_like(lost)
    for start in range(0, columns, size):
        block = slice(start, min(start + size, columns))
        already = number(gone[:, block])
        later = later - already
        share = torch.maximum(already, torch.minimum(lost * block.stop // columns - so_far, lost - so_far - later))
        so_far = so_far + share
        upper = factor.upper[block, block]
        now = weight[:, block].clone()
        errors = torch.zeros_like(now)
        for column in range(now.shape[1]):
            if column % strip == 0:
                part = slice(column, min(column + strip, now.shape[1]))
                within = slice(start + part.start, start + part.stop)
                scores = factor.scores(now[:, part], within.start).masked_fill_(gone[:, within], float("-inf"))
                goes = share * scores.shape[1] // now.shape[1]
                if structure.by_output:
                    keep[:, within] = without_lowest_of_each(scores, goes)
                else:
                    keep[:, within] = structure.choose(scores, scores.numel() - int(goes))
            error = now[:, column].masked_fill(keep[:, start + column], 0) / upper[column, column]
            now[:, column:].addr_(error, upper[column, column:], alpha=-1)
            errors[:, column] = error
        weight[:, block] = now
        weight[:, block.stop :].addmm_(errors, factor.upper[block, block.stop :], alpha=-1)
    weight.masked_fill_(~keep, 0)
    return keep
