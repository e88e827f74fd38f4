"""How one model answers as a teacher."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from regraft.interfaces import Answers, Batch, LanguageModel, LossNeed, ModelOutputs, Teacher, TeacherContext

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class OneModel(Teacher):
    """A teacher that is one model."""

    writes = True

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

        Heads may differ in how far they are padded beyond the tokens.

        Raises:
            ValueError: Teacher and student give their tokens different numbers, or a head has too few logits for them.
        """
        teacher, student = self.load(context), context.student
        theirs, ours = _logits(teacher.model), _logits(student.model)
        same = teacher.tokenizer.get_vocab() == student.tokenizer.get_vocab()
        if not same or min(theirs, ours) < student.vocabulary:
            raise ValueError(
                f"teacher={self.model_name()}: its vocabulary ({theirs} logits, {len(teacher.tokenizer)} tokens) must "
                f"be the student's ({ours} logits, {len(student.tokenizer)} tokens), but for logits beyond the last "
                "token. Choose a teacher of the same family, or teacher=dense."
            )
        teacher.model.to(student.model.device).eval()  # type: ignore[arg-type]
        return teacher

    def writer(self, context: TeacherContext) -> LanguageModel:
        return self.checked(context)

    def build(self, context: TeacherContext) -> Answers:
        model = self.checked(context).model
        context.report({"parameters": model.num_parameters()})
        return Live(model, context.needs, context.student.vocabulary)


class Live(Answers):
    """A model in memory.

    Args:
        model: On the student's device.
        needs: What is asked for besides logits.
        vocabulary: Logits that mean a token, to which the answers are cut. None: all do.
    """

    def __init__(
        self, model: PreTrainedModel, needs: frozenset[LossNeed] = frozenset(), vocabulary: int | None = None
    ) -> None:
        self.model, self.needs, self.vocabulary = model, needs, vocabulary

    def __call__(self, batch: Batch) -> ModelOutputs:
        import torch

        from regraft.models.forward import forward

        with torch.no_grad():
            said = forward(self.model, batch, self.needs)
        return said if self.vocabulary is None else said.within(self.vocabulary)


def _logits(model: PreTrainedModel) -> int:
    head = model.get_output_embeddings()
    assert head is not None
    return int(head.weight.shape[0])
