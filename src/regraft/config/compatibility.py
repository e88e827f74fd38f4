"""Which choices go together: one pure function of the typed config."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from regraft.config.ranges import ConfigError

if TYPE_CHECKING:
    from regraft.config.schema import RunConfig
    from regraft.interfaces import Criterion, Structure
    from regraft.pruning.pruner import Pruner

SAME = 1e-4
"""Sparsities nearer than this are one: 0.6667 is what 1:3 leaves out."""


def check(config: RunConfig) -> None:
    """Refuse choices that cannot work together.

    Raises:
        ConfigError: Naming both choices and what to choose instead.
    """
    _check_labels(config)
    for pruner in config.pruner.pruners:
        _check_pruner(pruner, config)
    _check_budget(config)
    _check_training(config)
    _check_export(config)
    if "recover" in config.pipeline.repeat and "prune" not in config.pipeline.repeat and config.sparsity > 0:
        raise ConfigError(
            f"sparsity={config.sparsity}: must be 0 with a pipeline that prunes nothing. Choose pipeline=prune_recover."
        )


def _check_labels(config: RunConfig) -> None:
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


def _check_pruner(pruner: Pruner, config: RunConfig) -> None:
    criterion, structure, allocation = pruner.criterion, pruner.structure, pruner.allocation
    if structure.kind not in criterion.kinds:
        fits = ", ".join(sorted(criterion.kinds))
        raise ConfigError(
            f"pruner: {type(criterion).__name__} knows {fits}, and the units of {structure.name} are "
            f"{structure.kind}. Choose another pruner/criterion or pruner/structure."
        )
    _check_projections(criterion, structure)
    if structure.kind not in allocation.kinds:
        raise ConfigError(
            f"pruner: {type(allocation).__name__} shares out {', '.join(sorted(allocation.kinds))}, and the units of "
            f"{structure.name} are {structure.kind}. Choose another pruner/allocation or pruner/structure."
        )
    if not allocation.fits(structure):
        raise ConfigError(
            f"pruner.allocation={type(allocation).__name__}: shares units out among groups, but "
            f"{type(structure).__name__} has one group, or a pattern that fixes the share of each. "
            "Choose pruner/allocation=layerwise."
        )
    only = structure.only_sparsity
    targets = config.schedule.targets(config.sparsity)
    if only is not None and any(target != 0 and abs(target - only) > SAME for target in targets):
        steps = "" if len(targets) == 1 else f", in steps of {', '.join(f'{target:g}' for target in targets)}"
        raise ConfigError(
            f"sparsity={config.sparsity}{steps}: must be 0 or {round(only, 4):g} with "
            f"{type(structure).__name__}, whose pattern says how many weights stay. "
            f"Choose sparsity={round(only, 4):g} and schedule=one_shot."
        )
    if pruner.in_turn and (allocation.compares_scores or config.pruner.budget.tries):
        chosen = type(allocation if allocation.compares_scores else config.pruner.budget)
        raise ConfigError(
            f"pruner: {chosen.__name__} compares the scores of all groups, but {type(criterion).__name__} scores a "
            "layer after those before it are pruned. Choose pruner/allocation=layerwise and pruner/budget=units, or "
            "pruner.criterion.sequential=false."
        )
    if pruner.shuffled and criterion.chooses:
        raise ConfigError(
            f"pruner.shuffled=true: must be false with {type(criterion).__name__}, which chooses weights while it "
            "changes them. Shuffle another criterion, such as pruner/criterion=magnitude."
        )


def _check_training(config: RunConfig) -> None:
    pipeline, schedule = config.pipeline, config.schedule
    if len(schedule.targets(config.sparsity)) > 1 and "initialise" in pipeline.repeat:
        raise ConfigError(
            "pipeline draws the weights anew at each step of the schedule, so that all but the last recovery would be "
            "lost. Choose schedule=one_shot."
        )
    if not schedule.during_recovery:
        return
    if config.recovery.lora is not None:
        raise ConfigError(
            f"schedule={type(schedule).__name__} grows weights while the model trains, and with recovery.lora they are "
            "frozen. Choose recovery.lora=null."
        )
    for pruner in config.pruner.pruners:
        if pruner.structure.kind != "weights" or pruner.structure.even:
            why = "its pattern would be lost" if pruner.structure.even else "it has none: its units are cut out"
            raise ConfigError(
                f"schedule={type(schedule).__name__} moves masks while the model trains, and of "
                f"{pruner.structure.name} {why}. Choose pruner/structure=weights."
            )
    if config.runtime.shard:
        raise ConfigError(
            f"runtime.shard=true: must be false with schedule={type(schedule).__name__}, which ranks whole matrices."
        )


def _check_budget(config: RunConfig) -> None:
    budget = config.pruner.budget
    chosen = f"pruner/budget={type(budget).__name__.lower()}"
    for pruner in config.pruner.pruners:
        structure, allocation = pruner.structure, pruner.allocation
        if structure.kind not in budget.kinds:
            raise ConfigError(
                f"{chosen}: must be a budget of which pruner/structure={structure.name} saves some: a model computes "
                f"as much without its {structure.kind}. Choose pruner/budget=units or parameters."
            )
        if budget.tries and allocation.searches:
            raise ConfigError(
                f"{chosen}: must be units with pruner.allocation={type(allocation).__name__}, which tries models out "
                "for one sparsity and cannot be asked about many. Choose pruner/budget=units or "
                "pruner/allocation=layerwise."
            )


def _check_export(config: RunConfig) -> None:
    prunes = config.evaluate is None and config.sparsity > 0 and "prune" in config.pipeline.repeat
    uneven = any(
        pruner.structure.kind in ("neurons", "heads") and not pruner.allocation.even for pruner in config.pruner.pruners
    )
    if config.save_model and prunes and uneven and not config.export.uneven:
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


def _check_projections(criterion: Criterion, structure: Structure) -> None:
    """Matrices that the criterion is told to look at are named as the structure names them."""
    given = list(getattr(criterion, "projections", None) or ())
    if unknown := [name for name in given if name not in structure.matrices]:
        raise ConfigError(
            f"pruner.criterion.projections={given}: must be among {', '.join(structure.matrices)}, which the units of "
            f"{structure.name} are made of, or null for all; not {', '.join(unknown)}."
        )
