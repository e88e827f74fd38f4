"""The config of one run, typed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

from regraft.config.checkpoint import Checkpoint
from regraft.config.compatibility import check
from regraft.config.components import Allowed, build, validated
from regraft.config.ranges import ConfigError, Incompatible, require
from regraft.evaluation.evaluation import Evaluation
from regraft.interfaces import Batches, Component, Exporter, Loss, Model, Schedule, Task, Teacher, Tracker
from regraft.pruning.calibration import CalibrationQuestions
from regraft.pruning.pruner import Pruning
from regraft.records import CHECKPOINT
from regraft.recovery.training import Training
from regraft.secrets import holding
from regraft.stages.pipeline import Pipeline
from regraft.stages.preparation import AsLoaded, FineTune


@dataclass(frozen=True, kw_only=True)
class Runtime(Component):
    """Where a run computes: no part of a run's identity. Results of different devices are kept apart in the cache."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device of the models; `auto` takes CUDA if there is one, else the CPU."""
    threads: int = 1
    """CPU threads of a run. A sweep runs one process a core, so one; more pays for a large model run alone."""
    cache: str | None = None
    """Folder of the cache; null takes `$REGRAFT_CACHE`, else `regraft` in the user's cache folder."""
    cache_gb: float | None = 200.0
    """Gigabytes above which the cache removes what was used longest ago; null bounds nothing."""
    checkpoint_steps: int | None = 200
    """Optimizer steps after which a training is kept, so that a killed run goes on from there; null keeps it at its end
    and when it is told to stop. Weights, optimizer and moments of a model with p parameters take 12 p bytes."""
    shard: bool = False
    """With several processes (torchrun): divide weights, gradients and moments among them (FSDP). Otherwise each holds
    all of them (DDP)."""
    progress: bool = True
    """Whether training shows a progress bar."""

    def __post_init__(self) -> None:
        require(self.threads >= 1, "threads", self.threads, "at least 1")
        require(self.cache_gb is None or self.cache_gb > 0, "cache_gb", self.cache_gb, "null or above 0")
        steps = self.checkpoint_steps
        require(steps is None or steps >= 1, "checkpoint_steps", steps, "null or at least 1")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that one run is told."""

    sparsity: float
    """Share to remove, in [0, 1): of the units of each pruned block, or of what `pruner.budget` counts."""
    seed: int
    """Moves the order of recovery questions, sampling, and the random criterion."""
    save_model: bool
    """Whether the run folder gets a `checkpoint/`, in the format of `export`."""
    evaluate: Checkpoint | None
    """A saved model to evaluate instead of running the pipeline."""
    sweep: str | None
    """Name of the sweep's folder; null takes the experiment's name."""
    model: Model
    task: Task
    preparation: AsLoaded | FineTune
    pruner: Pruning
    calibration: CalibrationQuestions
    schedule: Schedule
    loss: Loss
    teacher: Teacher
    batches: Batches
    recovery: Training
    pipeline: Pipeline
    evaluation: Evaluation
    export: Exporter
    tracker: Tracker
    runtime: Runtime

    def __post_init__(self) -> None:
        require(
            math.isfinite(self.sparsity) and 0 <= self.sparsity < 1,
            "sparsity",
            self.sparsity,
            "a number in [0, 1)",
            "0.5 removes half of the units of each pruned block.",
        )
        require(self.seed >= 0, "seed", self.seed, "at least 0")
        try:
            check(self)
        except ConfigError as error:
            raise Incompatible(str(error)) from None

    @property
    def model_file(self) -> str | None:
        """The file, below the run folder, by which the saved model is known; None if none is saved."""
        return f"{CHECKPOINT}/{self.export.file}" if self.save_model else None


def told_secret(key: str) -> str:
    """What to say of a key of the config that holds a secret."""
    return (
        f"{key}: holds what looks like a key, a token or a password, and configs are written into records. Take it "
        "out; put it where its library looks for it: WANDB_API_KEY, HF_TOKEN, or a netrc file."
    )


def load(plain: Mapping[str, Any], folders: tuple[Path, ...] = ()) -> RunConfig:
    """The typed config of resolved plain data.

    Args:
        plain: The composed config without Hydra's own part.
        folders: Folders given with `--config-dir`, whose classes may be named.

    Raises:
        ConfigError: With the key, the value, what is allowed and the next step.
    """
    if secrets := holding(plain):
        raise ConfigError(told_secret(secrets[0]))
    allowed = Allowed(folders)
    names = [field.name for field in fields(RunConfig)]
    hints = get_type_hints(RunConfig)
    for key in plain:
        if key not in names:
            raise ConfigError(f"{key}: no such key; the top-level keys are {', '.join(names)}.")
    values: dict[str, Any] = {}
    for name in names:
        if name not in plain:
            raise ConfigError(f"{name}: is missing from the config; see conf/config.yaml.")
        if name == "evaluate":
            values[name] = None if plain[name] is None else Checkpoint(Path(str(plain[name])))
        else:
            values[name] = validated(build(plain[name], name, allowed), hints[name], name)
    return RunConfig(**values)
