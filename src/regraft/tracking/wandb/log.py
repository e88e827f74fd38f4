"""Runs mirrored to Weights & Biases."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from regraft.cache import default_root
from regraft.config.ranges import require
from regraft.interfaces import RunInfo, RunLog, Tracker
from regraft.records import CHECKPOINT, PREDICTIONS, RECORD, SCORES, TRAINING, Record, Row, StageRecord, questions_file
from regraft.tracking.answers import Answers
from regraft.tracking.none import Silent
from regraft.tracking.wandb import keys

if TYPE_CHECKING:
    import pandas
    import wandb

FOLDER = "wandb"
"""In the run's folder: what W&B's service keeps while it sends; removed when all has arrived."""
LONGEST_TAG = 64
"""Characters that W&B takes."""
LEARNED = ("preparation", "recovery")
"""The questions that somebody learns from."""
HTTP_TIMEOUT = 5
"""Seconds within which the server must say whether it accepts the key; W&B asks at the beginning and for artifacts."""
SLOWEST = 1e6
"""Bytes a second: a checkpoint that is sent more slowly is given up."""
ASKED = "questions.parquet"
"""In the artifact: the questions that the run was asked."""


class WandbLog(RunLog):
    """An open W&B run.

    What is logged has a step of its own, the same whenever the run is done again: optimizer steps and stages so far.
    So a run that goes on, or is mirrored a second time, says nothing twice.

    Args:
        run: The W&B run.
        info: The run.
        log_every: Optimizer steps between two points of a training curve.
        log_model: Whether a saved checkpoint is sent.
        timeout: Seconds to wait for the files of the run.
    """

    def __init__(self, run: wandb.Run, info: RunInfo, log_every: int, log_model: bool, timeout: float) -> None:
        self._run, self._info = run, info
        self._log_every, self._log_model, self._timeout = log_every, log_model, timeout
        self._known = run.step
        self._steps = 0
        self._stages = 0
        self._changed = False
        self._answers = Answers()
        self._last: dict[str, float] = {}
        for key in (keys.STEP, keys.STAGE, *keys.SPARSITIES):
            run.define_metric(key, hidden=True)
        run.define_metric("recover/*", step_metric=keys.STEP)
        for of_stage in ("test/*", "selection/*", *keys.SIZES):
            run.define_metric(of_stage, step_metric=keys.BLOCK)
        for of_stage in ("scores/*", "layers/*"):
            run.define_metric(of_stage, step_metric=keys.STAGE)

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        self._steps = step
        if step % self._log_every == 0:
            self._log({keys.STEP: step} | {keys.training(name): value for name, value in metrics.items()})

    def stage(self, stage: StageRecord, rows: Sequence[Row], tables: Mapping[str, pandas.DataFrame]) -> None:
        logged: dict[str, Any] = {}
        if rows:
            numbers = keys.of_stage(stage, rows)
            if not self._last and not self._changed:
                # the dense model is asked what it and the student learn from as well, and no other model is
                self._run.summary.update({f"{keys.DENSE}/{name}": value for name, value in numbers.items()})
                numbers = keys.of_stage(stage, [row for row in rows if row.split not in LEARNED])
            self._last = numbers
            logged |= numbers | {keys.STEP: self._steps}
        if stage.stage == "prune" and "dense" in stage.details:
            logged |= {keys.STAGE: stage.index} | _layers(stage.details)
        if SCORES in tables:
            logged |= _histograms(tables[SCORES])
        if logged:
            self._log(logged)
        self._answers.stage(stage, tables)
        self._changed = self._changed or stage.stage in ("prune", "load")
        self._stages += 1

    def finish(self, record: Record | None) -> None:
        try:
            if record is None:
                self._run.mark_preempting()
            else:
                self._send(record)
        finally:
            self._run.finish(exit_code=0 if record is not None and record.status == "finished" else 1)
        if record is not None:
            self._check()
            forget(self._info.folder)

    def _check(self) -> None:
        """W&B says nothing of what a server refused (a quota), so it is asked what it has.

        Raises:
            TimeoutError: The last that was sent has not arrived.
        """
        import wandb

        api = wandb.Api(timeout=math.ceil(self._timeout / 2))
        until = time.monotonic() + self._timeout / 2
        while api.run(self._run.path).summary.get(keys.RECORD) != digest(self._info.folder):
            api.flush()
            if time.monotonic() > until:
                raise TimeoutError("not all of the run has arrived")
            time.sleep(0.5)

    def _send(self, record: Record) -> None:
        """What is known when all is done."""
        import wandb

        self._run.summary.update(self._last | _ends(record))
        if record.error is None and self._run.summary.get("error") is not None:
            del self._run.summary["error"]  # it failed before, and was done again
        if (table := self._answers.table(record, self._info.folder)) is not None:
            self._run.summary.update({keys.PREDICTIONS: wandb.Table(dataframe=table)})
        self._run.log_artifact(self._files(record)).wait(timeout=math.ceil(self._timeout))
        # set last: whoever finds it there finds all that came before
        self._run.summary.update({keys.RECORD: digest(self._info.folder)})
        if (model := self._checkpoint(record)) is not None:
            self._run.log_artifact(model).wait(timeout=math.ceil(self._timeout + (model.size or 0) / SLOWEST))

    def _log(self, numbers: Mapping[str, Any]) -> None:
        at = self._steps + self._stages
        if at >= self._known:
            self._run.log(dict(numbers), step=at)

    def _files(self, record: Record) -> wandb.Artifact:
        """The files of the run."""
        held = self._artifact("record", keys.ARTIFACT, record)
        files = {name: self._info.folder / name for name in (RECORD, PREDICTIONS, TRAINING, SCORES)}
        if (asked := questions_file(self._info.folder, record)) is not None:
            files[ASKED] = asked
        for name, path in files.items():
            if path.is_file():
                held.add_file(str(path), name=name, policy="immutable", skip_cache=True)
        return held

    def _checkpoint(self, record: Record) -> wandb.Artifact | None:
        """The model, if it was saved and is wanted."""
        folder = self._info.folder / CHECKPOINT
        if not self._log_model or record.status != "finished" or not folder.is_dir():
            return None
        saved = self._artifact("checkpoint", "model", record)
        saved.add_dir(str(folder), policy="immutable", skip_cache=True)
        return saved

    def _artifact(self, name: str, kind: str, record: Record) -> wandb.Artifact:
        import wandb

        about = {"run_id": record.run_id, "sweep": record.sweep, "status": record.status}
        return wandb.Artifact(f"{name}-{self._run.id}", type=kind, metadata=about)


def forget(folder: Path) -> None:
    """Remove from a run's folder what W&B kept there to send: all of it has arrived.

    What an earlier version left there for `wandb sync` stays.
    """
    if not any((folder / FOLDER).glob("offline-run-*")):
        shutil.rmtree(folder / FOLDER, ignore_errors=True)


def digest(folder: Path) -> str:
    """Of the record in a run's folder, as it is on disk."""
    return hashlib.sha256((folder / RECORD).read_bytes()).hexdigest()[:16]


def _layers(details: Mapping[str, Any]) -> dict[str, float]:
    """Share of each layer's units that is gone after a prune stage."""
    return {
        keys.layer(structure, number): removed / units
        for structure, layers in details["removed"].items()
        for number, (removed, units) in enumerate(zip(layers, details["dense"].get(structure, ()), strict=False))
        if units
    }


def _histograms(scores: pandas.DataFrame) -> dict[str, Any]:
    import numpy
    import wandb

    found = {}
    several = "structure" in scores and scores["structure"].nunique() > 1
    groups: list[tuple[Any, pandas.DataFrame]] = list(scores.groupby(["structure", "layer"] if several else "layer"))
    for number, (key, bins) in enumerate(groups):
        edges = numpy.append(bins["low"].to_numpy(), bins["high"].to_numpy()[-1])
        name = keys.scores(key[1], key[0]) if several else keys.scores(number)
        found[name] = wandb.Histogram(np_histogram=(bins["units"].to_numpy(), edges))
    return found


def _ends(record: Record) -> dict[str, Any]:
    """What the summary says of the run as a whole."""
    ends: dict[str, Any] = {"status": record.status, "seconds": sum(stage.seconds for stage in record.stages)}
    if record.error is not None:
        ends["error"] = record.error.strip().splitlines()[0]
    if (peak := record.environment.get("peak_memory_bytes")) is not None:
        ends["peak_memory_bytes"] = peak
    last = max((row.stage_index for row in record.rows), default=-1)
    measured = [row for row in record.rows if row.stage_index == last]
    for row in measured:
        if row.ci_low is not None and row.ci_high is not None:
            ends |= {f"{row.name}_ci_low": row.ci_low, f"{row.name}_ci_high": row.ci_high}
    return ends


@dataclass(frozen=True, kw_only=True)
class Wandb(Tracker):
    """Weights & Biases: each run of a sweep is a W&B run, whose group is the sweep and whose job type is the loss.

    Offline nothing of W&B is started and nothing is written: the record holds all of it, and `make sync` sends it.
    """

    title: ClassVar[str] = "W&B"
    later: ClassVar[str] = "`make sync SWEEP=NAME` sends it"

    mode: Literal["offline", "online"] = "offline"
    """`offline` leaves everything to `make sync`; `online` sends while the run goes. `WANDB_MODE=offline` decides for
    offline too."""
    project: str = "regraft"
    """W&B project."""
    entity: str | None = None
    """W&B user or team; null takes the account's default."""
    log_every: int = 1
    """Optimizer steps between two points of a training curve."""
    log_model: bool = False
    """Whether the checkpoint of `save_model=true` is sent too. The run waits for that, up to a second a megabyte."""
    timeout: float = 8.0
    """Seconds to wait for the server: at the beginning of a run, and at its end for files and for the rest each."""

    def __post_init__(self) -> None:
        require(self.log_every >= 1, "log_every", self.log_every, "at least 1")
        require(self.timeout > 0, "timeout", self.timeout, "above 0")

    def start(self, run: RunInfo) -> RunLog:
        if self.mode == "offline" or os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun"):
            return Silent()
        return self.open(run)

    def open(self, run: RunInfo) -> WandbLog:
        """The W&B run of `run`, new or gone on with.

        Raises:
            wandb.Error: There is no key, it is not accepted, or the server does not answer.
        """
        prepare()
        import wandb

        if not wandb.login(prompt=False):
            raise wandb.Error("no key is known. Set WANDB_API_KEY, or run `wandb login`")
        opened = wandb.init(
            project=self.project,
            entity=self.entity,
            id=keys.wandb_id(run.run_id, run.sweep),
            name=run.name,
            group=run.sweep,
            job_type=run.choices.get("loss"),
            tags=[tag[:LONGEST_TAG] for tag in run.tags],
            config=keys.config(run.config, run.choices, run.run_id, run.sweep) | {"environment": dict(run.environment)},
            dir=str(run.folder),
            mode="online",
            resume="allow",
            reinit="create_new",
            settings=settings(self.timeout, self.timeout, (run.environment.get("commit") or "").rstrip("+")),
        )
        return WandbLog(opened, run, self.log_every, self.log_model, self.timeout)


def settings(init_timeout: float, finish_timeout: float, commit: str = "") -> wandb.Settings:
    """A W&B run that keeps quiet, looks at nothing around it, and gives up in time.

    W&B's own retries stay as they are: if they ran out before `finish_timeout`, what is lost would be lost silently.
    """
    import wandb

    return wandb.Settings(
        console="off",
        silent=True,
        x_disable_stats=True,
        disable_git=True,
        git_commit=commit or None,
        init_timeout=init_timeout,
        finish_timeout=finish_timeout,
        finish_timeout_raises=True,
    )


def prepare() -> None:
    """What W&B reads from the environment when it is loaded: it says nothing, and keeps nothing in the home folder."""
    for name, value in (
        ("WANDB_SILENT", "true"),
        ("WANDB_ERROR_REPORTING", "false"),
        ("WANDB_HTTP_TIMEOUT", HTTP_TIMEOUT),
        ("WANDB_CACHE_DIR", default_root() / "wandb" / "cache"),
        ("WANDB_DATA_DIR", default_root() / "wandb" / "data"),
    ):
        os.environ.setdefault(name, str(value))
