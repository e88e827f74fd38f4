"""What Hydra calls at the end of each run."""

from __future__ import annotations

import logging
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from regraft.sweeps.failures import RunBusy, RunFailed, RunStopped

log = logging.getLogger(__name__)


class KeepLittle(Callback):
    """Takes from the result of a run what nobody reads.

    Launchers keep the results of all runs until the last has ended: two whole configs each, and of a failed run the
    frames of its traceback, over a megabyte in all.
    """

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Forget the configs and the traceback; one that no record holds is logged before."""
        job_return.cfg = job_return.hydra_cfg = None
        if job_return.status is not JobStatus.FAILED:
            return
        error = job_return._return_value
        if not isinstance(error, (RunFailed, RunBusy, RunStopped)):
            log.error("the run could not be done", exc_info=error)
        while error is not None:
            error.__traceback__ = None
            error = error.__cause__ or error.__context__
