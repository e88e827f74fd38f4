"""How likely a model holds the choices that a batch packs: what evaluation reports, and what losses compare."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regraft.interfaces import Batch, ModelOutputs

if TYPE_CHECKING:
    import torch

CHUNK = 2**22
"""Logits a chunk: 41 positions of a vocabulary of 100,352, in float32 16 MB, of which some six are alive at a time."""


def chunk(vocabulary: int) -> int:
    """Of how many positions logits over a vocabulary of this size are made at once."""
    return max(1, CHUNK // vocabulary)


def at_once(outputs: ModelOutputs) -> int:
    """As `chunk`, for the vocabulary of a model."""
    return chunk(outputs.logits_at(slice(0, 1)).shape[1])


def option_scores(outputs: ModelOutputs, batch: Batch) -> torch.Tensor:
    """Summed log-likelihood (nats) of each packed choice: (options,) float32."""
    import torch

    scores = torch.zeros(len(batch.option_question), device=batch.read.device)
    size = at_once(outputs)
    for start in range(0, len(batch.read), size):
        end = min(start + size, len(batch.read))
        logits = outputs.logits_at(slice(start, end))
        log_z = torch.logsumexp(logits.float(), dim=-1)
        here = (batch.token_read >= start) & (batch.token_read < end)
        at = batch.token_read[here] - start
        log_p = logits[at, batch.token_id[here]].float() - log_z[at]
        scores = scores.index_add(0, batch.token_option[here], log_p)
    return scores
