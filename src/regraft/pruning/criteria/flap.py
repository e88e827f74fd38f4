"""How much a unit fluctuates, and its mean made up for by a bias: FLAP (An et al. 2023, arXiv 2312.11983).

    s_j = sum over columns c of j of Var(x_c) ||W[:, c]||^2                      metric: wifv (equation 5)
    s_j = sum over columns c of j of Var(x_c)                                    metric: ifv
    s_j = sum over columns c of j of sum over i of |W[i, c]| ||x_c||_2           metric: wifn
    bias <- bias + sum over removed c of mean(x_c) W[:, c]                       (equation 6)

Var is the sample variance, mean and norm are over all tokens of the calibration questions. The scores of a layer are to
be standardised before layers are compared: pruner/allocation=standardised. (Its code squares the scores of heads once
more before it adds their channels; the paper does not.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from regraft.interfaces import Criterion, Group, Kind, LanguageModel, Part, PruningContext, PruningNeed, Structure
from regraft.pruning.activations import Statistics, columns, input_statistics, of_units

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class FLAP(Criterion):
    """Units that say always the same go first, and what they say on average stays as a bias."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"neurons", "heads"})

    metric: Literal["wifv", "ifv", "wifn"] = "wifv"
    """Weighted variance, variance, or weighted norm of what the unit says."""
    compensate: bool = True
    """Whether the mean of what goes is added to the bias of the map that read it. One that has none gets one, and the
    model's config says so where it can (`mlp_bias`, `attention_bias` of Llama)."""

    @property
    def needs(self) -> frozenset[PruningNeed]:
        return frozenset({"calibration"})

    def scores(self, model: LanguageModel, structure: Structure, context: PruningContext) -> list[torch.Tensor]:
        import torch

        groups = structure.groups(model.model)
        modules = [part.module for group in groups for part in group.readers]
        statistics = iter(input_statistics(model, context.calibration, modules))
        return [
            torch.stack([self._metric(part, next(statistics)) for part in group.readers]).sum(dim=0) for group in groups
        ]

    def _metric(self, part: Part, statistics: Statistics) -> torch.Tensor:
        """(units,)"""
        import torch

        order = 1 if self.metric == "wifn" else 2
        sizes = torch.linalg.vector_norm(columns(part), ord=order, dim=2, dtype=torch.float64)
        if self.metric == "wifn":
            return (of_units(part, statistics.norm) * sizes).sum(dim=1)
        variance = of_units(part, statistics.variance)
        return (variance * sizes**2 if self.metric == "wifv" else variance).sum(dim=1)

    def adjust(
        self, model: LanguageModel, structure: Structure, keep: list[torch.Tensor], context: PruningContext
    ) -> list[torch.Tensor]:
        import torch

        from regraft.models.surgery import give_biases

        groups = structure.groups(model.model)
        modules = self.biased(groups, keep)
        if not modules:
            return keep
        readers = _readers_that_lose(groups, keep)
        statistics = input_statistics(model, context.calibration, modules)
        give_biases(model.model, modules)
        for (part, kept), seen in zip(readers, statistics, strict=True):
            gone = ~kept.to(seen.mean.device)
            means, weights = of_units(part, seen.mean)[gone], columns(part)[gone].double()
            bias = part.module.bias
            assert isinstance(bias, torch.nn.Parameter)
            with torch.no_grad():
                bias.add_(torch.einsum("uw,uwo->o", means, weights))
        return keep

    def biased(self, groups: Sequence[Group], keep: Sequence[torch.Tensor]) -> list[nn.Module]:
        return [part.module for part, _ in _readers_that_lose(groups, keep)] if self.compensate else []


def _readers_that_lose(groups: Sequence[Group], keep: Sequence[torch.Tensor]) -> list[tuple[Part, torch.Tensor]]:
    """The linear maps that read units of which some go, with (units,) bool of which stay."""
    return [(part, kept) for group, kept in zip(groups, keep, strict=True) if not kept.all() for part in group.readers]
