"""Low-rank adapters (LoRA, arXiv 2106.09685): of each matrix W only W + (alpha / rank) B A is trained, in A and B.

In a masked matrix the product is masked too, W + M * (alpha / rank) B A, so that what was pruned stays zero while it
trains and when the adapter is merged: a plain adapter would fill every entry (wanda, issue 83: 40 % became 32.7 %).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MethodType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from regraft.config.ranges import require
from regraft.interfaces import Component, LanguageModel

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

Target = Literal["attention", "mlp"]
ADAPTER = "default"
"""What peft calls an adapter that has no name."""


@dataclass(frozen=True, kw_only=True)
class Lora(Component):
    """Train adapters in place of the weights, by peft. Norms, biases, embeddings and head stay as they are.

    Without dropout: all training here is in evaluation mode, see `regraft.recovery.loop`.
    """

    library: ClassVar[tuple[str, str]] = ("peft", "lora")
    """Module that it needs, and the extra that brings it."""

    rank: int = 8
    """Rank of each product, at least 1."""
    alpha: float = 16.0
    """The product is scaled by alpha / rank."""
    targets: tuple[Target, ...] = get_args(Target)
    """Blocks whose projections, whatever their widths, get an adapter."""

    def __post_init__(self) -> None:
        require(self.rank >= 1, "rank", self.rank, "at least 1")
        require(self.alpha > 0, "alpha", self.alpha, "above 0")
        once = len(set(self.targets)) == len(self.targets) > 0
        require(once, "targets", list(self.targets), f"some of {', '.join(get_args(Target))}, each once")

    def attach(self, student: LanguageModel) -> Callable[[], None]:
        """Put adapters into the model, in place; only they are trained from now on.

        Returns:
            What merges them: the model is then as it was, with other weights.
        """
        import torch
        from peft import LoraConfig, LoraModel

        model = student.model
        trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        chosen = self._projections(model)
        transposed = any(type(module).__name__ == "Conv1D" for module in chosen.values())
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]
            target_modules=list(chosen),
            fan_in_fan_out=transposed,
        )
        tuner = LoraModel(model, config, ADAPTER)
        masks = {}
        for name in chosen:
            mask = student.masks.get(f"{name}.weight")
            if mask is not None:
                adapted = model.get_submodule(name)
                masks[name] = mask
                _mask(adapted, mask)

        def merge() -> None:
            with torch.no_grad():
                tuner.merge_and_unload()
                for name, mask in masks.items():
                    weight: Any = model.get_submodule(name).weight
                    weight.mul_(mask.to(weight.device))
            for name in trained:
                model.get_parameter(name).requires_grad_(True)

        return merge

    def _projections(self, model: PreTrainedModel) -> dict[str, nn.Module]:
        """Name -> linear map of the chosen blocks."""
        from regraft.models.architecture import attention_blocks, mlp_blocks

        found: list[Any] = []
        if "mlp" in self.targets:
            found += [projection for block in mlp_blocks(model) for projection in block.projections.values()]
        if "attention" in self.targets:
            for block in attention_blocks(model):
                found += [block.query, block.key, block.value, block.fused, block.output]
        modules = {projection.module for projection in found if projection is not None}
        return {name: module for name, module in model.named_modules() if module in modules}


def _mask(adapted: Any, mask: Any) -> None:
    """Let an adapted linear map compute with its weight and the masked product of its adapter."""
    from torch.func import functional_call

    def forward(self: Any, inputs: Any) -> Any:
        weight = self.base_layer.weight + self.kept * self.get_delta_weight(ADAPTER)
        return functional_call(self.base_layer, {"weight": weight}, inputs)

    adapted.register_buffer("kept", mask.to(adapted.base_layer.weight.device), persistent=False)
    adapted.forward = MethodType(forward, adapted)
