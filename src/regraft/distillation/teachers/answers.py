"""How one model answers as a teacher."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from regraft.interfaces import Answers, Batch, LanguageModel, ModelOutputs, Teacher, TeacherContext

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class OneModel(Teacher):
    """A teacher that is one model."""

    @abstractmethod
    def model_name(self) -> str:
        """What it is called in messages."""

    @abstractmethod
    def load(self, context: TeacherContext) -> LanguageModel:
        """The model that teaches."""

    @abstractmethod
    def identity(self, context: TeacherContext) -> Any:
        """Plain data that names its weights."""

    def checked(self, context: TeacherContext) -> LanguageModel:
        """The model that teaches, on the student's device.

        Raises:
            ValueError: Teacher and student give their tokens different numbers, or different numbers of tokens.
        """
        teacher, student = self.load(context), context.student
        theirs, ours = _vocabulary(teacher.model), _vocabulary(student.model)
        if theirs != ours or teacher.tokenizer.get_vocab() != student.tokenizer.get_vocab():
            raise ValueError(
                f"teacher={self.model_name()}: its vocabulary ({theirs} logits, {len(teacher.tokenizer)} tokens) must "
                f"be the student's ({ours} logits, {len(student.tokenizer)} tokens). Choose a teacher of the same "
                "family, or teacher=dense."
            )
        teacher.model.to(student.model.device).eval()  # type: ignore[arg-type]
        return teacher

    def build(self, context: TeacherContext) -> Answers:
        import torch

        from regraft.models.forward import forward

        model = self.checked(context).model
        context.report({"parameters": model.num_parameters()})

        def answer(batch: Batch) -> ModelOutputs:
            with torch.no_grad():
                return forward(model, batch)

        return answer


def _vocabulary(model: PreTrainedModel) -> int:
    head = model.get_output_embeddings()
    assert head is not None
    return int(head.weight.shape[0])
