"""`regraft ...`: compose the config, check it, hand it over."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from regraft.config.ranges import ConfigError
from regraft.records import Record, is_finished
from regraft.sweeps.failures import RunFailed, SweepFailed
from regraft.sweeps.identity import register, resolved, typed
from regraft.sweeps.watch import watched


def conf() -> Path:
    """The folder of the YAML files: inside the installed package, or the repository's."""
    inside = Path(__file__).parent / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "conf"


def task(composed: DictConfig) -> None:
    """One run.

    Raises:
        RunFailed: The run failed. Raised afresh, so that no traceback keeps a model in memory.
    """
    settings: DictConfig = HydraConfig.get()  # type: ignore[assignment]
    config = typed(composed, settings)
    folder = Path(settings.runtime.output_dir)
    if is_finished(folder, config.save_model):
        sys.stdout.write(f"{folder}: finished before; nothing to do.\n")
        return
    from regraft.run import run

    choices = {str(group): str(choice) for group, choice in settings.runtime.choices.items() if choice is not None}
    choices = {group: choice for group, choice in choices.items() if not group.startswith("hydra")}
    if config.evaluate is not None:
        # what a checkpoint is, its own run knows
        choices = {} if config.evaluate.run is None else Record.load(config.evaluate.run).choices
    config = replace(config, tracker=watched(config.tracker))
    record = run(config, folder, resolved(composed, settings), choices, sweep=folder.parent.name)
    if record.error is not None:
        raise RunFailed(f"{record.error.splitlines()[0]} (whole error in {folder / 'record.json'})")
    sys.stdout.write(f"{folder}\n")


def main() -> None:
    """Entry point: errors of the user come out as one message, with exit code 1."""
    register()
    # let errors through to here, where they are told in one place
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        hydra.main(version_base="1.3", config_path=str(conf()), config_name="config")(task)()
    except (HydraException, OmegaConfBaseException, ConfigError, RunFailed, SweepFailed, OSError) as error:
        sys.stderr.write(f"regraft: {_cause(error)}\n")
        sys.exit(1)


def _cause(error: BaseException) -> BaseException:
    """The user's error behind the one that Hydra or OmegaConf made of it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConfigError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return error


if __name__ == "__main__":
    main()
