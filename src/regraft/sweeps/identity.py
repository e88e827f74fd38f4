"""From a config that Hydra composed to the typed config, and to the names of sweep and run."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from regraft.config.checkpoint import as_its_run
from regraft.config.ranges import ConfigError
from regraft.config.schema import RunConfig, load, told_secret
from regraft.secrets import is_named_secret, redact
from regraft.stages.plan import run_id


def resolved(composed: DictConfig, hydra: DictConfig) -> dict[str, Any]:
    """The task's part of a composed config as plain data, interpolations resolved."""
    own = OmegaConf.masked_copy(composed, [str(key) for key in composed if key not in ("hydra", "experiment")])
    container = OmegaConf.to_container(own, resolve=True)
    assert isinstance(container, dict)
    plain = {str(key): value for key, value in container.items()}
    return plain if plain["evaluate"] is None else as_its_run(plain, hydra.overrides.task)


def choices(hydra: DictConfig) -> dict[str, str]:
    """The chosen YAML of each config group of the task."""
    chosen = {str(group): str(choice) for group, choice in hydra.runtime.choices.items() if choice is not None}
    return {group: choice for group, choice in chosen.items() if not group.startswith("hydra")}


def user_folders(hydra: DictConfig) -> tuple[Path, ...]:
    """Folders given with `--config-dir`."""
    sources = OmegaConf.select(hydra, "runtime.config_sources") or []
    return tuple(Path(source.path) for source in sources if source.provider == "command-line" and source.path)


def typed(composed: DictConfig, hydra: DictConfig) -> RunConfig:
    """The typed config of one run.

    Raises:
        ConfigError: The config is wrong, or Hydra's own part would write a secret beside the run.
    """
    for override in (*hydra.overrides.hydra, *hydra.overrides.task):
        if redact(override) != override:
            raise ConfigError(told_secret(override.lstrip("+~").split("=")[0]))
    for name in (*hydra.job.env_copy, *hydra.job.env_set):
        if is_named_secret(str(name)):
            raise ConfigError(told_secret(f"hydra.job, {name}"))
    return load(resolved(composed, hydra), user_folders(hydra))


def sweep_name(*, _root_: DictConfig) -> str:
    """The sweep's name as given, else the experiment's."""
    if _root_.get("evaluate") is not None:
        return _root_.get("sweep") or "evaluate"
    return _root_.get("sweep") or _root_.hydra.runtime.choices.get("experiment") or "default"


def run_name(*, _root_: DictConfig) -> str:
    """The run's id."""
    return run_id(typed(_root_, _root_.hydra))


def register() -> None:
    """Make the names available to `conf/config.yaml`."""
    OmegaConf.register_new_resolver("sweep_name", sweep_name, replace=True)
    OmegaConf.register_new_resolver("run_id", run_name, replace=True)
    OmegaConf.register_new_resolver("python", lambda: shlex.quote(sys.executable), replace=True)
