"""What stops a run in which a search sees no hope. The run itself knows nothing of it: its tracker is wrapped."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.interfaces import RunInfo, RunLog, Tracker
from regraft.records import STOPPED_BY_SEARCH
from regraft.sweeps.journal import STUDY, Unmeasured, find, require_optuna, storage

if TYPE_CHECKING:
    import optuna
    import pandas
    from optuna.trial import FrozenTrial

    from regraft.records import Record, Row, StageRecord

TRIAL = "REGRAFT_TRIAL"
"""Environment variable of a run that a search watches: `<journal>:<number of the trial>`."""


class Hopeless(RuntimeError):
    """The search sees no hope for this run."""


def watched(tracker: Tracker) -> Tracker:
    """`tracker`; in a run that a search watches, one that also tells the search and stops the run when told to."""
    if not (where := os.environ.get(TRIAL)):
        return tracker
    journal, _, number = where.rpartition(":")
    return Watched(tracker=tracker, journal=journal, number=int(number))


@dataclass(frozen=True, kw_only=True)
class Watched(Tracker):
    """A tracker whose runs a search watches."""

    tracker: Tracker
    """What is watched."""
    journal: str
    """Journal of the search."""
    number: int
    """The run's trial."""

    def start(self, run: RunInfo) -> RunLog:
        require_optuna()
        import optuna

        study = optuna.load_study(
            study_name=STUDY,
            storage=storage(Path(self.journal)),
            sampler=optuna.samplers.RandomSampler(),
            pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
        )
        in_each_step = run.config["pipeline"]["repeat"].count("evaluate")
        return WatchedLog(self.tracker.start(run), study, self.number, in_each_step)


class WatchedLog(RunLog):
    """Hands everything on to `inner`, and reports one metric to the trial of a search.

    Evaluations count 1, 2, ... after each pruning step with all that belongs to it (that of the dense model, which is
    the first, is the same for all); of training steps every `every`-th. A verdict is carried out only when the run goes
    on, so that one which is through keeps its result.

    Raises:
        Hopeless: On the next log after the verdict.
    """

    def __init__(self, inner: RunLog, study: optuna.Study, number: int, in_each_step: int) -> None:
        from optuna.trial import Trial

        self._inner = inner
        self._study = study
        self._trial = Trial(study, self._trials[number]._trial_id)
        self._watch: dict[str, Any] = study.user_attrs["watch"]
        self._in_each_step = in_each_step
        self._evaluations = -1
        self._verdict = ""

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        self._obey()
        self._inner.step(step, metrics)
        if step % self._watch["every"] == 0:
            numbers = {f"recover/{name}": value for name, value in metrics.items()}
            self._report(numbers, step // self._watch["every"], f"in training step {step}")

    def stage(self, stage: StageRecord, rows: Sequence[Row], tables: Mapping[str, pandas.DataFrame]) -> None:
        self._obey()
        self._inner.stage(stage, rows, tables)
        if rows:
            self._evaluations += 1
            step, more = divmod(self._evaluations, self._in_each_step)
            if step and not more:
                numbers = {row.name: row.value for row in rows}
                self._report(numbers, step, f"after pruning step {step}")

    def finish(self, record: Record | None) -> None:
        self._inner.finish(record)

    def _obey(self) -> None:
        if self._verdict:
            raise Hopeless(f"{STOPPED_BY_SEARCH}{self._verdict}")

    def _report(self, numbers: Mapping[str, float | None], at: int, when: str) -> None:
        try:
            value = find(numbers, self._watch["metric"])
        except Unmeasured:
            return
        frozen = self._trials[self._trial.number]
        # a run that was killed and goes on says some things twice
        if at not in frozen.intermediate_values:
            self._trial.report(self._watch["sign"] * value, at)
        # of what was measured before this search began nothing is known but the end
        finished = [
            trial.intermediate_values[at]
            for trial in self._trials
            if trial.state.name == "COMPLETE" and at in trial.intermediate_values
        ]
        if len(finished) < self._watch["warmup"]:
            return
        said = f"{self._watch['metric']}={value:.6g} {when}"
        if self._watch["rule"] == "halving":
            if self._trial.should_prune():
                self._verdict = f"{said} is not in the best third of the trials (successive halving)"
        else:
            # Optuna's own rule takes the best that this run had so far: with accuracy, which falls from one pruning
            # step to the next, that is always the first, and nothing would ever be stopped
            middle, signed = statistics.median(finished), self._watch["sign"] * value
            if signed < middle if self._study.direction.name == "MAXIMIZE" else signed > middle:
                median = self._watch["sign"] * middle
                self._verdict = f"{said} is worse than {median:.6g}, the median of {len(finished)} finished trials"

    @property
    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)
