"""Which choices go together: one pure function of the typed config."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from regraft.config.ranges import ConfigError

if TYPE_CHECKING:
    from regraft.config.schema import RunConfig


def check(config: RunConfig) -> None:
    """Refuse choices that cannot work together.

    Raises:
        ConfigError: Naming both choices and what to choose instead.
    """
    task = config.task
    if not task.labelled:
        if "labels" in config.loss.needs:
            raise ConfigError(
                f"loss needs labels, but the recovery questions of task {task.name} have none. "
                "Choose a label-free loss, such as loss=kl."
            )
        if config.preparation.trains:
            raise ConfigError(
                f"preparation fine-tunes on labels, but the questions of task {task.name} have none. "
                "Choose preparation=none."
            )
    if config.preparation.trains and getattr(task, "preparation_size", None) == 0:
        raise ConfigError(
            "task.preparation_size=0: must be null or at least 1 with preparation=fine_tune, which trains on them."
        )
    if config.loss.reads == "gold" and "labels" not in config.loss.needs:
        raise ConfigError(
            "loss.reads=gold: must be question, choices or drawn_choice for a loss that declares no need of labels."
        )
    prunes = config.evaluate is None and config.sparsity > 0 and "prune" in config.pipeline.repeat
    if config.save_model and prunes and config.pruner.allocation.uneven and not config.export.uneven:
        raise ConfigError(
            "save_model=true export=plain: must be export=padded (zeros up to the widest layer, loads anywhere) or "
            "export=remote_code (as small as the model, loads with trust_remote_code=True) with a pruner/allocation "
            "whose layers come to have different widths; pruner/allocation=layerwise gives them one."
        )
    needed = {
        "export": config.export.library if config.save_model else None,
        "recovery.lora": config.recovery.lora and config.recovery.lora.library,
    }
    for key, library in needed.items():
        if library and importlib.util.find_spec(library[0]) is None:
            raise ConfigError(f"{key}: needs the package {library[0]}: pip install 'regraft[{library[1]}]'")
    if "recover" in config.pipeline.repeat and "prune" not in config.pipeline.repeat and config.sparsity > 0:
        raise ConfigError(
            f"sparsity={config.sparsity}: must be 0 with a pipeline that prunes nothing. Choose pipeline=prune_recover."
        )
