"""Checkpoints, written and read as any transformers model."""

from __future__ import annotations

import contextlib
import inspect
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.interfaces import LanguageModel

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

MASKS = "masks.safetensors"
"""Beside the weights of a model with masks: which of them are held at zero."""
CODE = "modeling_uneven.py"
"""Beside a checkpoint whose layers have different widths: the class that loads it."""


@contextlib.contextmanager
def written(folder: Path) -> Iterator[Path]:
    """A folder to write to, which then takes the place of `folder`; of what fails nothing stays."""
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".saving-"))
    try:
        yield aside
        aside.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(aside, folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def save(model: LanguageModel, folder: Path) -> None:
    """Write a checkpoint that `load` reads.

    A model whose layers have one width becomes an ordinary one, which `AutoModelForCausalLM.from_pretrained` loads.
    Otherwise a file with the class that loads it lies beside; `from_pretrained` then wants `trust_remote_code=True`.

    Raises:
        ValueError: The model lacks parameters that its class has.
    """
    from regraft.models.widths import differences, widest

    config: Any = widest(model.model)
    found = differences(model.model, config)
    if found.missing:
        raise ValueError(
            f"{type(model.model).__name__}: no checkpoint can hold a model without {', '.join(found.missing[:4])}. "
            "Choose another pruner/structure."
        )
    with written(folder) as aside:
        if found.parameters:
            name = type(model.model).__name__
            config.auto_map = {"AutoModelForCausalLM": f"{CODE.removesuffix('.py')}.Uneven{name}"}
            config.uneven = {"parameters": found.parameters, "attributes": found.attributes}
            config.get_text_config().per_layer_config = _neurons(model.model)
            (aside / CODE).write_text(_code(model.model), encoding="utf-8")
        _save(model, config, aside)


def load(folder: Path, dtype: torch.dtype | None = None) -> LanguageModel:
    """Read a checkpoint, in evaluation mode on the CPU; `dtype` None keeps the stored one.

    No code that lies in the folder is run.

    Raises:
        ValueError: The folder holds no checkpoint, a torn one, or one without some of the model's weights.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder}: no checkpoint (config.json) there. Give the folder that save_model=true wrote.")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        loader: Any = _uneven(config) if hasattr(config, "uneven") else AutoModelForCausalLM
        loaded: Any = loader.from_pretrained(
            folder,
            config=config,
            dtype=dtype or "auto",
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, SafetensorError) as error:
        told = " ".join(str(error).split())
        raise ValueError(f"{folder}: the checkpoint cannot be read ({told}). Save the model again.") from error
    model, found = loaded
    if found["missing_keys"]:
        missing = ", ".join(sorted(found["missing_keys"])[:5])
        raise ValueError(f"{folder}: the checkpoint lacks weights of its model ({missing}). Save the model again.")
    if hasattr(model.config, "uneven"):
        # what was saved: a model of the plain class that was cut
        model.__class__ = type(model).__bases__[1]
        del model.config.uneven, model.config.auto_map
    masks = load_file(folder / MASKS) if (folder / MASKS).is_file() else {}
    return LanguageModel(model=model.eval(), tokenizer=tokenizer, masks=masks)


def _neurons(model: PreTrainedModel) -> dict[int, dict[str, int]] | None:
    """What transformers itself will read one day: the neurons of each layer, if nothing else varies.

    Heads by layer are refused by the configs of today, Llama's among them.
    """
    from regraft.models.widths import WIDTH_KEYS, layer_widths

    blocks = layer_widths(model)
    vary = {key for widths in blocks for key in widths if widths[key] != blocks[0][key]}
    if not vary or not vary <= set(WIDTH_KEYS):
        return None
    return dict(enumerate({key: widths[key] for key in vary} for widths in blocks))


def _save(model: LanguageModel, config: Any, folder: Path) -> None:
    from safetensors.torch import save_file

    kept = model.model.config
    model.model.config = config
    try:
        model.model.save_pretrained(folder)
    finally:
        model.model.config = kept
    model.tokenizer.save_pretrained(folder)
    if model.masks:
        save_file({name: mask.cpu() for name, mask in model.masks.items()}, folder / MASKS)


def _code(model: PreTrainedModel) -> str:
    """The file that loads a checkpoint of `model`: nothing of it is regraft's but the class in front."""
    from regraft.models import uneven

    name = type(model).__name__
    lines = inspect.getsource(uneven).replace("\nimport torch\n", f"\nimport torch\nfrom transformers import {name}\n")
    return f"{lines}\n\nclass Uneven{name}(Uneven, {name}):\n    pass\n"


def _uneven(config: Any) -> type:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    from regraft.models.uneven import Uneven

    plain: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    return type(f"Uneven{plain.__name__}", (Uneven, plain), {})
