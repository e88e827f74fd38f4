"""Which of a model's weights are trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from regraft.interfaces import LanguageModel

if TYPE_CHECKING:
    from regraft.recovery.training import Training


def restrict(student: LanguageModel, training: Training) -> Callable[[], None]:
    """Put adapters in, or freeze what stays as it is, in place; only the rest is trained from now on.

    Returns:
        What undoes it: adapters are merged, and every weight can be trained again.
    """
    if training.lora is not None:
        return training.lora.attach(student)
    frozen = [each for each in _frozen(student, training) if each.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)

    def undo() -> None:
        for parameter in frozen:
            parameter.requires_grad_(True)

    return undo


def _frozen(student: LanguageModel, training: Training) -> list[Any]:
    from torch import nn

    held: list[Any] = []
    if "embeddings" in training.frozen:
        held += [module for module in student.model.modules() if isinstance(module, nn.Embedding)]
    if "head" in training.frozen:
        held.append(student.model.get_output_embeddings())
    return [parameter for module in held for parameter in module.parameters()]
