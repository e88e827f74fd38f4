"""Checks that a component makes of its own fields."""

from __future__ import annotations

from typing import Any


class ConfigError(ValueError):
    """The user's config is wrong; the message names the key, the value, what is allowed and the next step."""


class Incompatible(ConfigError):
    """Each choice is right, but they do not go together."""


def require(condition: bool, key: str, value: Any, allowed: str, next_step: str = "") -> None:
    """Raise unless `condition` holds.

    Args:
        condition: What must be true.
        key: The key as the user writes it.
        value: What the user gave.
        allowed: What is allowed, as the end of "must be ...".
        next_step: A sentence that says what to do.

    Raises:
        ConfigError: `condition` is false.
    """
    if not condition:
        message = f"{key}={value}: must be {allowed}."
        raise ConfigError(f"{message} {next_step}".strip())
