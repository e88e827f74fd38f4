"""How long a token takes, measured; of several models in turn, so that a load on the machine slows them all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WARM_UP = 3
"""Tokens that are written before the first that counts."""


def milliseconds_per_token(model: PreTrainedModel, context: int, repeats: int = 15) -> float:
    """The median time of one token of a text; the arguments are those of `seconds_in_turn`."""
    (seconds,) = seconds_in_turn([model], context, repeats)
    return 1000 * statistics.median(seconds)


def time_beside(model: PreTrainedModel, other: PreTrainedModel, context: int, repeats: int = 15) -> float:
    """How long a token of `model` takes beside one of `other`: the ratio of the fastest of each, timed in turn.

    Whoever shares the cores makes tokens slower, never faster, and for several in a row: two equal models of 2 ms a
    token came to ratios of 0.9 to 1.1 by their fastest tokens at a load average of 8 on two cores, and to 0.2 to 5 by
    the median of the ratios of pairs, or by the medians.
    """
    own, others = seconds_in_turn([model, other], context, repeats)
    return min(own) / min(others)


def seconds_in_turn(models: Sequence[PreTrainedModel], context: int, repeats: int = 15) -> list[list[float]]:
    """The times of tokens of a text: batch 1, keys and values of what stands before them in the cache.

    Args:
        models: On the device on which they are measured, in the dtype in which they compute. After a token of each
            comes the next of each, in the other order.
        context: Tokens that stand before it, of which the models' longest text may cut some off; each token after the
            first has one more.
        repeats: How many are timed.

    Returns:
        (repeats,) for each model.
    """
    import torch

    limits = [getattr(model.config.get_text_config(), "max_position_embeddings", None) for model in models]
    longest = min([limit for limit in limits if limit], default=context + WARM_UP + repeats)
    before = max(min(context, longest - WARM_UP - repeats), 1)
    training = [model.training for model in models]
    seconds: list[list[float]] = [[] for _ in models]
    try:
        with torch.no_grad():
            texts = [torch.zeros(1, before, dtype=torch.long, device=model.device) for model in models]
            for model in models:
                model.eval()
            caches = [
                model(input_ids=text, use_cache=True).past_key_values for model, text in zip(models, texts, strict=True)
            ]
            for number in range(WARM_UP + repeats):
                each = list(zip(models, texts, caches, seconds, strict=True))
                for model, text, cache, own in reversed(each) if number % 2 else each:
                    started = time.perf_counter()
                    model(input_ids=text[:, :1], past_key_values=cache, use_cache=True)
                    if model.device.type == "cuda":
                        torch.cuda.synchronize(model.device)
                    if number >= WARM_UP:
                        own.append(time.perf_counter() - started)
    finally:
        for model, trains in zip(models, training, strict=True):
            model.train(trains)
    return seconds
