"""`regraft ...`: compose the config, check it, hand it over."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from regraft import interruption
from regraft.config.ranges import ConfigError
from regraft.config.schema import RunConfig
from regraft.environment import rank
from regraft.records import Record, SchemaError, is_finished
from regraft.secrets import excepthook, redact
from regraft.sweeps import worker
from regraft.sweeps.claims import claimed
from regraft.sweeps.failures import RunBusy, RunFailed, RunStopped, SweepFailed
from regraft.sweeps.identity import choices, register, resolved, typed
from regraft.sweeps.watch import watched
from regraft.tracking.guard import Guarded


def conf() -> Path:
    """The folder of the YAML files: inside the installed package, or the repository's."""
    inside = Path(__file__).parent / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "conf"


def task(composed: DictConfig) -> None:
    """One run, unless it has finished or another process is doing it.

    Raises:
        RunFailed: The run failed. Raised afresh, so that no traceback keeps a model in memory.
        RunBusy: Another process is doing it.
        Stopped: The process was told to stop. A worker says so by RunStopped, lest its launcher ends the other workers.
    """
    settings: DictConfig = HydraConfig.get()  # type: ignore[assignment]
    config = typed(composed, settings)
    folder = Path(settings.runtime.output_dir)
    if worker.is_worker():
        worker.stop_with_the_sweep()
    try:
        # of processes that do a run together the first holds it for all
        held = claimed(folder) if rank() == 0 else contextlib.nullcontext()
        with interruption.watch(forever=worker.is_worker()), held:
            error: RuntimeError | None = _one(config, folder, composed, settings)
    except interruption.Stopped as stopped:
        if not worker.is_worker():
            raise
        if worker.is_orphan():
            os._exit(128 + stopped.number)  # nobody is left who would end this process
        error = RunStopped(f"{folder}: {stopped}")
    if error is not None:
        raise error


def _one(config: RunConfig, folder: Path, composed: DictConfig, settings: DictConfig) -> RunFailed | None:
    if is_finished(folder, config.model_file):
        sys.stdout.write(f"{folder}: finished before; nothing to do.\n")
        return None
    from regraft.run import run

    if not gc.get_freeze_count():
        # what the libraries brought stays as long as the process: to look through it after each run takes long
        gc.freeze()
    chosen = choices(settings)
    if config.evaluate is not None:
        # what a checkpoint is, its own run knows
        chosen = {} if config.evaluate.run is None else Record.load(config.evaluate.run).choices
    config = replace(config, tracker=watched(Guarded(tracker=config.tracker)))
    record = run(config, folder, resolved(composed, settings), chosen, sweep=folder.parent.name)
    gc.collect()  # models lie in cycles: the next run would find them still there
    if record.error is not None:
        # one line: whoever wants the traceback finds it in the record
        return RunFailed(f"{record.error.splitlines()[0]} (whole error in {folder / 'record.json'})")
    sys.stdout.write(f"{folder}\n")
    return None


def main() -> None:
    """Entry point: errors of the user come out as one message, with exit code 1; a signal as 128 and its number."""
    register()
    sys.excepthook = excepthook
    # let errors through to here, where they are told in one place
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    # a launcher that reports usage does so only if it is asked to
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        hydra.main(version_base="1.3", config_path=str(conf()), config_name="config")(task)()
    except (HydraException, OmegaConfBaseException, ConfigError, SchemaError, OSError) as error:
        sys.stderr.write(redact(f"regraft: {_told(_cause(error), sys.argv[1:])}\n"))
        sys.exit(1)
    except (RunFailed, RunBusy, SweepFailed) as error:
        sys.stderr.write(redact(f"regraft: {error}\n"))
        sys.exit(1)
    except interruption.Stopped as stopped:
        sys.stderr.write(f"regraft: {stopped}; the same command goes on from here.\n")
        sys.exit(128 + stopped.number)


def _cause(error: BaseException) -> BaseException:
    """The user's error behind the one that Hydra or OmegaConf made of it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConfigError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return error


def _told(error: BaseException, arguments: Sequence[str]) -> str:
    """The message, and where Hydra only offers to append a key that it does not know, how to see those that are there.

    Appended it would be refused as well, unless the class has it.
    """
    unknown = re.match(r"Could not override '([^']+)'", str(error))
    if unknown is None:
        return str(error)
    key = unknown[1]
    above = key.rpartition(".")[0]
    others = [each for each in arguments if each not in ("-m", "--multirun") and each.split("=")[0] != key]
    look = shlex.join(["regraft", *others, "--cfg", "job", *(["--package", above] if above else [])])
    told = f"{key}: no such key with the choices that are made. `{look}` shows those that there are"
    return (
        f"{told}; +{key}=... gives one that the class of {above} has and its YAML leaves out." if above else f"{told}."
    )


if __name__ == "__main__":
    main()
