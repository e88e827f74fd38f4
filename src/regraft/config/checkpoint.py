"""A saved model folder, to be evaluated again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regraft.config.ranges import ConfigError, require
from regraft.records import Record, is_finished

FROM_RECORD = (
    *(
        "model",
        "task",
        "preparation",
        "pruner",
        "calibration",
        "schedule",
        "loss",
        "teacher",
        "batches",
        "recovery",
        "pipeline",
    ),
    *("evaluation", "sparsity", "seed"),
)
"""What a checkpoint's own run decides."""
MAY_DIFFER = ("task", "evaluation")
"""Of these, what the command line may say otherwise: how the checkpoint is measured, not how it was made."""


@dataclass(frozen=True)
class Checkpoint:
    """A folder that holds a plain transformers model."""

    path: Path

    def __post_init__(self) -> None:
        there = (self.path / "config.json").is_file()
        require(
            there, "evaluate", self.path, "a folder with a saved model (config.json)", "save_model=true writes one."
        )

    @property
    def run(self) -> Path | None:
        """The folder of the run that wrote the checkpoint, if it is one: then the dense model is known as well."""
        folder = self.path.resolve().parent
        return folder if is_finished(folder) else None

    def identity(self) -> dict[str, Any]:
        """Name, size and time of each file."""
        files = sorted(file for file in self.path.iterdir() if file.is_file())
        return {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in files}


def as_its_run(plain: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The config with which to evaluate a checkpoint: that of its own run, where the command line gives nothing else.

    Args:
        plain: The composed config, with `evaluate` set.
        overrides: What the command line gave, as `key=value`.

    Raises:
        ConfigError: The command line says of how the checkpoint was made what its run does not.
    """
    run = Checkpoint(Path(str(plain["evaluate"]))).run
    if run is None:
        return dict(plain)
    given = [override.lstrip("+~").split("=")[0] for override in overrides]
    made = {key: value for key, value in Record.load(run).config.items() if key in FROM_RECORD}
    merged = dict(plain) | made
    for path in given:
        key, *below = path.split(".")
        if key.split("/")[0] in FROM_RECORD:
            merged[key] = _with(merged[key], plain[key], below) if below else plain[key]
    for key, value in made.items():
        if key not in MAY_DIFFER and merged[key] != value:
            (said,) = [override for override in overrides if override.lstrip("+~").startswith(key)][:1]
            raise ConfigError(
                f"{said}: must be left out, or be as in the run that made evaluate={plain['evaluate']}, which has "
                f"{_told(key, value)}."
            )
    return merged


def _told(key: str, value: Any) -> str:
    return f"another {key} (see its record.json)" if isinstance(value, Mapping) else f"{key}={value}"


def _with(kept: Any, composed: Any, path: list[str]) -> Any:
    """`kept` with the one value at `path` taken from `composed`."""
    if not path:
        return composed
    return {**kept, path[0]: _with(kept.get(path[0], {}), composed[path[0]], path[1:])}
