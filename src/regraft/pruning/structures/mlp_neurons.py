"""MLP neurons: row j of gate and up, column j of down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regraft.interfaces import Structure

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

WIDTH_KEYS = ("intermediate_size", "n_inner", "ffn_dim")
"""Config keys in which architectures keep the width of the block."""


@dataclass(frozen=True, kw_only=True)
class MlpNeurons(Structure):
    """Intermediate neurons of the feed-forward blocks, removed for real: the matrices become smaller."""

    name: str = "mlp_neurons"
    """Name of the structure in records."""

    def units(self, model: PreTrainedModel) -> list[int]:
        from regraft.models.architecture import mlp_blocks

        return [block.up.shape[0] for block in mlp_blocks(model)]

    def weights(self, model: PreTrainedModel) -> list[dict[str, torch.Tensor]]:
        from regraft.models.architecture import mlp_blocks

        return [
            {
                name: projection.weight.detach().T if name == "down" else projection.weight.detach()
                for name, projection in block.projections.items()
            }
            for block in mlp_blocks(model)
        ]

    def remove(self, model: PreTrainedModel, keep: Sequence[torch.Tensor]) -> None:
        from regraft.models.architecture import mlp_blocks

        for block, kept in zip(mlp_blocks(model), keep, strict=True):
            for name, projection in block.projections.items():
                projection.cut(kept, inputs=name == "down")
        widths = {len(kept) for kept in keep}
        if len(widths) == 1:
            config = model.config.get_text_config()
            key = next(key for key in WIDTH_KEYS if hasattr(config, key))
            setattr(config, key, widths.pop())
