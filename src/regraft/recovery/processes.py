"""Several processes that train one model together, each on its share of every step's questions.

`torchrun --nproc-per-node N -m regraft ...` starts them, on the GPUs of one machine or of many. Each holds the whole
model and gradients are averaged (DDP), or weights, gradients and moments are divided among them (FSDP). A step is that
of one process: the sum over all questions, divided by what counts in all of them.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.tensor import DTensor, distribute_tensor

from regraft.config.ranges import ConfigError
from regraft.interfaces import Batch, LossNeed
from regraft.models.architecture import decoder_layers
from regraft.models.forward import forward

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PATIENCE = datetime.timedelta(hours=12)
"""How long processes wait for the first, which alone prunes and evaluates."""


class Forward(torch.nn.Module):
    """The forward pass of a packed batch as a module's, so that gradients can be shared when it is through."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, needs: frozenset[LossNeed] = frozenset()) -> dict[str, Any]:
        """Plain data, in which both ways of sharing find the tensors."""
        return forward(self.model, batch, needs).parts()


class Processes:
    """All processes of this run: one, unless several were started together.

    Args:
        device: Where this run computes; with several GPUs each process takes its own.
        count: How many were started together; with 1 nothing is shared.
        shard: Whether the trained model is divided among them.
    """

    def __init__(self, device: torch.device, count: int = 1, shard: bool = False) -> None:
        self.count = count
        self.rank, self.device, self.shard = 0, device, shard and self.count > 1
        if self.count > 1:
            from accelerate import Accelerator, InitProcessGroupKwargs

            for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM"):
                if os.environ.get(name, "false").lower() == "true":
                    raise ConfigError(
                        f"{name}=true: must not be set. Start the processes with torchrun, or with accelerate launch "
                        "without a plugin; runtime.shard=true divides the model among them."
                    )
            self._accelerator = Accelerator(
                cpu=device.type == "cpu",
                mixed_precision="no",  # `recovery.precision` decides
                kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
            )
            self.rank, self.device = self._accelerator.process_index, self._accelerator.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def wrapped(self, model: PreTrainedModel) -> torch.nn.Module:
        """A module that takes a batch, gives `ModelOutputs` as a dict, and shares what flows back.

        Args:
            model: Changed in place if it is sharded: its parameters are then `DTensor`.
        """
        module = Forward(model)
        if self.count == 1:
            return module
        if not self.shard:
            prepared: torch.nn.Module = self._accelerator.prepare_model(module)
            return prepared
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self.device.type, (self.count,))
        for layer in decoder_layers(model):
            fully_shard(layer, mesh=mesh)
        fully_shard(module, mesh=mesh)
        return module

    def reaching(self, total: torch.Tensor, model: torch.nn.Module) -> torch.Tensor:
        """`total`, with a gradient for every trained parameter: where the loss reaches none, 0.

        Processes that each hold the whole model wait for the gradient of each parameter.
        """
        if self.count == 1 or self.shard:
            return total
        nothing = [parameter.flatten()[:0].sum() for parameter in model.parameters() if parameter.requires_grad]
        return total + torch.stack(nothing).sum()

    def accumulating(self, module: torch.nn.Module, more: bool) -> AbstractContextManager[Any]:
        """While the block runs gradients stay here, if `more` of the same step follows."""
        if self.count == 1:
            return contextlib.nullcontext()
        if self.shard:
            return self._sharded_accumulating(module, more)
        return module.no_sync() if more else contextlib.nullcontext()  # type: ignore[operator]

    @staticmethod
    @contextlib.contextmanager
    def _sharded_accumulating(module: Any, more: bool) -> Iterator[None]:
        module.set_requires_gradient_sync(not more)
        yield

    def sum(self, *numbers: float) -> list[float]:
        """Each number, summed over all processes."""
        if self.count == 1:
            return list(numbers)
        tensor = torch.tensor(numbers, dtype=torch.float64)
        reduced: torch.Tensor = self._accelerator.reduce(tensor.to(self.device), reduction="sum")
        return reduced.tolist()

    def from_first(self, value: bool) -> bool:
        """What the first process says."""
        return bool(self.sum(float(value) if self.is_first else 0.0)[0])


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor of which this process may hold a shard; every process must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """`value`, divided among the processes as `tensor` is."""
    if not isinstance(tensor, DTensor):
        return value
    return distribute_tensor(value.to(tensor.device), tensor.device_mesh, tensor.placements)
