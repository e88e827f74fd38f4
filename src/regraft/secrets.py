"""Keys and tokens stay out of everything that is written: logs, records, configs, messages.

What counts as one: the value of an environment variable that is named like one (`WANDB_API_KEY`, `HF_TOKEN`), the token
that `hf auth login` keeps, what services begin their tokens with, and a password in an address.
"""

from __future__ import annotations

import contextlib
import logging
import netrc
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

HIDDEN = "[secret]"
NAMES = re.compile(r"(?:^|_)(?:API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$")
"""Environment variables whose values are secret."""
SHORTEST = 16
"""Characters: what is shorter may be a word, and would be found in everything. So may a path be."""
SHAPES = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|wandb_v1_[A-Za-z0-9_]{20,}"
    r"|local-[0-9a-f]{40})"
    r"|(?<=://)[^/\s@]+(?=@)"
    r"|(?<=[?&])(?:api_key|access_token|token|key|password|signature)=[^&\s'\"]+"
)
"""Tokens of the Hugging Face hub, GitHub, OpenAI and W&B; what stands before the host of an address; its query."""


def redact(text: str) -> str:
    """`text` with `[secret]` in the place of each secret."""
    for secret in _known():
        text = text.replace(secret, HIDDEN)
    return SHAPES.sub(HIDDEN, text)


def redacted(plain: Any) -> Any:
    """Plain data with every text redacted."""
    if isinstance(plain, str):
        return redact(plain)
    if isinstance(plain, Mapping):
        return {redact(str(key)): redacted(value) for key, value in plain.items()}
    if isinstance(plain, (list, tuple)):
        return [redacted(value) for value in plain]
    return plain


def holding(plain: Any, key: str = "") -> Iterator[str]:
    """The dotted keys of nested data whose value holds a secret."""
    if isinstance(plain, Mapping):
        for name, value in plain.items():
            yield from holding(value, f"{key}.{name}" if key else str(name))
    elif isinstance(plain, (list, tuple)):
        for number, value in enumerate(plain):
            yield from holding(value, f"{key}.{number}")
    elif isinstance(plain, str) and redact(plain) != plain:
        yield key


class Formatter(logging.Formatter):
    """A line of a log, its traceback included, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def _known() -> list[str]:
    """The secrets of this process, the longest first."""
    found = {value for name, value in os.environ.items() if NAMES.search(name.upper())}
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    with contextlib.suppress(OSError):
        found.add(Path(os.environ.get("HF_TOKEN_PATH", home / "token")).read_text(encoding="utf-8").strip())
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        found |= {entry[2] or "" for entry in netrc.netrc(os.environ.get("NETRC")).hosts.values()}
    secrets = {value for value in found if len(value) >= SHORTEST and not value.startswith("/")}
    return sorted(secrets, key=len, reverse=True)
