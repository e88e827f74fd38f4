"""Log-likelihoods of answers: the question is read once, every choice behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from regraft.interfaces import EncodedQuestion

if TYPE_CHECKING:
    import numpy
    from transformers import PreTrainedModel


def score_questions(
    model: PreTrainedModel, encoded: Sequence[EncodedQuestion], batch_size: int, pad_token_id: int
) -> numpy.ndarray:
    """Summed log-likelihood (nats) of each choice of each question.

    Args:
        model: In evaluation mode.
        encoded: The questions.
        batch_size: Questions a forward pass; batches hold questions of similar length.
        pad_token_id: Fills up the rows.

    Returns:
        (questions, most choices) float64, in the given order; -inf where a question has fewer choices.
    """
    import numpy
    import torch

    from regraft.models.forward import forward
    from regraft.models.likelihood import option_scores
    from regraft.tasks.packing import move, pack

    scores = numpy.full((len(encoded), max(len(question.choices) for question in encoded)), -numpy.inf)
    order = sorted(range(len(encoded)), key=lambda index: -encoded[index].length)
    with torch.no_grad():
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            questions = [encoded[row] for row in rows]
            batch = move(
                pack(questions, "choices", "answer", pad_token_id, labelled=False),
                model.device,
            )
            found = option_scores(forward(model, batch), batch).cpu().double().numpy()
            question = numpy.array(rows)[batch.option_question.cpu().numpy()]
            scores[question, batch.option_choice.cpu().numpy()] = found
    return scores


def per_character(scores: numpy.ndarray, encoded: Sequence[EncodedQuestion]) -> numpy.ndarray:
    """Scores divided by the length of each choice's text in characters."""
    normalised = scores.copy()
    for row, question in enumerate(encoded):
        normalised[row, : len(question.characters)] /= question.characters
    return normalised
