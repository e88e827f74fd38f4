"""Plain checkpoints: written and read as any transformers model."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.interfaces import LanguageModel

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

MASKS = "masks.safetensors"
"""Beside the weights of a model with masks: which of them are held at zero."""


def save(model: LanguageModel, folder: Path) -> None:
    """Write an ordinary checkpoint, which `AutoModelForCausalLM.from_pretrained` loads without Regraft.

    Written aside and renamed; what was in `folder` is replaced.

    Raises:
        ValueError: The layers have different widths, or the model has parameters that its class has not: no plain
            checkpoint can hold them.
    """
    from safetensors.torch import save_file

    from regraft.models.architecture import mlp_blocks

    widths = [block.units for block in mlp_blocks(model.model)]
    if len(set(widths)) > 1:
        raise ValueError(
            f"save_model: the layers have different widths ({', '.join(map(str, widths))}), which a plain checkpoint "
            "cannot hold. Choose pruner/allocation=layerwise."
        )
    more = _unknown_to_its_class(model.model)
    if more:
        raise ValueError(
            f"save_model: {type(model.model).__name__} has no place for {', '.join(more[:4])}, which would be lost "
            "when the checkpoint is read. Choose pruner.criterion.compensate=false."
        )
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".saving-"))
    try:
        model.model.save_pretrained(aside)
        model.tokenizer.save_pretrained(aside)
        if model.masks:
            save_file({name: mask.cpu() for name, mask in model.masks.items()}, aside / MASKS)
        aside.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(aside, folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _unknown_to_its_class(model: PreTrainedModel) -> list[str]:
    """Parameters that a model built from the config does not have."""
    import torch

    with torch.device("meta"):
        built = {name for name, _ in type(model)(copy.deepcopy(model.config)).named_parameters()}
    return [name for name, _ in model.named_parameters() if name not in built]


def load(folder: Path, dtype: torch.dtype | None = None) -> LanguageModel:
    """Read a checkpoint, in evaluation mode on the CPU; `dtype` None keeps the stored one.

    Raises:
        ValueError: The folder holds no checkpoint, a torn one, or one without some of the model's weights.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder}: no checkpoint (config.json) there. Give the folder that save_model=true wrote.")
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype or "auto", use_safetensors=True, local_files_only=True, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, SafetensorError) as error:
        told = " ".join(str(error).split())
        raise ValueError(f"{folder}: the checkpoint cannot be read ({told}). Save the model again.") from error
    model, found = loaded
    if found["missing_keys"]:
        missing = ", ".join(sorted(found["missing_keys"])[:5])
        raise ValueError(f"{folder}: the checkpoint lacks weights of its model ({missing}). Save the model again.")
    masks = load_file(folder / MASKS) if (folder / MASKS).is_file() else {}
    return LanguageModel(model=model.eval(), tokenizer=tokenizer, masks=masks)
