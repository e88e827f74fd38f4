"""How a model answers as a teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from regraft.interfaces import Batch, LanguageModel, ModelOutputs

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def answers_of(teacher: LanguageModel, student: LanguageModel, name: str) -> Callable[[Batch], ModelOutputs]:
    """Forward passes of `teacher` without graph, on the device of `student`.

    Raises:
        ValueError: The two give their tokens different numbers, or different numbers of tokens.
    """
    import torch

    from regraft.models.forward import forward

    theirs, ours = _vocabulary(teacher.model), _vocabulary(student.model)
    if theirs != ours or teacher.tokenizer.get_vocab() != student.tokenizer.get_vocab():
        raise ValueError(
            f"teacher={name}: its vocabulary ({theirs} logits, {len(teacher.tokenizer)} tokens) must be the student's "
            f"({ours} logits, {len(student.tokenizer)} tokens). Choose a teacher of the same family, or teacher=dense."
        )
    model = teacher.model.to(student.model.device).eval()  # type: ignore[arg-type]

    def answer(batch: Batch) -> ModelOutputs:
        with torch.no_grad():
            return forward(model, batch)

    return answer


def _vocabulary(model: PreTrainedModel) -> int:
    head = model.get_output_embeddings()
    assert head is not None
    return int(head.weight.shape[0])
