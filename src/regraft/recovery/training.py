"""How a model is trained: the hyper-parameters of recovery and of preparation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from regraft.config.ranges import ConfigError, require
from regraft.interfaces import Component
from regraft.recovery.lora import Lora


@dataclass(frozen=True, kw_only=True)
class Training(Component):
    """AdamW with warm-up, decay and clipping over a fixed number of optimizer steps.

    Every loss gets the same questions in the same order for the same number of steps.
    """

    epochs: float = 1.0
    """Passes over the questions."""
    steps: int | None = None
    """Optimizer steps; null takes as many as `epochs` makes."""
    tokens: int | None = None
    """In place of `steps`: as many as read no more than so many tokens, padding not counted; null bounds none."""
    flops: float | None = None
    """In place of `steps`: as many as cost no more than so many floating-point operations, the teacher's included, by
    the formula of `regraft.models.cost`; null bounds none."""
    batch_size: int = 32
    """Questions an optimizer step."""
    accumulation: int = 1
    """Parts that a step's questions are cut into, one forward and backward pass each, to save memory."""
    learning_rate: float = 1e-3
    """Highest learning rate."""
    warmup: float = 0.1
    """Share of the steps in which the learning rate rises from 0."""
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls to 0 after the warm-up, if it does."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates of the moments."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay; norms and biases are left out."""
    max_grad_norm: float | None = 1.0
    """Global L2 norm to which gradients are clipped; null clips nothing."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Autocast of the forward pass. `auto` takes bfloat16 where it pays: on a GPU, and on a CPU with bfloat16
    instructions for models of a hidden size of 256 and more. Weights and optimizer stay in float32."""
    gradient_checkpointing: bool = False
    """Whether activations of the layers are computed again in the backward pass in place of being kept."""
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    """`adamw`, with moments in float32 (8 bytes a trained weight), or `adamw_8bit`, with a byte each (2)."""
    frozen: tuple[Literal["embeddings", "head"], ...] = ()
    """What stays as it is: `embeddings`, the tables of tokens and positions, `head`, the map to logits. Where both are
    one matrix (tied), either freezes both."""
    lora: Lora | None = None
    """Adapters that are trained in place of the weights, and merged at the end; null trains the weights."""

    def __post_init__(self) -> None:
        require(self.epochs > 0 and math.isfinite(self.epochs), "epochs", self.epochs, "above 0")
        require(self.steps is None or self.steps >= 1, "steps", self.steps, "null or at least 1")
        require(self.tokens is None or self.tokens >= 1, "tokens", self.tokens, "null or at least 1")
        flops = self.flops
        require(flops is None or 1 <= flops < math.inf, "flops", flops, "null or a finite number of at least 1")
        ends = [name for name in ("steps", "tokens", "flops") if getattr(self, name) is not None]
        told = " and ".join(f"{name}={getattr(self, name)}" for name in ends[1:])
        if told:
            raise ConfigError(
                f"{ends[0]}={getattr(self, ends[0])}: must be null beside {told}, since one of them ends a training. "
                "Set all but one of them to null."
            )
        require(len(set(self.frozen)) == len(self.frozen), "frozen", list(self.frozen), "a list without repeats")
        require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        fits = 1 <= self.accumulation <= self.batch_size
        require(fits, "accumulation", self.accumulation, f"from 1 to batch_size ({self.batch_size})")
        rate = self.learning_rate
        require(rate > 0 and math.isfinite(rate), "learning_rate", rate, "above 0")
        require(0 <= self.warmup < 1, "warmup", self.warmup, "in [0, 1)")
        require(all(0 <= beta < 1 for beta in self.betas), "betas", list(self.betas), "two numbers in [0, 1)")
        decay = self.weight_decay
        require(0 <= decay < math.inf, "weight_decay", decay, "a finite number of at least 0")
        norm = self.max_grad_norm
        require(norm is None or 0 < norm < math.inf, "max_grad_norm", norm, "null or a finite number above 0")

    @property
    def has_budget(self) -> bool:
        """Whether tokens or FLOPs end it."""
        return self.tokens is not None or self.flops is not None

    @property
    def budget(self) -> tuple[Literal["tokens", "flops"], float]:
        """What ends it, and how much of that there is; where it has a budget."""
        if self.tokens is not None:
            return "tokens", self.tokens
        assert self.flops is not None
        return "flops", self.flops

    def total_steps(self, questions: int) -> int:
        """Optimizer steps over `questions` questions; with a budget, those of all epochs."""
        if self.steps is not None:
            return self.steps
        return max(1, round(self.epochs * math.ceil(questions / self.batch_size)))
