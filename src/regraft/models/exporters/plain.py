"""An ordinary checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from regraft.interfaces import Exporter, LanguageModel


@dataclass(frozen=True, kw_only=True)
class Plain(Exporter):
    """What `AutoModelForCausalLM.from_pretrained` loads, as small as the model."""

    uneven: ClassVar[bool] = False

    def write(self, model: LanguageModel, folder: Path) -> None:
        from regraft.models import export
        from regraft.models.widths import differences, widest

        found = differences(model.model, widest(model.model))
        if found:
            raise ValueError(
                f"export=plain: the config of a plain checkpoint gives all layers one width, and has no place for "
                f"what this model has otherwise ({found}). Choose export=padded (zeros up to the widest layer, loads "
                "anywhere) or export=remote_code (as small as the model, loads with trust_remote_code=True)."
            )
        export.save(model, folder)
