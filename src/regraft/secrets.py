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
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

HIDDEN = "[secret]"
NAMES = re.compile(r"(?:(?:^|_)(?:API)?KEY(?:_ID)?|TOKEN|SECRET|PASSWORD|PASSWD|_PWD|_PASS|CREDENTIALS?)$")
"""Environment variables whose values are secret."""
SHORTEST = 16
"""Characters: what is shorter may be a word, and would be found in everything. So may a path be."""
SHAPES = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|wandb_v1_[A-Za-z0-9_]{20,}|local-[0-9a-f]{40})"
    r"|\bsk-(?=\S*[A-Z])(?=\S*[0-9])[A-Za-z0-9_-]{32,}"
    r"|(?<=://)[^/\s@:]+:[^/\s]+(?=@)"
    r"|(?i:(?<=[?&])[\w-]*(?:key|token|password|signature|credential|sig)=[^&\s'\"]+)"
    r"|(?i:(?<=bearer )[\w.~+/-]{16,}=*)"
)
"""Tokens of the Hugging Face hub, GitHub, W&B and OpenAI; user and password in an address; its query; a header."""


def redact(text: str) -> str:
    """`text` with `[secret]` in the place of each secret."""
    return _without(text, _known())


def redacted(plain: Any) -> Any:
    """Plain data with every text redacted."""
    secrets = _known()

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return _without(value, secrets)
        if isinstance(value, Mapping):
            return {_without(str(key), secrets): clean(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [clean(item) for item in value]
        return value

    return clean(plain)


def holding(plain: Any) -> list[str]:
    """The dotted keys of nested data whose value holds a secret."""
    secrets = _known()

    def search(value: Any, key: str) -> Iterator[str]:
        if isinstance(value, Mapping):
            for name, item in value.items():
                yield from search(item, f"{key}.{name}" if key else str(name))
        elif isinstance(value, (list, tuple)):
            for number, item in enumerate(value):
                yield from search(item, f"{key}.{number}")
        elif isinstance(value, str) and _without(value, secrets) != value:
            yield key

    return list(search(plain, ""))


def is_named_secret(variable: str) -> bool:
    """Whether an environment variable is named like one that holds a secret."""
    return bool(NAMES.search(variable.upper()))


def _without(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return SHAPES.sub(HIDDEN, text)


def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Python's own end of a program that fails, without secrets."""
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))


class Formatter(logging.Formatter):
    """A line of a log, its traceback included, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def _known() -> list[str]:
    """The secrets of this process, the longest first."""
    found = {value for name, value in os.environ.items() if is_named_secret(name)}
    # a file that is not there, or is no text, holds no secret that is known; nor has everybody a home
    with contextlib.suppress(OSError, UnicodeDecodeError, RuntimeError):
        found.add(_hub_token().read_text(encoding="utf-8").strip())
    with contextlib.suppress(OSError, UnicodeDecodeError, RuntimeError, netrc.NetrcParseError):
        # by its path: a file that is named is read whoever may read it, as W&B does
        file = os.environ.get("NETRC") or Path.home() / ".netrc"
        found |= {entry[2] or "" for entry in netrc.netrc(file).hosts.values()}
    secrets = {value for value in found if len(value) >= SHORTEST and not value.startswith("/")}
    return sorted(secrets, key=len, reverse=True)


def _hub_token() -> Path:
    """Where `hf auth login` keeps its token."""
    if named := os.environ.get("HF_TOKEN_PATH"):
        return Path(named)
    if home := os.environ.get("HF_HOME"):
        return Path(home) / "token"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface" / "token"
