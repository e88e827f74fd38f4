"""Questions as tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from regraft.config.ranges import ConfigError
from regraft.interfaces import AnyQuestion, EncodedQuestion, LabelledQuestion, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH = 1024


def encode(
    tokenizer: PreTrainedTokenizerBase, task: Task, question: AnyQuestion, max_positions: int | None = None
) -> EncodedQuestion:
    """One question as tokens; see `encode_all`."""
    return encode_all(tokenizer, task, [question], max_positions)[0]


def encode_all(
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    questions: Sequence[AnyQuestion],
    max_positions: int | None = None,
    prompt: str = "",
) -> list[EncodedQuestion]:
    """Questions as tokens, in the given order.

    The context carries the special tokens that the tokenizer puts before a text (SmolLM2 none, Gemma BOS), never one
    after it. A choice is what follows the context's tokens in the tokens of context and choice together, as in
    lm-evaluation-harness; where joining them changes the context's own tokens, it is the choice encoded by itself.

    Args:
        tokenizer: Any tokenizer of transformers.
        task: How a question is asked.
        questions: Labelled or unlabelled ones.
        max_positions: The longest sequence that the model takes; None for no limit.
        prompt: Stands before every question.

    Raises:
        ConfigError: A question with its longest choice exceeds `max_positions`, or a text has no tokens.
    """
    encoded = []
    for start in range(0, len(questions), BATCH):
        chunk = questions[start : start + BATCH]
        asked = [(prompt + context, choices) for context, choices in map(task.prompt, chunk)]
        encoded.extend(_encode_chunk(tokenizer, asked, chunk, max_positions, prompt))
    return encoded


def _encode_chunk(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[tuple[str, tuple[str, ...]]],
    questions: Sequence[AnyQuestion],
    max_positions: int | None,
    prompt: str,
) -> list[EncodedQuestion]:
    contexts = tokens(tokenizer, [context for context, _ in prompts])
    wholes = iter(tokens(tokenizer, [context + choice for context, choices in prompts for choice in choices]))
    encoded = []
    for question, (_, texts), context in zip(questions, prompts, contexts, strict=True):
        choices = []
        for text in texts:
            whole = next(wholes)
            if whole[: len(context)] == context:
                choices.append(tuple(whole[len(context) :]))
            else:
                choices.append(tuple(tokenizer(text, add_special_tokens=False)["input_ids"]))
        if not context or not all(choices):
            raise ConfigError(
                f"Question {question.id}: its {'question' if not context else 'choices'} must have at least one token "
                "each, found an empty one. Correct the text in the task's source."
            )
        length = len(context) + max(map(len, choices))
        if max_positions is not None and length > max_positions:
            told = f" behind a prompt of {len(tokens(tokenizer, [prompt])[0])}" if prompt else ""
            shorten = "Lower pipeline.instructions.examples or tokens" if prompt else "Shorten or drop the question"
            raise ConfigError(
                f"Question {question.id}: {length} tokens with its longest choice{told}, the model takes "
                f"{max_positions}. {shorten}, or choose a model with a longer context."
            )
        encoded.append(
            EncodedQuestion(
                id=question.id,
                context=tuple(context),
                choices=tuple(choices),
                answer=question.answer if isinstance(question, LabelledQuestion) else None,
                characters=tuple(len(text.removeprefix(" ")) for text in texts),
            )
        )
    return encoded


def tokens(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Tokens with the special tokens before a text but without an end-of-sequence token after it."""
    found: list[list[int]] = tokenizer(texts, verbose=False)["input_ids"]
    end = tokenizer.eos_token_id
    return [ids[:-1] if ids and ids[-1] == end else ids for ids in found]
