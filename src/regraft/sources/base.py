"""What every source offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.config.ranges import ConfigError
from regraft.interfaces import Component

if TYPE_CHECKING:
    from regraft.cache import Cache


class SourceError(ConfigError):
    """A source cannot be read; the message names the source, what was expected, and the next step."""


class Source(Component, ABC):
    """Files that somebody else made."""

    @abstractmethod
    def fetch(self, cache: Cache) -> Path:
        """The folder that holds the files; fetched into the cache if they are not at hand.

        Raises:
            SourceError: They cannot be had, or are not what was expected.
        """

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What decides the content, as plain data; known without fetching."""
