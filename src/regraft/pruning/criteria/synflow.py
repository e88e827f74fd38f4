"""Synaptic flow, without data: SynFlow (Tanaka et al. 2020, arXiv 2006.05467, equation 2 and algorithm 1).

R = 1^T |W_L| ... |W_1| 1,   s = |w| * dR/d|w|,   in 100 rounds: after round n a share (1 - sparsity)^(n / 100) is left

The paper's networks are chains of maps and ReLUs. A decoder layer has products, norms and ways past its blocks as well,
so the chain is read thus, all in float64 and with the absolute values of the weights:

- a hidden state h of positive numbers: at first the sum of the embeddings of all tokens; at the end the sum of all
  logits is R. The blocks follow one another, attention and MLP of each layer;
- the ways past the blocks (residual connections) are left out: with them an emptied block only shifts the flow to the
  way past it, and nothing keeps it (measured on a model of 4 layers at 98 % removed: 18 of 28 matrices were emptied);
- norms divide h by its root mean square, which is taken for a constant. Each block reads such an h, also where the
  architecture has its norm behind the block: the flow neither dies nor explodes;
- MLP:        |down| ((|gate| h') * (|up| h)), the activation function being the identity; without gate |down| |up| h;
- attention:  |output| (a * (|value| h)), per head. All positions are alike, so attention takes a mean of equals and its
  weights are 1; a = q.k / constant of the same value, with q = |query| h' and k = |key| h', keeps that;
- h' is h taken for a constant: what multiplies is owed the flow that it lets through, but brings none of its own;
- biases, positions and the scales of norms are left out.

R is linear in each matrix and in h, so what the paper proves holds: the scores of every matrix sum to R. A matrix that
loses weights has more flow in each that is left, and none is emptied while others have many.

The rounds compare all units with one another, as in the paper. What is returned is the order in which they fell, from 0
to 1; `allocation` decides whether layers keep equal shares all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from regraft.config.ranges import require
from regraft.interfaces import Criterion, Group, Kind, LanguageModel, PruningContext, Structure
from regraft.pruning.spread import dense_units, owned_sums, parameters, spread

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from regraft.models.architecture import MLP, Attention, Projection


@dataclass(frozen=True, kw_only=True)
class SynFlow(Criterion):
    """Units through which least flows go first, and the flow is measured anew when some are gone."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"neurons", "weights"})
    reads_sparsity: ClassVar[bool] = True

    rounds: int = 100
    """How often the flow is measured; 1 is one shot."""

    def __post_init__(self) -> None:
        require(self.rounds >= 1, "rounds", self.rounds, "at least 1")

    def scores(self, model: LanguageModel, structure: Structure, context: PruningContext) -> list[torch.Tensor]:
        import torch

        groups = structure.groups(model.model)
        flow = Flow(model.model, parameters(groups))
        sizes = [group.units for group in groups]
        there = structure.there(model)
        left = torch.ones(sum(sizes), dtype=torch.bool) if there is None else torch.cat([m.cpu() for m in there])
        order = torch.zeros(len(left), dtype=torch.float64)
        dense, gone = sum(dense_units(model, structure)), 0
        for number in range(1, self.rounds + 1):
            scores = flow.scores(groups)
            alive = left.nonzero().flatten()
            # in the last round all fall: what stays and what goes is then decided by its scores
            last = number == self.rounds
            stays = 0 if last else round(dense * (1 - context.sparsity) ** (number / self.rounds))
            fall = alive[scores[alive].argsort(stable=True)][: max(len(alive) - stays, 0)]
            order[fall] = torch.arange(gone, gone + len(fall), dtype=torch.float64)
            gone += len(fall)
            left[fall] = False
            for group, mask in zip(groups, left.split(sizes), strict=True):
                for part in group.matrices:
                    flow.mask(part.parameter, spread(part, mask.double().to(part.parameter.device)))
        return list((order / len(order)).split(sizes))


class Flow:
    """The chain of absolute weights of a model.

    Args:
        model: The model, which stays as it is.
        measured: Parameters whose weights are scored.
    """

    def __init__(self, model: PreTrainedModel, measured: list[torch.nn.Parameter]) -> None:
        from regraft.models.architecture import attention_blocks, mlp_blocks

        self._weights = {id(parameter): parameter.detach().double().abs().requires_grad_() for parameter in measured}
        self._layers = list(zip(attention_blocks(model), mlp_blocks(model), strict=True))
        first: Any = model.get_input_embeddings()
        last: Any = model.get_output_embeddings()
        self._begin = first.weight.detach().double().abs().sum(dim=0)
        self._end = last.weight.detach().double().abs().sum(dim=0)

    def scores(self, groups: list[Group]) -> torch.Tensor:
        """(units of all groups,) on the CPU."""
        import torch

        measured = self.measure()
        return torch.cat([owned_sums(group, lambda part: measured[id(part.parameter)]) for group in groups]).cpu()

    def measure(self) -> dict[int, torch.Tensor]:
        """W * dR/dw of each parameter that is measured, by its id."""
        import torch

        flow = self.total()
        weights = list(self._weights.values())
        gradients = torch.autograd.grad(flow, weights, allow_unused=True, materialize_grads=True)
        return {
            number: weight.detach() * gradient
            for number, weight, gradient in zip(self._weights, weights, gradients, strict=True)
        }

    def mask(self, parameter: torch.nn.Parameter, values: torch.Tensor) -> None:
        """Multiply the weights of a measured parameter."""
        self._weights[id(parameter)].detach().mul_(values)

    def total(self) -> torch.Tensor:
        """R, () float64 with graph."""
        hidden = self._begin
        for attention, mlp in self._layers:
            hidden = self._attend(attention, _normed(hidden))
            hidden = self._mix(mlp, _normed(hidden))
        return self._end @ _normed(hidden)

    def _matrix(self, projection: Projection | None) -> torch.Tensor:
        """(out, in), absolute."""
        assert projection is not None
        parameter: Any = projection.module.weight
        known = self._weights.get(id(parameter))
        weight = parameter.detach().double().abs() if known is None else known
        return weight.T if projection.transposed else weight

    def _mix(self, block: MLP, hidden: torch.Tensor) -> torch.Tensor:
        units = self._matrix(block.up) @ hidden
        if block.gate is not None:
            units = units * (self._matrix(block.gate) @ hidden.detach())
        return self._matrix(block.down) @ units

    def _attend(self, block: Attention, hidden: torch.Tensor) -> torch.Tensor:
        import torch

        sizes = [block.heads * block.head_dim, *2 * [block.key_value_heads * block.head_dim]]
        if block.fused is not None:
            maps = self._matrix(block.fused).split(sizes)
        else:
            maps = tuple(self._matrix(each) for each in (block.query, block.key, block.value))
        query, key, value = maps[0] @ hidden.detach(), maps[1] @ hidden.detach(), maps[2] @ hidden
        serves = block.heads // block.key_value_heads
        key, value = (each.view(-1, block.head_dim).repeat_interleave(serves, dim=0) for each in (key, value))
        fits = (query.view(-1, block.head_dim) * key).sum(dim=1)
        # a head whose queries and keys no longer meet lets nothing through
        weight = torch.where(fits > 0, fits / fits.detach().clamp(min=torch.finfo(fits.dtype).tiny), 0 * fits)
        return self._matrix(block.output) @ (weight[:, None] * value).flatten()


def _normed(hidden: torch.Tensor) -> torch.Tensor:
    import torch

    # where nothing flows any more, nothing shall flow: no division of 0 by 0
    return hidden / hidden.detach().square().mean().sqrt().clamp(min=torch.finfo(hidden.dtype).tiny)
