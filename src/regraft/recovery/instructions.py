"""Prompt-level distillation: the teacher's words become the student's prompt (Badhe and Shah 2026, arXiv 2602.21103).

    prompt* = argmin over prompt in {"", t_1, .., t_m} of
              mean over questions of KL(p_teacher(choice | question) || p_student(choice | prompt, question))

with the texts t of the teacher; nothing is trained. In the paper the teacher, a frontier model, writes an instruction
for each training question with its label; those are clustered, and what contradicts the labels is mended. Here the
teacher is the dense model, which was never taught to follow instructions, so the texts may be solved examples as well;
no label is read; whole texts are drawn, and the best one is chosen, with the empty text among them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from regraft.cache import digest
from regraft.config.ranges import ConfigError, require
from regraft.interfaces import Component, EncodedQuestion, LanguageModel

BETWEEN = "\n\n"
"""Stands behind each example, and behind the instructions."""
REQUEST = "Instructions for answering questions like these:\n"
"""What the teacher goes on from when it writes freely."""


@dataclass(frozen=True, kw_only=True)
class Instructions(Component):
    """Texts that the teacher proposes as the student's prompt."""

    form: Literal["examples", "instructions"] = "examples"
    """`examples`: preparation questions with the choices that the teacher scores highest. `instructions`: what the
    teacher writes behind such examples and a request for instructions."""
    candidates: int = 8
    """Texts to choose from, besides none."""
    examples: int = 4
    """Solved questions in each text; or, for `instructions`, before the request, where there may be none."""
    questions: int = 64
    """Recovery questions that the texts are compared on, the first so many."""
    tokens: int = 48
    """Most tokens of instructions."""
    temperature: float = 1.0
    """Of the teacher while it writes them, above 0."""

    def __post_init__(self) -> None:
        require(self.candidates >= 1, "candidates", self.candidates, "at least 1")
        least = 1 if self.form == "examples" else 0
        require(self.examples >= least, "examples", self.examples, f"at least {least} with form={self.form}")
        require(self.questions >= 1, "questions", self.questions, "at least 1")
        require(self.tokens >= 1, "tokens", self.tokens, "at least 1")
        require(0 < self.temperature < math.inf, "temperature", self.temperature, "a finite number above 0")

    def shown(self, questions: int, seed: int) -> list[list[int]]:
        """For each text the numbers of the preparation questions in it, drawn without repeats.

        Args:
            questions: How many there are.
            seed: Of the run.

        Raises:
            ConfigError: There are too few.
        """
        import numpy

        if self.examples > questions:
            raise ConfigError(
                f"pipeline.instructions.examples={self.examples}: must be at most {questions}, the questions of "
                "preparation, which the examples are taken from. Lower it, or raise task.preparation_size."
            )
        return [
            numpy.random.default_rng(int(digest(["examples", seed, number]), 16))
            .choice(questions, size=self.examples, replace=False)
            .tolist()
            for number in range(self.candidates)
        ]

    def texts(
        self, solved: Sequence[str], tokens: Callable[[str], tuple[int, ...]], teacher: LanguageModel, seed: int
    ) -> list[str]:
        """The texts, none of them twice and none empty.

        Args:
            solved: The examples of each text.
            tokens: Of a text that something is written behind.
            teacher: Who writes instructions, in the precision of the caller.
            seed: Of the run.
        """
        from regraft.recovery.writing import ends, write

        if self.form == "examples":
            return list(dict.fromkeys(solved))
        asked = [
            EncodedQuestion(id=f"instructions/{number}", context=tokens(examples + REQUEST), choices=())
            for number, examples in enumerate(solved)
        ]
        written = write(
            [(teacher, 1.0)],
            asked,
            tokens=self.tokens,
            temperature=self.temperature,
            seed=seed,
            key="pipeline.instructions.tokens",
        )
        last = ends(teacher)
        tokenizer: Any = teacher.tokenizer
        texts = [tokenizer.decode([token for token in one.choices[0] if token not in last]).strip() for one in written]
        return [text + BETWEEN for text in dict.fromkeys(texts) if text]
