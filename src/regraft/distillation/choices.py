"""The choices of a question as one distribution: what a model holds of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch.nn.functional import cross_entropy

from regraft.distillation.vocabulary import summed
from regraft.interfaces import Batch, ModelOutputs
from regraft.models.likelihood import option_scores

Normalisation = Literal["sum", "character"]
"""How the score of a choice is formed: the sum of its tokens' log-likelihoods, or that divided by its characters."""


def preferred(outputs: ModelOutputs, batch: Batch, normalisation: Normalisation) -> torch.Tensor:
    """(batch,) long; the choice of each question that scores highest, the first among equals."""
    return _table(option_scores(outputs, batch), batch, normalisation).argmax(dim=1)


def scores(outputs: ModelOutputs, batch: Batch, normalisation: Normalisation) -> torch.Tensor:
    """(batch, most choices) float32, without graph; -inf where a question has fewer choices."""
    with torch.no_grad():
        return _table(option_scores(outputs, batch), batch, normalisation)


def summed_over_questions(
    student: ModelOutputs,
    batch: Batch,
    normalisation: Normalisation,
    per_question: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """(): the sum over questions of what `per_question` makes of the student's scores, in float32.

    The gradient of a function of scores is a weighted sum of those of the tokens' log-likelihoods. The weights are
    found first, without graph, so that no logits are kept. Logits that are at hand give a plain graph.

    Args:
        student: With graph.
        batch: What was read, with every choice.
        normalisation: Of the scores.
        per_question: (batch, most choices) scores, as `scores` gives them, to (batch,) values.
    """
    if not student.lazy:
        return per_question(_table(option_scores(student, batch), batch, normalisation)).sum()
    with torch.no_grad():
        found = option_scores(student, batch)
    with torch.enable_grad():
        found.requires_grad_()
        value = per_question(_table(found, batch, normalisation)).sum()
        (slope,) = torch.autograd.grad(value, found)
    weight = slope[batch.token_option]
    along = summed(
        student,
        lambda z, part: -weight[part] * cross_entropy(z, batch.token_id[part], reduction="none"),
        batch.token_read,
    )
    # the value is known, the gradient is that of the weighted sum
    return value.detach() + along - along.detach()


def _table(found: torch.Tensor, batch: Batch, normalisation: Normalisation) -> torch.Tensor:
    """(options,) scores by question and choice: (batch, most choices)."""
    if normalisation == "character":
        found = found / batch.option_characters
    table = found.new_full((len(batch.ids), int(batch.option_choice.max()) + 1), -torch.inf)
    return table.index_put((batch.option_question, batch.option_choice), found)
