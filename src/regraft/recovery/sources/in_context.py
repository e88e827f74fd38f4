"""Context distillation: the teacher is shown examples, the student is not (Askell et al. 2021, arXiv 2112.00861).

    L = sum over positions of D(p_teacher(. | examples, question, ...) || p_student(. | question, ...))

so that the student says without the examples what the teacher says with them. With the texts written by the student
(`batches=on_policy` with this as its `data`) it is self-distillation from demonstrations (arXiv 2601.19897).

The examples are the first questions of the preparation split, the same before every question, and no recovery question
is among them. Their answers are the teacher's own unless the right ones are asked for, which are labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from regraft.config.ranges import ConfigError, require
from regraft.interfaces import AnyQuestion, BatchContext, Batches, BatchSource, LabelledQuestion, LanguageModel

Normalisation = Literal["sum", "character"]
BETWEEN = "\n\n"
"""Stands behind each example."""


@dataclass(frozen=True, kw_only=True)
class InContext(Batches):
    """The recovery's questions; for the teacher with examples before each."""

    shots: int = 4
    """Number of examples."""
    answers: Literal["teacher", "gold"] = "teacher"
    """What the examples are answered with: `teacher`, the choice that it scores highest without examples; `gold`, the
    right one, which makes the training a labelled one whatever its loss."""
    normalisation: Normalisation = "sum"
    """How the teacher's score of a choice is formed: the sum of its tokens' log-likelihoods, or that divided by its
    characters. Best the one by which the teacher is evaluated: `evaluation.normalisation`."""

    def __post_init__(self) -> None:
        require(self.shots >= 1, "shots", self.shots, "at least 1")

    @property
    def needs_writer(self) -> bool:
        return self.answers == "teacher"

    @property
    def shows(self) -> int:
        return self.shots

    @property
    def shows_labels(self) -> bool:
        return self.answers == "gold"

    def source(self, context: BatchContext) -> BatchSource:
        from regraft.recovery.sources.shown import Shown

        examples = context.preparation()[: self.shots]
        if len(examples) < self.shots:
            raise ConfigError(
                f"batches.shots={self.shots}: must be at most {len(examples)}, the questions of preparation, which the "
                "examples are taken from. Lower it, or raise task.preparation_size."
            )
        if self.answers == "gold":
            chosen = [question.answer for question in examples if isinstance(question, LabelledQuestion)]
        else:
            chosen = _preferred(context, examples, self.normalisation)
        texts = []
        for question, answer in zip(examples, chosen, strict=True):
            before, choices = context.task.prompt(question)
            texts.append(before + choices[answer] + BETWEEN)
        tokenizer = context.student.tokenizer
        tokens = tuple(tokenizer("".join(texts), verbose=False)["input_ids"])
        if tokens[-1] == tokenizer.eos_token_id:
            tokens = tokens[:-1]
        source = Shown.of(context, context.encode(context.questions), shown=tokens, begins=tokenizer.bos_token_id)
        limit = getattr(context.student.model.config.get_text_config(), "max_position_embeddings", None)
        longest = source.longest()
        if limit is not None and longest > limit:
            raise ConfigError(
                f"batches.shots={self.shots}: with the examples the longest question has {longest} tokens, and the "
                f"model takes {limit}. Lower it."
            )
        context.report({"shown": [question.id for question in examples], "answers": self.answers})
        return source


def _preferred(context: BatchContext, examples: Sequence[AnyQuestion], normalisation: Normalisation) -> list[int]:
    """The choice of each that the teacher scores highest, from the cache."""
    from regraft.recovery.sources.kept import remembered

    asked = [replace(question, answer=None) for question in context.encode(examples)]

    def choose(writer: LanguageModel) -> tuple[dict[str, Any], dict[str, int]]:
        from regraft.models.forward import forward
        from regraft.models.likelihood import option_scores
        from regraft.tasks.packing import move, pack

        batch = pack(asked, "choices", "answer", context.student.pad_token_id, labelled=False)
        batch = move(batch, writer.model.device)
        scores = option_scores(forward(writer.model, batch), batch)
        if normalisation == "character":
            scores = scores / batch.option_characters
        # the choices of a question follow each other in their order
        return {}, {name: int(scores[batch.option_question == row].argmax()) for row, name in enumerate(batch.ids)}

    choices = {question.id: [question.choices, question.characters] for question in asked}
    chosen = remembered(context, asked, {"choices": choices, "normalisation": normalisation}, choose)
    return [chosen[question.id] for question in asked]
