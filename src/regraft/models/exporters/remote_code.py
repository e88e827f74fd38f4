"""A checkpoint that brings the class that loads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from regraft.interfaces import Exporter, LanguageModel


@dataclass(frozen=True, kw_only=True)
class RemoteCode(Exporter):
    """As small as the model, whatever the widths of its layers.

    Loads with `AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)`, without Regraft. The file beside
    it derives from the class of transformers and makes the parameters as `uneven` in config.json says; neurons by layer
    are also in `per_layer_config`, which transformers keeps and does not read yet. A model whose layers have one width
    needs none of that, and is written as a plain checkpoint.
    """

    def write(self, model: LanguageModel, folder: Path) -> None:
        from regraft.models import export

        export.save(model, folder)
