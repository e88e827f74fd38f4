"""A criterion that makes the run of one seed fail, in the ways in which runs fail."""

from __future__ import annotations

import logging
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from regraft.interfaces import Criterion, LanguageModel, PruningContext, Structure

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Faulty(Criterion):
    """Scores by number; at the seed `at` the fault happens."""

    uses_seed: ClassVar[bool] = True

    fault: Literal["not_a_number", "exception", "memory", "killed", "killed_once", "secret"]
    at: int = 0
    every: int = 10
    """Seeds `at`, `at + every`, ... fail."""

    def scores(self, model: LanguageModel, structure: Structure, context: PruningContext) -> list[torch.Tensor]:
        import torch

        if context.generator.initial_seed() % self.every == self.at:
            self._fail(model)
        return [torch.arange(float(units)) for units in structure.units(model.model)]

    def _fail(self, model: LanguageModel) -> None:
        import torch

        if self.fault == "exception":
            raise KeyError("the seventh layer\nof nine")
        if self.fault == "secret":
            told = f"the hub refuses {os.environ['HF_TOKEN']} at https://someone:{os.environ['PASSWORD']}@hub/model"
            logging.getLogger(__name__).warning("%s", told)
            raise OSError(told)
        if self.fault == "memory":
            torch.empty(2**50)
        if self.fault == "not_a_number":
            next(model.model.parameters()).data.fill_(float("nan"))
        if self.fault == "killed" or (self.fault == "killed_once" and not os.path.exists("killed")):
            with open("killed", "w", encoding="ascii"):
                os.kill(os.getpid(), signal.SIGKILL)
