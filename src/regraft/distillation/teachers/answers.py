"""How one model answers as a teacher."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from regraft.config.ranges import ConfigError
from regraft.interfaces import Answers, Batch, LanguageModel, LossNeed, ModelOutputs, Teacher, TeacherContext

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class OneModel(Teacher):
    """A teacher that is one model."""

    writes = True

    precision: Literal["as_stored", "bfloat16"] = "as_stored"
    """Of the teacher's weights in memory. `bfloat16` takes half of what float32 does; a student that equals its teacher
    then sees a KL of rounding and not of 0, which Adam scales up to whole steps."""

    @abstractmethod
    def model_name(self) -> str:
        """What it is called in messages."""

    @abstractmethod
    def load(self, context: TeacherContext) -> LanguageModel:
        """The model that teaches."""

    @abstractmethod
    def identity(self, dense: str, previous: str) -> Any:
        """Plain data that names its weights; arguments as for `writer_identity`."""

    def writer_identity(self, dense: str, previous: str) -> Any:
        return {"weights": self.identity(dense, previous), "precision": self.precision}

    def checked(self, context: TeacherContext) -> LanguageModel:
        """The model that teaches, on the student's device.

        Heads may differ in how far they are padded beyond the tokens.

        Raises:
            ValueError: Teacher and student give their tokens different numbers, or a head has too few logits for them.
            ConfigError: It will be asked about texts that are too long for it.
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
        limit = getattr(teacher.model.config.get_text_config(), "max_position_embeddings", None)
        if limit is not None and context.longest > limit:
            raise ConfigError(
                f"teacher={self.model_name()}: it would read texts of {context.longest} tokens, and takes {limit}. "
                "Choose a teacher that takes longer texts, or shorten them (batches.shots, batches.tokens)."
            )
        if self.precision == "bfloat16":
            _narrow(teacher.model)
        # autocast keeps a copy of each weight that wants a gradient
        teacher.model.requires_grad_(False)
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


def _narrow(model: PreTrainedModel) -> None:
    """Weights in bfloat16. Buffers, such as the frequencies of rotary embeddings, stay as they are."""
    import torch

    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)


def _logits(model: PreTrainedModel) -> int:
    head = model.get_output_embeddings()
    assert head is not None
    return int(head.weight.shape[0])
