"""An ordinary checkpoint of a model with layers of different widths."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from regraft.interfaces import Exporter, LanguageModel

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Padded(Exporter):
    """Zeros make every layer as wide as the widest: loads anywhere, and is as large as that.

    A model whose layers have one width is written as it is.
    """

    def write(self, model: LanguageModel, folder: Path) -> None:
        from regraft.models import export

        export.save(filled(model), folder)


def filled(model: LanguageModel) -> LanguageModel:
    """The model with all layers as wide as the widest; says in the log what that costs.

    Raises:
        ValueError: Zeros cannot make it so.
    """
    from regraft.models.padding import padded

    wide = padded(model.model)
    if wide is model.model:
        return model
    small, large = model.model.num_parameters(), wide.num_parameters()
    log.info(
        "Layers filled up with zeros to the widest: %s parameters are written as %s (%.0f%% more).",
        f"{small:,}",
        f"{large:,}",
        100 * (large / small - 1),
    )
    return replace(model, model=wide)
