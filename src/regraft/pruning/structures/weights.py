"""Single weights of the matrices of the decoder layers: the tensors keep their shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from regraft.interfaces import Group, Kind, Part
from regraft.pruning.structures.masked import Masked

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Weights(Masked):
    """Every weight of the MLP and attention projections is a unit, every matrix a group; held at zero, not removed."""

    kind: ClassVar[Kind] = "weights"
    matrices: ClassVar[tuple[str, ...]] = ("gate", "up", "down", "query", "key", "value", "output")

    name: str = "weights"
    """Name of the structure in records."""

    def groups(self, model: PreTrainedModel) -> list[Group]:
        from regraft.models.architecture import attention_blocks, mlp_blocks

        groups = []
        blocks = zip(mlp_blocks(model), attention_blocks(model), strict=True)
        for layer, (mlp, attention) in enumerate(blocks):
            several = {"query": attention.query, "key": attention.key, "value": attention.value}
            found = mlp.projections | several | {"fused": attention.fused, "output": attention.output}
            for name, projection in found.items():
                if projection is None:
                    continue
                part = Part(
                    name=name,
                    module=projection.module,
                    attribute="weight",
                    dimension=1 if projection.transposed else 0,
                    index=None,
                    side="writes",
                )
                units = projection.module.weight.numel()  # type: ignore[operator]
                groups.append(Group(name=f"{name} of layer {layer}", units=units, parts=(part,), layer=layer))
        return groups
