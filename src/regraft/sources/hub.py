"""A model repository of the Hugging Face hub."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.config.ranges import require
from regraft.sources.base import Source, SourceError
from regraft.sources.local import READ

if TYPE_CHECKING:
    from regraft.cache import Cache

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class HubModel(Source):
    """A repository, downloaded once into the hub's own cache; no weights but safetensors."""

    repo: str
    """Owner and name, such as `allenai/OLMo-2-0425-1B`."""
    revision: str = "main"
    """Branch, tag or commit. A commit pins the weights; a branch may move, and results made before stay in use."""

    def __post_init__(self) -> None:
        well_formed = re.fullmatch(r"[\w.-]+/[\w.-]+", self.repo) is not None
        require(well_formed, "repo", self.repo, "OWNER/NAME", "A folder on this machine is model=local.")
        require(self.revision != "", "revision", self.revision, "a branch, a tag or a commit")

    def fetch(self, cache: Cache) -> Path:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HTTPError

        patterns = [f"*{ending}" for ending in sorted(READ)]
        try:
            folder = Path(snapshot_download(self.repo, revision=self.revision, allow_patterns=patterns))
        except (HTTPError, OSError, ValueError) as error:
            raise SourceError(
                f"hub:{self.repo}@{self.revision}: cannot be fetched ({_first_sentence(error)}). Check name, revision, "
                "network and, for a repository behind a licence, that you are logged in (hf auth login); or download "
                "it elsewhere and use model=local, or model=smollm2_135m, which needs no hub."
            ) from error
        if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
            raise SourceError(
                f"hub:{self.repo}@{self.revision}: must hold config.json and weights in *.safetensors. Choose another "
                "revision, or convert the weights and use model=local."
            )
        logger.info("%s@%s is commit %s", self.repo, self.revision, folder.name)
        return folder

    def identity(self) -> dict[str, Any]:
        return {"hub": self.repo, "revision": self.revision}


def _first_sentence(error: Exception) -> str:
    """The hub's messages are long, and end in advice for callers of its API."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
