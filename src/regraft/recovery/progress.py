"""What continues an interrupted training: weights, optimizer, course of the learning rate, random numbers, and its log.

One file of safetensors, written aside and renamed. The last one of a training holds its weights only: then what follows
it, such as an evaluation, goes on without training again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Spent:
    """What a training has read and computed so far, as `regraft.models.cost` counts it."""

    tokens: int = 0
    """That the student has read, padding not counted."""
    teacher_tokens: int = 0
    """That were read without learning: by teachers, and while texts were written."""
    flops: int = 0
    """The student's, backward passes included."""
    teacher_flops: int = 0

    def and_more(self, tokens: int, teacher_tokens: int, flops: int, teacher_flops: int) -> Spent:
        return Spent(
            self.tokens + tokens,
            self.teacher_tokens + teacher_tokens,
            self.flops + flops,
            self.teacher_flops + teacher_flops,
        )


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Everything that continues a training from where it was taken."""

    step: int
    examples: int
    model: dict[str, torch.Tensor]
    """Each parameter and kept buffer once, by name."""
    optimizer: dict[str, Any]
    """Its state_dict; empty after the last step, when it is not needed any more."""
    rates: dict[str, Any]
    random: torch.Tensor
    """State of torch's generator on the CPU."""
    masks: dict[str, torch.Tensor] = field(default_factory=dict)
    """As in the student: which weights are kept."""
    teacher: dict[str, torch.Tensor] = field(default_factory=dict)
    """Of a teacher that follows the student; empty after the last step."""
    spent: Spent = Spent()


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What is kept of a training: its state, the numbers of its steps so far, and the seconds that they took."""

    state: TrainingState
    lines: list[dict[str, float]]
    seconds: float


@dataclass(frozen=True)
class Progress:
    """Where the progress of one training is kept.

    Args:
        path: The file; it need not exist.
        key: Names the training: a file of another one is not continued.
        every: Optimizer steps between two writes; None writes at the end of the training and when it is stopped.
    """

    path: Path
    key: str
    every: int | None

    def due(self, step: int) -> bool:
        return self.every is not None and step % self.every == 0

    def save(self, kept: Kept) -> None:
        """Write it.

        What cannot be written is told, and the training goes on: it can still be done in one go.
        """
        state = kept.state
        tensors = {f"model.{name}": tensor.detach().contiguous() for name, tensor in state.model.items()}
        tensors |= {f"mask.{name}": mask for name, mask in state.masks.items()}
        tensors |= {f"teacher.{name}": tensor.detach().contiguous() for name, tensor in state.teacher.items()}
        tensors["random"] = state.random
        plain: dict[str, Any] = {"groups": state.optimizer.get("param_groups", []), "state": {}}
        for number, values in state.optimizer.get("state", {}).items():
            plain["state"][number] = {name: value for name, value in values.items() if not torch.is_tensor(value)}
            for name, value in values.items():
                if torch.is_tensor(value):
                    tensors[f"optimizer.{number}.{name}"] = value.contiguous()
        about = {
            "key": self.key,
            "step": state.step,
            "examples": state.examples,
            "spent": asdict(state.spent),
            "optimizer": plain,
            "rates": state.rates,
            "lines": kept.lines,
            "seconds": kept.seconds,
            "digest": _digest(tensors),
        }
        aside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, aside, metadata={"about": json.dumps(about)})
            os.replace(aside, self.path)
        except (OSError, SafetensorError) as error:
            log.warning("%s: the progress of the training cannot be kept (%s); it goes on without", self.path, error)
        finally:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)

    def load(self) -> Kept | None:
        """What was saved last; None if there is nothing, or (told) nothing that this training can go on from."""
        if not self.path.is_file():
            return None
        try:
            with safe_open(self.path, framework="pt") as opened:
                about = json.loads((opened.metadata() or {})["about"])
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            if about["key"] != self.key:
                raise ValueError(f"it is of another training, {about['key']}")
            if about["digest"] != _digest(tensors):
                raise ValueError("its content is not what was written")
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            log.warning("%s: this progress cannot be continued (%s); the training starts again", self.path, error)
            return None
        optimizer: dict[str, Any] = {}
        if about["optimizer"]["groups"]:
            moments = {int(number): dict(values) for number, values in about["optimizer"]["state"].items()}
            for name, tensor in tensors.items():
                if name.startswith("optimizer."):
                    _, number, field = name.split(".", 2)
                    moments[int(number)][field] = tensor
            optimizer = {"state": moments, "param_groups": about["optimizer"]["groups"]}
        model = _under("model.", tensors)
        state = TrainingState(
            step=about["step"],
            examples=about["examples"],
            spent=Spent(**about.get("spent", {})),
            model=model,
            optimizer=optimizer,
            rates=about["rates"],
            random=tensors["random"],
            masks=_under("mask.", tensors),
            teacher=_under("teacher.", tensors),
        )
        return Kept(state=state, lines=about["lines"], seconds=about["seconds"])


def _under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    hashed = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        hashed.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        hashed.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return hashed.hexdigest()
