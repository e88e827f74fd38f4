"""A grid that checks every run before the first starts, skips finished ones, and goes on past failures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from regraft.config.ranges import ConfigError
from regraft.records import is_finished
from regraft.stages.plan import run_id
from regraft.sweeps.failures import SweepFailed
from regraft.sweeps.identity import register, typed

log = logging.getLogger(__name__)


class ResumeSweeper(BasicSweeper):
    """Hydra's grid sweeper, but resumable.

    Args:
        max_batch_size: Runs handed to the launcher at once; null hands over all.
        params: Keys and values to sweep, as on the command line; the command line comes first.
    """

    def __init__(self, max_batch_size: int | None, params: dict[str, str] | None = None) -> None:
        super().__init__(max_batch_size, params)

    def sweep(self, arguments: list[str]) -> Any:
        """Run what is missing.

        Raises:
            ConfigError: The config of a run is wrong; no run has started.
            SweepFailed: Some runs failed; all others were run.
        """
        register()
        assert self.config is not None and self.launcher is not None and self.hydra_context is not None
        given = {argument.split("=")[0].lstrip("+~") for argument in arguments}
        params = [param for param in self._parse_config() if param.split("=")[0] not in given]
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        jobs = self.split_arguments(parser.parse_overrides(params + arguments), None)
        folder = Path(self.config.hydra.sweep.dir)
        todo = self._missing([job for batch in jobs for job in batch], folder)
        total = sum(len(batch) for batch in jobs)
        log.info("%s: %d runs, %d to do", folder, total, len(todo))
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        returns: list[Sequence[JobReturn]] = []
        failures: list[str] = []
        size = self.max_batch_size or max(len(todo), 1)
        for first in range(0, len(todo), size):
            try:
                results = self.launcher.launch(todo[first : first + size], initial_job_idx=first)
            except Exception as error:
                # a worker was killed: the launcher forgets the whole batch, but what finished has its record
                failures.append(f"  a worker died ({type(error).__name__}), perhaps for lack of memory: {error}")
                continue
            returns.append(results)
            for result in results:
                if result.status is JobStatus.FAILED:
                    failures.append(f"  {' '.join(result.overrides or [])}: {result._return_value}")
        if failures:
            raise SweepFailed(
                f"{len(failures)} of {len(todo)} runs failed; the same command runs them again:\n" + "\n".join(failures)
            )
        return returns

    def _missing(self, jobs: list[Sequence[str]], folder: Path) -> list[Sequence[str]]:
        """The jobs without a finished record, each run once; every config is checked first."""
        assert self.config is not None and self.hydra_context is not None
        missing: dict[str, Sequence[str]] = {}
        for job in jobs:
            composed = self.hydra_context.config_loader.load_sweep_config(self.config, list(job))
            try:
                config = typed(composed, composed.hydra)
            except ConfigError as error:
                raise ConfigError(f"{' '.join(job)}: {error}") from None
            identity = run_id(config)
            if identity not in missing and not is_finished(folder / identity, config.save_model):
                missing[identity] = job
        return list(missing.values())
