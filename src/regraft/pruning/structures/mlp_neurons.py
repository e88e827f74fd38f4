"""MLP neurons: row j of gate and up, column j of down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from regraft.interfaces import Group, Kind
from regraft.models.widths import WIDTH_KEYS
from regraft.pruning.structures.cut import Cut

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class MlpNeurons(Cut):
    """Intermediate neurons of the feed-forward blocks, removed for real: the matrices become smaller."""

    kind: ClassVar[Kind] = "neurons"
    matrices: ClassVar[tuple[str, ...]] = ("gate", "up", "down")

    name: str = "mlp_neurons"
    """Name of the structure in records."""

    def groups(self, model: PreTrainedModel) -> list[Group]:
        """One for each layer: `gate` (where there is one) and `up` write a neuron, `down` reads it."""
        from regraft.models.architecture import mlp_blocks
        from regraft.models.surgery import consecutive, owned

        groups = []
        for layer, block in enumerate(mlp_blocks(model)):
            index = consecutive(block.units)
            parts = [
                part
                for name, projection in block.projections.items()
                for part in owned(name, projection, index, "reads" if name == "down" else "writes")
            ]
            groups.append(Group(name=f"MLP of layer {layer}", units=block.units, parts=tuple(parts), layer=layer))
        return groups

    def check(self, model: PreTrainedModel) -> None:
        if _width_key(model) is None:
            raise ValueError(
                f"{type(model).__name__}: its config has none of {', '.join(WIDTH_KEYS)}, so a checkpoint could not "
                "say how wide the pruned blocks are. Choose another model."
            )

    def resize(self, model: PreTrainedModel) -> None:
        """The model's config follows when all layers have the same width."""
        widths = set(self.units(model))
        key = _width_key(model)
        if len(widths) == 1 and key is not None:
            setattr(model.config.get_text_config(), key, widths.pop())


def _width_key(model: PreTrainedModel) -> str | None:
    config = model.config.get_text_config()
    return next((key for key in WIDTH_KEYS if hasattr(config, key)), None)
