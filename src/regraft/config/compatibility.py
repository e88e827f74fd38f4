"""Which choices go together: one pure function of the typed config."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regraft.config.ranges import ConfigError

if TYPE_CHECKING:
    from regraft.config.schema import RunConfig
    from regraft.interfaces import Criterion, Structure


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
    _check_projections(config.pruner.criterion, config.pruner.structure)
    if "recover" in config.pipeline.repeat and "prune" not in config.pipeline.repeat and config.sparsity > 0:
        raise ConfigError(
            f"sparsity={config.sparsity}: must be 0 with a pipeline that prunes nothing. Choose pipeline=prune_recover."
        )


def _check_projections(criterion: Criterion, structure: Structure) -> None:
    """Matrices that the criterion is told to look at are named as the structure names them."""
    given = list(getattr(criterion, "projections", None) or ())
    if unknown := [name for name in given if name not in structure.matrices]:
        raise ConfigError(
            f"pruner.criterion.projections={given}: must be among {', '.join(structure.matrices)}, which the units of "
            f"{structure.name} are made of, or null for all; not {', '.join(unknown)}."
        )
