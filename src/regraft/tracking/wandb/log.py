"""Runs mirrored to Weights & Biases, offline unless asked otherwise."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from regraft.config.ranges import require
from regraft.interfaces import RunInfo, RunLog, Tracker

if TYPE_CHECKING:
    import wandb

log = logging.getLogger(__name__)

STEP = "recover/step"
"""Optimizer steps over all recover stages of a run: the x axis of training curves."""
SPARSITY = "sparsity"
"""The x axis of what each stage measures."""


class WandbLog(RunLog):
    """An open W&B run."""

    def __init__(self, run: wandb.Run, log_every: int) -> None:
        self._run = run
        self._log_every = log_every
        self._broken = False
        run.define_metric(STEP, hidden=True)
        run.define_metric("recover/*", step_metric=STEP)
        run.define_metric(SPARSITY, hidden=True)
        run.define_metric("test/*", step_metric=SPARSITY)
        run.define_metric("selection/*", step_metric=SPARSITY)

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if step is None:
            self._try(lambda: self._run.log(dict(metrics)))
        elif step % self._log_every == 0:
            self._try(lambda: self._run.log({STEP: step, **metrics}))

    def summary(self, metrics: Mapping[str, Any]) -> None:
        self._try(lambda: self._run.summary.update(dict(metrics)))

    def finish(self, *, failed: bool) -> None:
        self._try(lambda: self._run.finish(exit_code=1 if failed else 0))

    def _try(self, action: Callable[[], object]) -> None:
        """The mirror may break; the run goes on, and says so once."""
        try:
            if not self._broken:
                action()
        except Exception as error:
            self._broken = True
            log.warning("W&B failed (%s); the run goes on without it, its record stays whole.", error)


@dataclass(frozen=True, kw_only=True)
class Wandb(Tracker):
    """Weights & Biases. A server that cannot be reached fails no run: it goes on offline."""

    mode: Literal["offline", "online"] = "offline"
    """`offline` writes into the run folder, for `wandb sync`; `online` streams."""
    project: str = "regraft"
    """W&B project."""
    entity: str | None = None
    """W&B user or team; null takes the account's default."""
    log_every: int = 1
    """Optimizer steps between two points of a training curve."""
    init_timeout: float = 30.0
    """Seconds to wait for the server before going on offline."""

    def __post_init__(self) -> None:
        require(self.log_every >= 1, "log_every", self.log_every, "at least 1")
        require(self.init_timeout > 0, "init_timeout", self.init_timeout, "above 0")

    def start(self, run: RunInfo) -> RunLog:
        import wandb

        try:
            return WandbLog(self._open(run, self.mode), self.log_every)
        except (wandb.Error, OSError) as error:
            if self.mode == "offline":
                raise
            log.warning("W&B cannot be reached (%s); this run is written offline, `wandb sync` sends it later.", error)
            # W&B's service still holds the id of the attempt and would refuse it to a second one
            wandb.teardown()
            return WandbLog(self._open(run, "offline"), self.log_every)

    def _open(self, run: RunInfo, mode: Literal["offline", "online"]) -> wandb.Run:
        import wandb

        settings = wandb.Settings(
            console="off", silent=True, x_disable_stats=True, init_timeout=self.init_timeout, disable_git=True
        )
        return wandb.init(
            project=self.project,
            entity=self.entity,
            id=run.run_id,
            name=run.name,
            group=run.sweep,
            job_type=run.job_type,
            tags=list(run.tags),
            config=dict(run.config),
            dir=str(run.folder),
            mode=mode,
            resume="allow" if mode == "online" else None,
            settings=settings,
        )
