"""How likely a model holds the choices that a batch packs: what evaluation reports, and what losses compare."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regraft.interfaces import Batch, ModelOutputs

if TYPE_CHECKING:
    import torch

POSITIONS = 256
"""Whose logits over the vocabulary are made at once."""


def option_scores(outputs: ModelOutputs, batch: Batch) -> torch.Tensor:
    """Summed log-likelihood (nats) of each packed choice: (options,) float32."""
    import torch

    scores = torch.zeros(len(batch.option_question), device=batch.read.device)
    for start in range(0, len(batch.read), POSITIONS):
        end = min(start + POSITIONS, len(batch.read))
        logits = outputs.logits_at(slice(start, end))
        log_z = torch.logsumexp(logits.float(), dim=-1)
        here = (batch.token_read >= start) & (batch.token_read < end)
        at = batch.token_read[here] - start
        log_p = logits[at, batch.token_id[here]].float() - log_z[at]
        scores = scores.index_add(0, batch.token_option[here], log_p)
    return scores
