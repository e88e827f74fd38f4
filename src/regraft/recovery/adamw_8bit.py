"""AdamW whose moments take a byte each (Dettmers et al. 2022, arXiv 2110.02861).

A moment is kept in blocks of 256 numbers, each divided by the largest magnitude of its block (float32) and written as
the nearest of 256 values between -1 and 1 (m), or 0 and 1 (v), that lie denser towards 0 (dynamic tree quantisation):
a run of e zero bits stands for 10^-e, the bits that are left for evenly spaced fractions from 0.1 to 1. In a step a
part of a parameter gets its moments back in float32, takes AdamW's step, and its new moments are written again.
Parameters of fewer than 4096 numbers keep theirs in float32, as in the authors' library.

It differs from theirs in one point: a v that is not 0 is never written as 0. It could otherwise be forgotten while the
m beside it is not, and m / (sqrt(0) + eps) is a leap.

Written in plain torch, so that it runs wherever torch does and its state is kept like any other: bitsandbytes 0.50 and
torchao 0.18 both go through torch.compile on a CPU, which needs a compiler there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

BLOCK = 256
"""Numbers that share a scale."""
SMALL = 4096
"""Parameters of fewer numbers keep their moments in float32."""
PART = 2**20
"""Numbers of a parameter whose moments are in float32 at a time; whole blocks."""
MOMENTS = {"exp_avg": True, "exp_avg_sq": False}
"""Name of each moment -> whether it has a sign."""


def values(signed: bool) -> torch.Tensor:
    """(256,) what a byte means, ascending."""
    bits = 7 if signed else 8
    found = [0.0, 1.0]
    for exponent in range(7):
        ends = torch.linspace(0.1, 1, 2 ** (exponent + bits - 7) + 1, dtype=torch.float64)
        middles = ((ends[1:] + ends[:-1]) / 2 * 10.0 ** (exponent - 6)).tolist()
        found += middles + ([-middle for middle in middles] if signed else [])
    table = torch.tensor(sorted(found), dtype=torch.float32)
    assert len(table) == 256
    return table


class AdamW8bit(torch.optim.Optimizer):
    """AdamW with moments of 8 bits.

    Args:
        groups: Parameters, in float32, with their `weight_decay`.
        lr: Learning rate.
        betas: Decay rates of the moments.
        eps: Added to the root of the second moment.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float = 1e-8
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})
        self._values = {name: values(signed) for name, signed in MOMENTS.items()}
        self._between = {name: (table[1:] + table[:-1]) / 2 for name, table in self._values.items()}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, group)

    def _step(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            self._begin(parameter, state)
        state["step"] += 1
        # of a parameter that does not lie in one piece a copy is changed
        weights, gradients = parameter.reshape(-1), parameter.grad.reshape(-1)  # type: ignore[union-attr]
        self._move(weights, gradients, state, group)
        if not parameter.is_contiguous():
            parameter.copy_(weights.view(parameter.shape))

    def _move(
        self, weights: torch.Tensor, gradients: torch.Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        if "exp_avg_scale" not in state:
            _adamw(weights, gradients, state["exp_avg"].view(-1), state["exp_avg_sq"].view(-1), state["step"], group)
            return
        for part, blocks, width in _parts(len(weights)):
            moments = {name: self._read(state, name, part, blocks, width) for name in MOMENTS}
            _adamw(weights[part], gradients[part], moments["exp_avg"], moments["exp_avg_sq"], state["step"], group)
            for name, moment in moments.items():
                self._write(state, name, moment, part, blocks, width)

    def _begin(self, parameter: torch.Tensor, state: dict[str, Any]) -> None:
        state["step"] = torch.zeros(())
        if parameter.numel() < SMALL:
            state |= {name: torch.zeros_like(parameter, memory_format=torch.contiguous_format) for name in MOMENTS}
            return
        blocks = -(-parameter.numel() // BLOCK)
        for name in MOMENTS:
            state[name] = torch.full(parameter.shape, self._zero(name), dtype=torch.uint8, device=parameter.device)
            state[f"{name}_scale"] = torch.zeros(blocks, device=parameter.device)

    def _zero(self, name: str) -> int:
        """The byte that means 0."""
        return int(self._values[name].abs().argmin())

    def _read(self, state: dict[str, Any], name: str, part: slice, blocks: slice, width: int) -> torch.Tensor:
        codes = state[name].view(-1)[part]
        table = self._values[name] = self._values[name].to(codes.device)
        return (table[codes.int()].view(-1, width) * state[f"{name}_scale"][blocks, None]).view(-1)

    def _write(
        self, state: dict[str, Any], name: str, moment: torch.Tensor, part: slice, blocks: slice, width: int
    ) -> None:
        scale = moment.view(-1, width).abs().amax(dim=1)
        between = self._between[name] = self._between[name].to(moment.device)
        shares = moment.view(-1, width) / scale.clamp_min(torch.finfo(scale.dtype).tiny)[:, None]
        codes = torch.bucketize(shares.view(-1), between, out_int32=True)
        if not MOMENTS[name]:
            codes.clamp_min_((moment > 0).int())
        state[name].view(-1)[part] = codes.to(torch.uint8)
        state[f"{name}_scale"][blocks] = scale

    def forget(self, parameter: torch.Tensor, mask: torch.Tensor) -> None:
        """Set the moments of the weights that `mask` takes to 0."""
        for name in MOMENTS:
            moment = self.state.get(parameter, {}).get(name)
            if moment is not None:
                moment.masked_fill_(~mask, self._zero(name) if moment.dtype == torch.uint8 else 0.0)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As any optimizer; its bytes stay bytes, which torch would turn into the parameters' dtype."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            if "exp_avg_scale" in state:
                state |= {name: state[name].to(torch.uint8) for name in MOMENTS}


def _parts(numbers: int) -> Iterator[tuple[slice, slice, int]]:
    """Where a part lies, where its blocks lie, and the width of its blocks."""
    whole = numbers // BLOCK * BLOCK
    for start in range(0, whole, PART):
        end = min(start + PART, whole)
        yield slice(start, end), slice(start // BLOCK, end // BLOCK), BLOCK
    if whole < numbers:
        yield slice(whole, numbers), slice(whole // BLOCK, None), numbers - whole


def _adamw(
    weights: torch.Tensor,
    gradients: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
    step: torch.Tensor,
    group: dict[str, Any],
) -> None:
    """One step of AdamW (arXiv 1711.05101), in place, on weights and moments alike."""
    (beta_1, beta_2), rate, taken = group["betas"], group["lr"], float(step)
    first.lerp_(gradients, 1 - beta_1)
    second.mul_(beta_2).addcmul_(gradients, gradients, value=1 - beta_2)
    root = second.sqrt().div_(math.sqrt(1 - beta_2**taken)).add_(group["eps"])
    weights.mul_(1 - rate * group["weight_decay"]).addcdiv_(first, root, value=-rate / (1 - beta_1**taken))
