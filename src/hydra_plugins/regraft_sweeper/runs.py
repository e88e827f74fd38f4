"""Runs of a sweep: stub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

from regraft.config.ranges import ConfigError
from regraft.records import Record, is_finished
from regraft.stages.plan import run_id
from regraft.sweeps.identity import register, typed


class Finished(NamedTuple):
    """What became of a job; `error` is None if its run has finished."""

    overrides: Sequence[str]
    run_id: str
    folder: Path
    error: str | None


class RunsSweeper(BasicSweeper):
    """Checks jobs, skips those that are finished, runs the others."""

    def finish(self, jobs: Sequence[Sequence[str]]) -> list[Finished]:
        """Run what is not finished."""
        register()
        assert self.config is not None and self.launcher is not None and self.hydra_context is not None
        todo: dict[str, Sequence[str]] = {}
        names = []
        sweep = Path(self.config.hydra.sweep.dir)
        for job in jobs:
            composed = self.hydra_context.config_loader.load_sweep_config(self.config, list(job))
            try:
                config = typed(composed, composed.hydra)
            except ConfigError as error:
                raise ConfigError(f"{' '.join(job)}: {error}") from None
            names.append(run_id(config))
            if not is_finished(sweep / names[-1], config.save_model):
                todo.setdefault(names[-1], job)
        if todo:
            self.launcher.launch(list(todo.values()), initial_job_idx=self.batch_index)
            self.batch_index += len(todo)
        found = []
        for name, job in zip(names, jobs, strict=True):
            why: str | None = "left no record"
            if (sweep / name / "record.json").exists():
                record = Record.load(sweep / name)
                why = record.error.splitlines()[0] if record.error else None
            found.append(Finished(job, name, sweep / name, why))
        return found
