"""What every sweep of runs does: check all before the first starts, skip what has finished, go on past failures."""

from __future__ import annotations

import datetime
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from regraft import interruption
from regraft.config.ranges import ConfigError, Incompatible
from regraft.environment import commit, started_together
from regraft.records import MANIFEST, Launch, Manifest, Record, SchemaError
from regraft.stages.plan import run_id
from regraft.sweeps import worker
from regraft.sweeps.composition import Composer
from regraft.sweeps.failures import RunBusy, RunKilled, RunStopped, SweepFailed, table
from regraft.sweeps.identity import choices, register, resolved
from regraft.sweeps.jobs import Finished, Job

log = logging.getLogger(__name__)

SECONDS_UNTIL_ASKED_AGAIN = 2.0
"""Between two looks at runs that another process is doing."""
EXTRAS = {"slurm": "slurm", "ray_workers": "ray"}
"""Launcher -> extra of regraft that installs it."""
DRIFTED = (
    "the config changed after the sweep had begun (a YAML file was edited?): what was run lies under another id. "
    "Run the same command again."
)


class RunsSweeper(BasicSweeper):
    """Hands runs to the launcher, and answers for each.

    Args:
        max_batch_size: Runs handed to the launcher at once; null hands over all.
        params: Keys and values to sweep, as on the command line; the command line comes first.
    """

    skip_refused = False
    """Whether points whose choices do not go together are left out."""

    def __init__(self, max_batch_size: int | None, params: dict[str, str] | None = None) -> None:
        super().__init__(max_batch_size, params)
        self._launched = 0
        self._time = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before the sweep.

        Raises:
            ConfigError: The launcher is not installed.
        """
        try:
            super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        except RuntimeError as error:
            chosen = config.hydra.runtime.choices.get("hydra/launcher")
            if "Unknown plugin class" not in str(error) or chosen not in EXTRAS:
                raise
            install = f"pip install 'regraft[{EXTRAS[chosen]}]'"
            raise ConfigError(f"hydra/launcher={chosen}: must be installed. {install} installs it.") from None

    @property
    def folder(self) -> Path:
        """The sweep's."""
        assert self.config is not None
        return Path(self.config.hydra.sweep.dir)

    def parameters(self, arguments: Sequence[str]) -> list[str]:
        """The overrides of the command line, and the sweeper's own where it says nothing."""
        given = {argument.split("=")[0].lstrip("+~") for argument in arguments}
        return [*(param for param in self._parse_config() if param.split("=")[0].lstrip("+~") not in given), *arguments]

    def finish(self, jobs: Sequence[Sequence[str]]) -> list[Finished]:
        """See to it that each job has run; equal ones run once.

        The answers are in the order of `jobs`, without those that `skip_refused` leaves out.

        Raises:
            ConfigError: The config of a run is wrong; no run has started.
            SchemaError: A run of another version of regraft is in the way; no run has started.
            SweepFailed: The launcher could not start anything.
            Stopped: The process was told to stop; the same jobs go on from there.
        """
        if started_together() > 1:
            raise ConfigError(
                f"WORLD_SIZE={started_together()}: processes that are started together (torchrun) do one run, without "
                "-m. Runs of a sweep go to several GPUs with hydra/launcher=slurm or hydra/launcher=ray_workers."
            )
        register()
        worker.begin_sweep()
        assert self.config is not None and self.hydra_context is not None
        self._composer = Composer(self.hydra_context.config_loader, self.config)
        planned = self._planned(jobs)
        by_id = {job.run_id: job for job in planned}
        todo = [job for job in by_id.values() if not job.is_finished]
        log.info("%s: %s, %d to do", self.folder, _counted(len(planned), len(by_id)), len(todo))
        self.folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, self.folder / "multirun.yaml")
        self._note(list(by_id.values()))
        errors = self._run(todo)
        return [Finished(job.overrides, job.run_id, job.folder, errors.get(job.run_id)) for job in planned]

    def _planned(self, jobs: Sequence[Sequence[str]]) -> list[Job]:
        planned = []
        refused: Counter[str] = Counter()
        for overrides in jobs:
            try:
                config = self._composer.config(overrides)
            except Incompatible as error:
                if not self.skip_refused:
                    raise
                refused[str(error).removeprefix(f"{' '.join(overrides)}: ")] += 1
                continue
            name = run_id(config)
            planned.append(Job(tuple(overrides), name, self.folder / name, config.save_model))
        for reason, points in refused.most_common():
            log.info("%s: %d points of the grid are left out: %s", self.folder, points, reason)
        return planned

    def _note(self, jobs: Sequence[Job]) -> None:
        """Write down what is asked for, together with what was asked for before."""
        assert self.config is not None
        with FileLock(self.folder / f".{MANIFEST}.lock"):
            try:
                manifest = Manifest.load(self.folder)
            except SchemaError:
                raise
            except ValueError as error:
                raise ConfigError(str(error)) from None
            except FileNotFoundError:
                manifest = Manifest(sweep=self.folder.name, runs={}, launches=[])
            asked = {
                job.run_id: [override for override in job.overrides if not override.startswith("+hydra.")]
                for job in jobs
            }
            launches = manifest.launches
            if launches and launches[-1].time == self._time:
                # a search asks batch by batch
                launches[-1] = replace(launches[-1], runs=launches[-1].runs + len(jobs))
            else:
                overrides = [*self.config.hydra.overrides.hydra, *self.config.hydra.overrides.task]
                launches.append(Launch(time=self._time, commit=commit(), overrides=overrides, runs=len(jobs)))
            Manifest(sweep=manifest.sweep, runs=manifest.runs | asked, launches=launches).save(self.folder)

    def _run(self, todo: list[Job]) -> dict[str, str]:
        """Run id -> error of those that failed; every other job has finished."""
        errors: dict[str, str] = {}
        before = {job.run_id: job.record for job in todo}
        size = self.max_batch_size or max(len(todo), 1)
        while todo:
            batch = [job for job in todo if not job.is_running][:size]
            if batch:
                self._batch(batch, errors)
            else:
                # all of them are being done by other processes
                time.sleep(SECONDS_UNTIL_ASKED_AGAIN)
                interruption.check()
            todo = [job for job in todo if job.run_id not in errors and not job.is_finished]
            # a record that is new and not of a finished run: it failed, here or there
            new = [job for job in todo if not job.is_running and job.record != before[job.run_id]]
            errors |= {job.run_id: job.error or "" for job in new}
            todo = [job for job in todo if job not in new]
        return errors

    def _batch(self, batch: list[Job], errors: dict[str, str]) -> None:
        """Hand jobs to the launcher once; those whose process ended under them run once more."""
        before = {job.run_id: job.record for job in batch}
        lost, ended = self._launch(batch, errors)
        for job in ended:
            self._alone(job, errors)
        begun = any(job.is_finished or job.is_running or job.record != before[job.run_id] for job in batch)
        if lost is not None and not ended and not begun:
            raise SweepFailed(f"the launcher started nothing ({type(lost).__name__}: {lost})") from lost

    def _alone(self, job: Job, errors: dict[str, str]) -> None:
        """Run again, with nothing beside it, a run whose process ended under it; if that ends too, its record says so.

        So a run that needs more memory than there is takes no other run with it.
        """
        log.warning("%s: its process ended; it runs once more, alone", job.run_id)
        before = job.record
        lost, ended = self._launch([job], errors)
        if job.run_id in errors or job.is_finished or job.is_running or job.record != before:
            return
        if ended:
            why = " ".join(str(lost or "it was told to stop").split())
            told = f"killed: the process of this run ended twice, most likely for lack of memory: {why}"
            errors[job.run_id] = self._leave(job, told)
        elif lost is not None:
            errors[job.run_id] = self._leave(job, f"{type(lost).__name__}: {lost}")

    def _launch(self, jobs: Sequence[Job], errors: dict[str, str]) -> tuple[Exception | None, list[Job]]:
        """Hand jobs to the launcher.

        Returns:
            The launcher's own error, if it lost the jobs, and those jobs whose process ended under them.

        Raises:
            Stopped: The process was told to stop.
        """
        assert self.launcher is not None
        before = {job.run_id: job.record for job in jobs}
        try:
            with interruption.forwarding(worker.children):
                results: Sequence[JobReturn] = self.launcher.launch(
                    [job.overrides for job in jobs], initial_job_idx=self._launched
                )
        except Exception as error:
            interruption.check()
            return error, [job for job in jobs if not job.is_finished and job.was_killed]
        finally:
            self._launched += len(jobs)
        interruption.check()
        ended = []
        for job, result in zip(jobs, results, strict=True):
            value = result._return_value
            if isinstance(value, (RunStopped, RunKilled)):
                ended.append(job)
            elif result.status is JobStatus.COMPLETED and not job.is_finished:
                errors[job.run_id] = DRIFTED
            elif result.status is JobStatus.FAILED and not isinstance(value, RunBusy):
                left = job.error if job.record != before[job.run_id] else None
                errors[job.run_id] = left or self._leave(job, str(value) or type(value).__name__)
        if any(isinstance(result._return_value, RunStopped) for result in results):
            worker.dismiss()  # a worker that was told to stop does nothing more
        return None, ended

    def _leave(self, job: Job, error: str) -> str:
        """A failed record for a run that could not leave one; returns the error."""
        composed = self._composer.whole(job.overrides)
        Record(
            run_id=job.run_id,
            sweep=job.folder.parent.name,
            status="failed",
            error=error,
            config=resolved(composed, composed.hydra),
            choices=choices(composed.hydra),
            environment={"commit": commit()},
            stages=[],
            rows=[],
        ).save(job.folder)
        return error


def _counted(runs: int, different: int) -> str:
    return f"{runs:,} runs" + (f" ({different:,} different)" if different < runs else "")


def failed(results: Sequence[Finished]) -> SweepFailed | None:
    """The error that lists the failures, if there are any; a run that was asked for twice is counted once."""
    by_id: dict[str, Any] = {result.run_id: result for result in results}
    failures = [(name, each.overrides, each.error) for name, each in by_id.items() if each.error is not None]
    if not failures:
        return None
    return SweepFailed(
        f"{len(failures)} of {len(by_id)} runs failed; the same command runs them again:\n{table(failures)}"
    )
