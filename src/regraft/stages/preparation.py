"""How the dense model is made ready before anything is removed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from regraft.config.ranges import require
from regraft.distillation.losses.cross_entropy import CrossEntropy
from regraft.interfaces import Component, Loss
from regraft.recovery.training import Training


class Preparation(Component, ABC):
    """What happens to the dense model first. The result is both what is pruned and the teacher."""

    @property
    @abstractmethod
    def trains(self) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class AsLoaded(Preparation):
    """Take the model as it comes."""

    @property
    def trains(self) -> bool:
        return False


@dataclass(frozen=True, kw_only=True)
class FineTune(Preparation):
    """Fine-tune the dense model on the preparation questions, with labels.

    This makes of a base model what the paper's OLMo2-7B-SFT is, and is Minitron's teacher correction
    (arXiv 2408.11796) where the model's own training data are not at hand.
    """

    training: Training
    """Epochs, learning rate and the like."""
    loss: Loss = CrossEntropy()
    """Labelled loss to minimise."""
    seed: int = 0
    """Order of the questions. Not the run's seed: all runs of a study share one dense model."""

    def __post_init__(self) -> None:
        require("labels" in self.loss.needs, "loss", type(self.loss).__name__, "a loss that needs labels")
        require("teacher_logits" not in self.loss.needs, "loss", type(self.loss).__name__, "a loss without a teacher")

    @property
    def trains(self) -> bool:
        return True
