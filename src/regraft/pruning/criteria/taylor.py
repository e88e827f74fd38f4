"""What a unit's removal would change the loss by, to first or second order.

    s_j = | sum over w of j of (g w - 1/2 h w^2) |         grouping: vector
    s_j = sum over w of j of | g w - 1/2 h w^2 |           grouping: element

with g the gradient of the mean loss over the calibration questions and, with order 2, h = E over batches of g_batch^2,
the diagonal of the Fisher information; with order 1 without it. First order: Molchanov et al. 2019 (arXiv 1906.10771).
Second order and the names of the groupings: LLM-Pruner (Ma et al. 2023, arXiv 2305.11627, section 3.2; `param_mix` of
its code), which estimates h from one text at a time: calibration.batch_size=1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from regraft.interfaces import Criterion, Group, LanguageModel, Loss, PruningContext, PruningNeed, Structure
from regraft.pruning.gradients import backward, checked, differentiated, needed, wide
from regraft.pruning.spread import parameters

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Taylor(Criterion):
    """Units without which the loss would change least go first."""

    loss: Loss
    """Whose change counts; cross-entropy on labels in the papers."""
    grouping: Literal["vector", "element"] = "element"
    """`vector`: what a unit's weights change is added before its size counts; `element`: the size of each counts."""
    order: Literal[1, 2] = 1
    """Of the expansion. The second holds two more numbers for each weight."""

    @property
    def needs(self) -> frozenset[PruningNeed]:
        return needed(self.loss)

    def scores(self, model: LanguageModel, structure: Structure, context: PruningContext) -> list[torch.Tensor]:
        groups = structure.groups(model.model)
        with differentiated(model, parameters(groups)):
            gradients, curvatures = self._derivatives(model, groups, context)
            scores = [self._score(group, gradients, curvatures) for group in groups]
        return checked(scores, self, "A model has no KL to itself: choose another pruner.criterion.loss, or kl_taylor.")

    def _derivatives(
        self, model: LanguageModel, groups: Sequence[Group], context: PruningContext
    ) -> tuple[dict[int, torch.Tensor], dict[int, torch.Tensor]]:
        """The gradient g and the curvature h of each parameter, by its id; with order 1 no h."""
        import torch

        matrices = {id(parameter): parameter for parameter in parameters(groups)}
        sums: dict[int, torch.Tensor] = {}
        squares: dict[int, torch.Tensor] = {}
        total = batches = 0
        for count in backward(model, context.calibration, self.loss):
            total, batches = total + count, batches + 1
            if self.order == 1:
                continue
            for key, parameter in matrices.items():
                gradient = parameter.grad
                assert gradient is not None
                squares.setdefault(key, torch.zeros_like(gradient)).addcmul_(gradient, gradient, value=1 / count**2)
                sums[key] = sums[key].add_(gradient) if key in sums else gradient
                parameter.grad = None
        for key, parameter in matrices.items():
            gradient = sums.get(key, parameter.grad)
            assert gradient is not None
            sums[key] = gradient.div_(total)
        return sums, {key: square.div_(batches) for key, square in squares.items()}

    def _score(
        self, group: Group, gradients: dict[int, torch.Tensor], curvatures: dict[int, torch.Tensor]
    ) -> torch.Tensor:
        import torch

        slopes = _gathered(group, gradients)
        bends = _gathered(group, curvatures) if curvatures else {}
        each = []
        for name, owned_weights in group.weights().items():
            weight = wide(owned_weights)
            change = wide(slopes[name]) * weight
            if bends:
                change = change - 0.5 * wide(bends[name]) * weight**2
            each.append((change.abs() if self.grouping == "element" else change).sum(dim=1, dtype=torch.float64))
        return torch.stack(each).sum(dim=0).abs()


def _gathered(group: Group, derivatives: dict[int, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As `Group.gradients`, of derivatives by the id of the parameter."""
    for part in group.parts:
        part.parameter.grad = derivatives.get(id(part.parameter))
    return group.gradients()
