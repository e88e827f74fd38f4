"""How long a token takes, measured."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WARM_UP = 3
"""Tokens that are written before the first that counts."""


def milliseconds_per_token(model: PreTrainedModel, context: int, repeats: int = 15) -> float:
    """The median time of one token of a text: batch 1, keys and values of what stands before it in the cache.

    Args:
        model: On the device on which it is measured, in the dtype in which it computes.
        context: Tokens that stand before it, of which the model's longest text may cut some off; each token after the
            first has one more.
        repeats: How many are timed.
    """
    import torch

    device = model.device
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None) or context + WARM_UP + repeats
    before = max(min(context, longest - WARM_UP - repeats), 1)
    tokens = torch.zeros(1, before, dtype=torch.long, device=device)
    training = model.training
    model.eval()
    seconds = []
    try:
        with torch.no_grad():
            cache = model(input_ids=tokens, use_cache=True).past_key_values
            for number in range(WARM_UP + repeats):
                started = time.perf_counter()
                model(input_ids=tokens[:, :1], past_key_values=cache, use_cache=True)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                if number >= WARM_UP:
                    seconds.append(time.perf_counter() - started)
    finally:
        model.train(training)
    return 1000 * statistics.median(seconds)
