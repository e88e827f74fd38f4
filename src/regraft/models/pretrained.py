"""A model that somebody trained, from any source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from regraft.interfaces import LanguageModel, Model
from regraft.sources.base import Source, SourceError

if TYPE_CHECKING:
    from regraft.cache import Cache


@dataclass(frozen=True, kw_only=True)
class Pretrained(Model):
    """A causal language model of the transformers library, with its tokenizer."""

    name: str
    """Name of the model in records and figures; part of no identity."""
    source: Source
    """Where its folder comes from."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Type of the weights; null keeps the type in which they are stored."""
    attn_implementation: str | None = None
    """Attention of transformers, such as `sdpa` or `eager`; null takes its choice."""
    trust_remote_code: bool = False
    """Whether Python files of the source may be run. Only for a source that you trust as your own code."""

    def load(self, cache: Cache) -> LanguageModel:
        """The model in evaluation mode on the CPU; its tokenizer has a padding token.

        Raises:
            SourceError: The source cannot be had, or holds no causal language model that transformers knows.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = self.source.fetch(cache)
        try:
            with _no_bars():
                tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=self.trust_remote_code)
                model = AutoModelForCausalLM.from_pretrained(
                    folder,
                    dtype=getattr(torch, self.dtype) if self.dtype is not None else "auto",
                    attn_implementation=self.attn_implementation,
                    trust_remote_code=self.trust_remote_code,
                    use_safetensors=True,
                )
        except (ValueError, OSError, KeyError, ImportError) as error:
            raise SourceError(
                f"model {self.name} ({folder}): transformers cannot load it ({error}). It must be a folder of a "
                "causal language model with config.json, *.safetensors and a tokenizer."
            ) from error
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return LanguageModel(model=model.eval(), tokenizer=tokenizer)

    def identity(self) -> dict[str, Any]:
        identity: dict[str, Any] = {"source": self.source.identity()}
        if self.dtype is not None:
            identity["dtype"] = self.dtype
        if self.attn_implementation is not None:
            identity["attn_implementation"] = self.attn_implementation
        return identity


@contextmanager
def _no_bars() -> Iterator[None]:
    """Without transformers' bars: reading a file takes seconds, and they would break up the run's own."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
