"""What is compared with what: three targets by two spaces, on one text and identical positions.

Over the vocabulary, the mean over positions t of

    gold      - log q_t(y_t)                  y_t the token of the right choice
    teacher   - log q_t(a_t)                  a_t what the teacher says there
    soft      T^2 KL(p_t || q_t)              p_t, q_t = softmax(z_t / T), of teacher and student

Over the choices, the mean over questions of the same three of

    Q = softmax over choices c of s_c         s_c = sum over the tokens of c of log q_t, or that by character

with the right choice, the choice that the teacher scores highest, and T^2 KL(P || Q) with P, Q = softmax(s / T).

Hinton et al. 2015 (arXiv 1503.02531) is `soft`; that the softmax over answers in place of the vocabulary is another
thing to match is what the two spaces are for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from regraft.config.ranges import Incompatible, require
from regraft.interfaces import BEGINNING, Batch, Loss, LossNeed, LossValue, ModelOutputs, Moment, Positions, Reads

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Compare(Loss):
    """One-hot right answer, one-hot teacher or soft teacher; over the vocabulary or over the choices.

    Every cell reads the questions with all their choices, so two cells differ by what their names say and nothing else.
    Known by other names: gold at the right choice is `CrossEntropy(reads=choices)`, teacher at the preferred choice is
    `PseudoLabel`, soft at every choice over the vocabulary is `KL`.
    """

    target: Literal["gold", "teacher", "soft"] = "soft"
    """`gold`: the right answer. `teacher`: the one thing that the teacher holds likeliest. `soft`: all it holds."""
    over: Literal["vocabulary", "choices"] = "choices"
    """What is a distribution: the next token at each position, or the choices of each question by their scores."""
    at: Literal["right_choice", "preferred", "every_choice"] = "every_choice"
    """Whose tokens' positions count. `right_choice`: needs labels, whatever the target. `preferred`: of the choice that
    the teacher scores highest; target `teacher` is then that choice's tokens, elsewhere the likeliest token at each
    position. `every_choice`: the position that all choices share counts once. Over the choices all are compared."""
    normalisation: Literal["sum", "character"] = "sum"
    """How the score of a choice is formed: the sum of its tokens' log-likelihoods, or that divided by its characters.
    Best the one by which models are evaluated: `evaluation.normalisation`."""
    temperature: float = 1.0
    """Softens both distributions of target `soft`; above 0."""

    def __post_init__(self) -> None:
        require(0 < self.temperature < math.inf, "temperature", self.temperature, "a finite number above 0")
        if self.target != "soft" and self.temperature != 1:
            raise Incompatible(
                f"temperature={self.temperature}: must be 1 with target={self.target}, which is one-hot: there is "
                "nothing to soften. Choose temperature=1 or target=soft."
            )
        if self.over == "choices" and self.at != "every_choice":
            raise Incompatible(
                f"at={self.at}: must be every_choice with over=choices, which compares all of them. "
                "Choose at=every_choice or over=vocabulary."
            )
        if self.over == "vocabulary" and self.target == "gold" and self.at != "right_choice":
            raise Incompatible(
                f"at={self.at}: must be right_choice with target=gold over=vocabulary: at the other choices no token "
                "is right. Choose at=right_choice or over=choices."
            )

    @property
    def reads(self) -> Reads:
        return "choices"

    @property
    def positions(self) -> Positions:
        return "answer"

    @property
    def compares_choices(self) -> bool:
        return self.over == "choices" or self.at == "preferred"

    @property
    def rests(self) -> bool:
        return self.target == "soft"

    @property
    def needs(self) -> frozenset[LossNeed]:
        needs: set[LossNeed] = set()
        if self.target == "gold" or self.at == "right_choice":
            needs.add("labels")
        if self.target != "gold":
            needs.add("teacher_logits")
        return frozenset(needs)

    def __call__(
        self, batch: Batch, student: ModelOutputs, teacher: ModelOutputs | None, moment: Moment = BEGINNING
    ) -> LossValue:
        if self.over == "choices":
            return self._over_choices(batch, student, teacher)
        return self._over_vocabulary(batch, student, teacher)

    def _over_choices(self, batch: Batch, student: ModelOutputs, teacher: ModelOutputs | None) -> LossValue:
        from torch.nn.functional import cross_entropy

        from regraft.distillation.choices import scores, summed_over_questions
        from regraft.distillation.losses.divergence import forward_kl

        if self.target == "soft":
            assert teacher is not None
            taught = scores(teacher, batch, self.normalisation)

            def apart(held: torch.Tensor) -> torch.Tensor:
                return self.temperature**2 * forward_kl(held, taught, self.temperature)
        else:
            answer = self._answer(self.target == "gold", batch, teacher)

            def apart(held: torch.Tensor) -> torch.Tensor:
                return cross_entropy(held, answer, reduction="none")

        total = summed_over_questions(student, batch, self.normalisation, apart)
        return LossValue(total=total, count=len(batch.ids))

    def _over_vocabulary(self, batch: Batch, student: ModelOutputs, teacher: ModelOutputs | None) -> LossValue:
        import torch
        from torch.nn.functional import cross_entropy

        from regraft.distillation.losses.cross_entropy import answer_nll, tokens_of
        from regraft.distillation.losses.divergence import forward_kl
        from regraft.distillation.vocabulary import summed

        if self.at == "every_choice":
            rows = torch.arange(len(batch.read), device=batch.read.device)
        else:
            answer = self._answer(self.at == "right_choice", batch, teacher)
            if self.target == "gold" or (self.target == "teacher" and self.at == "preferred"):
                return answer_nll(batch, student, answer)
            rows = batch.token_read[tokens_of(batch, answer)]
        assert teacher is not None

        def apart(z: torch.Tensor, part: slice) -> torch.Tensor:
            taught = teacher.logits_at(rows[part])
            if self.target == "soft":
                return self.temperature**2 * forward_kl(z, taught, self.temperature)
            return cross_entropy(z, taught.argmax(dim=-1), reduction="none")

        return LossValue(total=summed(student, apart, rows), count=len(rows))

    def _answer(self, right: bool, batch: Batch, teacher: ModelOutputs | None) -> torch.Tensor:
        """(batch,) long; the right choice of each question, or the one that the teacher prefers."""
        from regraft.distillation.choices import preferred

        if right:
            assert batch.answer is not None
            return batch.answer
        assert teacher is not None
        return preferred(teacher, batch, self.normalisation)
