"""What every sweep of runs does: check all before the first starts, skip what has finished, go on past failures."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from regraft import interruption
from regraft.environment import commit
from regraft.records import MANIFEST, RECORD, Launch, Manifest, Record, is_finished, was_killed
from regraft.stages.plan import run_id
from regraft.sweeps import worker
from regraft.sweeps.composition import Composer
from regraft.sweeps.failures import RunBusy, RunStopped, SweepFailed, table
from regraft.sweeps.identity import choices, register, resolved

log = logging.getLogger(__name__)

SECONDS_UNTIL_ASKED_AGAIN = 2.0
"""Between two looks at runs that another process is doing."""
DRIFTED = (
    "the config changed after the sweep had begun (a YAML file was edited?): what was run lies under another id. "
    "Run the same command again."
)


@dataclass(frozen=True)
class Job:
    """One run of the sweep."""

    overrides: tuple[str, ...]
    run_id: str
    folder: Path
    save_model: bool

    @property
    def is_finished(self) -> bool:
        return is_finished(self.folder, self.save_model)

    @property
    def left(self) -> tuple[int, int] | None:
        """Tells one record from another."""
        try:
            stat = (self.folder / RECORD).stat()
        except FileNotFoundError:
            return None
        return stat.st_ino, stat.st_mtime_ns

    @property
    def error(self) -> str | None:
        """Why its record is not that of a finished run."""
        try:
            return Record.load(self.folder).error
        except (FileNotFoundError, ValueError) as error:
            return str(error)


@dataclass(frozen=True)
class Finished:
    """What became of one job."""

    overrides: tuple[str, ...]
    run_id: str
    folder: Path
    error: str | None
    """None if the run has finished, now or before."""


class RunsSweeper(BasicSweeper):
    """Hands runs to the launcher, and answers for each.

    Args:
        max_batch_size: Runs handed to the launcher at once; null hands over all.
        params: Keys and values to sweep, as on the command line; the command line comes first.
    """

    def __init__(self, max_batch_size: int | None, params: dict[str, str] | None = None) -> None:
        super().__init__(max_batch_size, params)
        self._launched = 0

    @property
    def folder(self) -> Path:
        """The sweep's."""
        assert self.config is not None
        return Path(self.config.hydra.sweep.dir)

    def parameters(self, arguments: Sequence[str]) -> list[str]:
        """The overrides of the command line, and the sweeper's own where it says nothing."""
        given = {argument.split("=")[0].lstrip("+~") for argument in arguments}
        return [*(param for param in self._parse_config() if param.split("=")[0] not in given), *arguments]

    def finish(self, jobs: Sequence[Sequence[str]]) -> list[Finished]:
        """See to it that each job has run; equal ones run once. The answers are in the order of `jobs`.

        Raises:
            ConfigError: The config of a run is wrong; no run has started.
            SchemaError: A run of another version of regraft is in the way; no run has started.
            SweepFailed: The launcher could not start anything.
            Stopped: The process was told to stop; the same jobs go on from there.
        """
        register()
        worker.begin_sweep()
        assert self.config is not None and self.hydra_context is not None
        composer = Composer(self.hydra_context.config_loader, self.config)
        planned = [self._planned(composer, job) for job in jobs]
        by_id = {job.run_id: job for job in planned}
        todo = [job for job in by_id.values() if not job.is_finished]
        log.info("%s: %s, %d to do", self.folder, _counted(len(planned), len(by_id)), len(todo))
        self.folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, self.folder / "multirun.yaml")
        self._note(list(by_id.values()))
        errors = self._run(todo, composer)
        return [Finished(job.overrides, job.run_id, job.folder, errors.get(job.run_id)) for job in planned]

    def _planned(self, composer: Composer, overrides: Sequence[str]) -> Job:
        config = composer.config(overrides)
        name = run_id(config)
        return Job(tuple(overrides), name, self.folder / name, config.save_model)

    def _note(self, jobs: Sequence[Job]) -> None:
        """Write down what is asked for, together with what was asked for before."""
        assert self.config is not None
        with FileLock(self.folder / f".{MANIFEST}.lock"):
            try:
                manifest = Manifest.load(self.folder)
            except FileNotFoundError:
                manifest = Manifest(sweep=self.folder.name, runs={}, launches=[])
            launch = Launch(
                time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                commit=commit(),
                overrides=[*self.config.hydra.overrides.hydra, *self.config.hydra.overrides.task],
                runs=len(jobs),
            )
            runs = manifest.runs | {job.run_id: list(job.overrides) for job in jobs}
            Manifest(sweep=manifest.sweep, runs=runs, launches=[*manifest.launches, launch]).save(self.folder)

    def _run(self, todo: list[Job], composer: Composer) -> dict[str, str]:
        """Run id -> error of those that failed; every other job has finished."""
        errors: dict[str, str] = {}
        size = self.max_batch_size or max(len(todo), 1)
        while todo:
            batch, rest = todo[:size], todo[size:]
            left = {job.run_id: job.left for job in batch}
            lost, interrupted = self._launch(batch, errors)
            for job in interrupted:
                self._alone(job, composer, errors)
            again = [job for job in batch if job.run_id not in errors and not job.is_finished]
            if lost is not None:
                # the launcher forgot the batch: what failed in it is known from its record
                new = [job for job in again if job.left != left[job.run_id]]
                errors |= {job.run_id: job.error or str(lost) for job in new}
                again = [job for job in again if job not in new]
                if len(again) == len(batch):
                    raise SweepFailed(f"the launcher started nothing ({type(lost).__name__}: {lost})") from lost
            elif len(again) == len(batch) and not rest:
                time.sleep(SECONDS_UNTIL_ASKED_AGAIN)  # all of them are being done by another process
            todo = rest + [job for job in again if not job.is_finished]
        return errors

    def _alone(self, job: Job, composer: Composer, errors: dict[str, str]) -> None:
        """Run again, with nothing beside it, a run whose process ended under it; if that ends too, its record says so.

        So a run that needs more memory than there is takes no other run with it.
        """
        log.warning("%s: its process ended; it runs once more, alone", job.run_id)
        lost, interrupted = self._launch([job], errors)
        if job.is_finished or job.run_id in errors:
            return
        if interrupted:
            _leave_killed(job, composer, lost)
        errors[job.run_id] = job.error or str(lost)

    def _launch(self, jobs: Sequence[Job], errors: dict[str, str]) -> tuple[Exception | None, list[Job]]:
        """Hand jobs to the launcher.

        Returns:
            The launcher's own error, if it lost the jobs, and those jobs whose process ended under them.

        Raises:
            Stopped: The process was told to stop.
        """
        assert self.launcher is not None
        try:
            with interruption.forwarding(worker.children):
                results: Sequence[JobReturn] = self.launcher.launch(
                    [job.overrides for job in jobs], initial_job_idx=self._launched
                )
        except Exception as error:
            interruption.check()
            return error, [job for job in jobs if not job.is_finished and was_killed(job.folder)]
        finally:
            self._launched += len(jobs)
        interruption.check()
        interrupted = []
        for job, result in zip(jobs, results, strict=True):
            value = result._return_value
            if isinstance(value, RunStopped):
                interrupted.append(job)
            elif result.status is JobStatus.FAILED and not isinstance(value, RunBusy):
                errors[job.run_id] = str(value) or type(value).__name__
            elif result.status is JobStatus.COMPLETED and not job.is_finished:
                errors[job.run_id] = DRIFTED
        if interrupted:
            worker.dismiss()  # a worker that was told to stop does nothing more
        return None, interrupted


def _counted(runs: int, different: int) -> str:
    return f"{runs:,} runs" + (f" ({different:,} different)" if different < runs else "")


def _leave_killed(job: Job, composer: Composer, lost: Exception | None) -> None:
    composed = composer.whole(job.overrides)
    told = " ".join(str(lost or "it was told to stop").split())
    Record(
        run_id=job.run_id,
        sweep=job.folder.parent.name,
        status="failed",
        error=f"killed: the process of this run ended twice, most likely for lack of memory: {told}",
        config=resolved(composed, composed.hydra),
        choices=choices(composed.hydra),
        environment={"commit": commit()},
        stages=[],
        rows=[],
    ).save(job.folder)


def failed(results: Sequence[Finished]) -> SweepFailed | None:
    """The error that lists the failures, if there are any; a run that was asked for twice is counted once."""
    by_id: dict[str, Any] = {result.run_id: result for result in results}
    failures = [(name, each.overrides, each.error) for name, each in by_id.items() if each.error is not None]
    if not failures:
        return None
    return SweepFailed(
        f"{len(failures)} of {len(by_id)} runs failed; the same command runs them again:\n{table(failures)}"
    )
