"""What a causal language model writes behind a question, token by token.

    y_t ~ sum_m w_m softmax(z_m(y_<t) / T)

of one model (w = 1), or of several that write together: student and teacher in MiniLLM (arXiv 2306.08543). A text ends
with the token that ends texts, which is part of it, or after so many tokens.

What is drawn depends on the seed and the question alone: not on how questions are put together, nor on which process
writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy
import torch
from transformers import DynamicCache

from regraft.cache import digest
from regraft.config.ranges import ConfigError
from regraft.interfaces import EncodedQuestion, LanguageModel
from regraft.models import cost

AT_ONCE = 64
"""Texts that are written side by side."""

Writers = Sequence[tuple[LanguageModel, float]]
"""Models of one vocabulary on one device, and what each weighs; the weights sum to 1."""


def write(
    writers: Writers,
    questions: Sequence[EncodedQuestion],
    *,
    tokens: int,
    temperature: float,
    seed: Any = None,
    greedy: int = 0,
    key: str = "batches.tokens",
) -> list[EncodedQuestion]:
    """The questions, each with what was written behind it as its one choice, and no answer.

    Args:
        writers: Who writes, in the precision of the caller.
        questions: Of which the contexts are read.
        tokens: Most tokens of a text.
        temperature: T; 0 takes the likeliest token always.
        seed: Plain data, for a temperature above 0.
        greedy: First tokens that are the likeliest ones, whatever the temperature.
        key: Of the config, that says `tokens`.

    Raises:
        ConfigError: A question with its text is longer than a model takes.
    """
    for model, _ in writers:
        limit = getattr(model.model.config.get_text_config(), "max_position_embeddings", None)
        longest = max(questions, key=lambda question: len(question.context))
        # nothing reads the last token of a text
        if limit is not None and len(longest.context) + tokens - 1 > limit:
            raise ConfigError(
                f"{key}={tokens}: must be at most {limit - len(longest.context) + 1} with question {longest.id}, "
                f"of {len(longest.context)} tokens, and a model that takes {limit}. Lower it."
            )
    order = sorted(range(len(questions)), key=lambda number: len(questions[number].context))
    done: dict[int, tuple[int, ...]] = {}
    for start in range(0, len(order), AT_ONCE):
        chosen = order[start : start + AT_ONCE]
        draws = numpy.stack([_draws(seed, questions[number].id, tokens) for number in chosen])
        if temperature == 0:
            greedy = tokens
        contexts = [questions[number].context for number in chosen]
        texts = _texts(writers, contexts, torch.from_numpy(draws), temperature or 1.0, greedy)
        done |= dict(zip(chosen, texts, strict=True))
    return [
        replace(question, choices=(done[number],), answer=None, characters=())
        for number, question in enumerate(questions)
    ]


def ends(model: LanguageModel) -> frozenset[int]:
    """Tokens that end a text."""
    configured = getattr(model.model.generation_config, "eos_token_id", None)
    told = configured if isinstance(configured, list) else [configured]
    return frozenset(int(token) for token in (*told, model.tokenizer.eos_token_id) if token is not None)


def _draws(seed: Any, name: str, tokens: int) -> numpy.ndarray:
    """(tokens,) in [0, 1): where in the distribution each token of a text is taken."""
    return numpy.random.default_rng(int(digest([seed, name]), 16)).random(tokens)


@torch.no_grad()
def _texts(
    writers: Writers, contexts: Sequence[tuple[int, ...]], draws: torch.Tensor, temperature: float, greedy: int
) -> list[tuple[int, ...]]:
    """What follows each context.

    Args:
        writers: Who writes.
        contexts: Tokens.
        draws: (contexts, tokens)
        temperature: Above 0.
        greedy: First tokens that are not drawn.
    """
    first = writers[0][0]
    device, last, vocabulary = first.model.device, ends(first), first.vocabulary
    length = max(map(len, contexts))
    rows = [[first.pad_token_id] * (length - len(context)) + list(context) for context in contexts]
    entering = torch.tensor(rows, device=device)
    sizes = torch.tensor([len(context) for context in contexts], device=device)
    seen = (torch.arange(length, device=device) >= length - sizes[:, None]).long()
    positions = (seen.cumsum(dim=1) - 1).clamp(min=0)
    caches = [DynamicCache(config=model.model.config) for model, _ in writers]
    texts: list[list[int]] = [[] for _ in contexts]
    open_rows = set(range(len(contexts)))
    # the sum of 100,000 probabilities ends at 1; Apple's GPUs have no float64
    exact = torch.float32 if device.type == "mps" else torch.float64
    places = draws.to(device=device, dtype=exact)
    counts = cost.ledger()
    for at in range(draws.shape[1]):
        extent = _extent([len(contexts[row]) for row in open_rows], at)
        p = torch.zeros((), dtype=exact, device=device)
        for (model, share), cache in zip(writers, caches, strict=True):
            said = model.model(
                input_ids=entering,
                attention_mask=seen,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            if counts is not None:
                counts.passed(model.model, extent)
            # rows of a padded vocabulary that are no tokens are never written
            p = p + share * torch.softmax(said.logits[:, -1, :vocabulary].to(exact) / temperature, dim=-1)
        chosen = p.argmax(dim=-1) if at < greedy else _taken(p, places[:, at])
        for row, token in enumerate(chosen.tolist()):
            if row in open_rows:
                texts[row].append(token)
                if token in last:
                    open_rows.remove(row)
        if not open_rows:
            break
        entering = chosen[:, None]
        seen = torch.cat([seen, seen.new_ones(len(contexts), 1)], dim=1)
        positions = positions[:, -1:] + 1
    return [tuple(text) for text in texts]


def _extent(contexts: Sequence[int], at: int) -> cost.Extent:
    """What a forward pass reads of the texts that are not at their end: all, or the token written last.

    Args:
        contexts: Tokens that each begins with.
        at: Tokens that are written.
    """
    if at == 0:
        pairs = sum(length * (length + 1) // 2 for length in contexts)
        return cost.Extent(positions=sum(contexts), pairs=pairs, reads=len(contexts))
    return cost.Extent(positions=len(contexts), pairs=sum(contexts) + at * len(contexts), reads=len(contexts))


def _taken(p: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """(n,) long: the tokens at the places `draws` (n,) of the cumulated probabilities (n, vocab)."""
    cumulated = p.cumsum(dim=-1)
    place = (draws * cumulated[:, -1])[:, None]
    return torch.searchsorted(cumulated, place, right=True).squeeze(1).clamp(max=p.shape[1] - 1)
