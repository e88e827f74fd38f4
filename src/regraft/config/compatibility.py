"""Which choices go together: one pure function of the typed config."""

from __future__ import annotations

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
        if "labels" in config.pruner.needs:
            raise ConfigError(
                f"pruner needs labels, but the recovery questions of task {task.name} have none. "
                "Choose a label-free criterion, such as pruner/criterion=l2."
            )
    if config.preparation.trains and getattr(task, "preparation_size", None) == 0:
        raise ConfigError(
            "task.preparation_size=0: must be null or at least 1 with preparation=fine_tune, which trains on them."
        )
    if config.loss.reads == "gold" and "labels" not in config.loss.needs:
        raise ConfigError(
            "loss.reads=gold: must be question, choices or drawn_choice for a loss that declares no need of labels."
        )
    pruner = config.pruner
    if pruner.structure.kind not in pruner.criterion.kinds:
        fits = ", ".join(sorted(pruner.criterion.kinds))
        raise ConfigError(
            f"pruner: {type(pruner.criterion).__name__} knows {fits}, and the units of {pruner.structure.name} are "
            f"{pruner.structure.kind}. Choose another pruner/criterion or pruner/structure."
        )
    if "recover" in config.pipeline.repeat and "prune" not in config.pipeline.repeat and config.sparsity > 0:
        raise ConfigError(
            f"sparsity={config.sparsity}: must be 0 with a pipeline that prunes nothing. Choose pipeline=prune_recover."
        )
