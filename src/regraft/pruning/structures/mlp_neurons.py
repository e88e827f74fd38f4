"""MLP neurons: row j of gate and up, column j of down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regraft.interfaces import Structure

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

WIDTH_KEYS = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
"""Config keys in which architectures keep the width of the block."""


@dataclass(frozen=True, kw_only=True)
class MlpNeurons(Structure):
    """Intermediate neurons of the feed-forward blocks, removed for real: the matrices become smaller."""

    name: str = "mlp_neurons"
    """Name of the structure in records."""

    def units(self, model: PreTrainedModel) -> list[int]:
        from regraft.models.architecture import mlp_blocks

        return [block.units for block in mlp_blocks(model)]

    def weights(self, model: PreTrainedModel) -> list[dict[str, torch.Tensor]]:
        """For each layer `gate` (where there is one), `up` and `down`, each (units, hidden), without graph."""
        from regraft.models.architecture import mlp_blocks

        return [
            {
                name: projection.weight.detach().T if name == "down" else projection.weight.detach()
                for name, projection in block.projections.items()
            }
            for block in mlp_blocks(model)
        ]

    def remove(self, model: PreTrainedModel, keep: Sequence[torch.Tensor]) -> None:
        """Slice the projections; the model's config follows when all layers have the same width.

        Raises:
            ValueError: The model's config says nowhere how wide its blocks are.
        """
        from regraft.models.architecture import mlp_blocks

        config = model.config.get_text_config()
        key = next((key for key in WIDTH_KEYS if hasattr(config, key)), None)
        if key is None:
            raise ValueError(
                f"{type(model).__name__}: its config has none of {', '.join(WIDTH_KEYS)}, so a checkpoint could not "
                "say how wide the pruned blocks are. Choose another model."
            )
        for block, kept in zip(mlp_blocks(model), keep, strict=True):
            for name, projection in block.projections.items():
                projection.cut(kept, inputs=name == "down")
        widths = {len(kept) for kept in keep}
        if len(widths) == 1:
            setattr(config, key, widths.pop())
