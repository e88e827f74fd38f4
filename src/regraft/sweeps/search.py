"""A search: a study that Optuna keeps in a file of the sweep's folder.

`multirun/<sweep>/search/` holds `journal.log`, Optuna's own log of the study (`optuna-dashboard` reads it), and locks.
A process that searches holds a lock of its own for as long as it lives. A trial whose process is gone is taken over by
the next one, with the same values, so nothing is drawn twice and nothing is lost. What is drawn for a trial depends on
the seed, its number and what was known before, so a search that was killed goes on as if it had not been.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from regraft.cache import digest
from regraft.config.ranges import ConfigError, require
from regraft.records import Record
from regraft.sweeps.journal import JOURNAL, STUDY, find, measured, mend, require_optuna, storage
from regraft.sweeps.space import Choice, Space, Value, plain, size

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

Direction = Literal["maximize", "minimize"]

FOLDER = "search"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a search is told; the fields are documented in `conf/hydra/sweeper/search.yaml`."""

    objectives: Mapping[str, Direction]
    n_trials: int
    batch: int
    seed: int
    sampler: Literal["tpe", "nsga2", "random"]
    population: int
    pruner: Literal["median", "halving"] | None
    watch: Mapping[str, Direction] | None
    warmup: int
    every: int

    def __post_init__(self) -> None:
        sweeper = "hydra.sweeper"
        example = "For example hydra.sweeper.objectives='{selection/accuracy:maximize,parameters:minimize}'."
        require(
            len(self.objectives) > 0, f"{sweeper}.objectives", dict(self.objectives), "at least one metric", example
        )
        for name, metrics in (("objectives", self.objectives), ("watch", self.watch or {})):
            for metric, direction in metrics.items():
                key = f"{sweeper}.{name}.{metric}"
                require(direction in ("maximize", "minimize"), key, direction, "maximize or minimize")
        for name, least in (("n_trials", 1), ("batch", 1), ("seed", 0), ("population", 2), ("warmup", 1), ("every", 1)):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
            require(whole, f"{sweeper}.{name}", value, f"a whole number of at least {least}")
        require(self.sampler in ("tpe", "nsga2", "random"), f"{sweeper}.sampler", self.sampler, "tpe, nsga2 or random")
        known = (None, "median", "halving")
        require(self.pruner in known, f"{sweeper}.pruner", self.pruner, "median, halving or null")
        require(
            self.pruner is None or len(self.objectives) == 1,
            f"{sweeper}.pruner",
            self.pruner,
            f"null with {len(self.objectives)} objectives",
            "A run that is behind in one may be ahead in another, so none is hopeless.",
        )
        watched = self.watch is None or len(self.watch) == 1
        require(watched, f"{sweeper}.watch", dict(self.watch or {}), "null or one metric with its direction")

    @property
    def watches_evaluations(self) -> bool:
        """Whether a run is judged by what it measures after its pruning steps."""
        if self.pruner is None:
            return False
        return self.watch is None or not next(iter(self.watch)).startswith("recover/")


@dataclass(frozen=True, kw_only=True)
class Definition:
    """What must stay as it is while a study goes on."""

    space: Space
    objectives: Mapping[str, Direction]
    identity: str
    """Of the runs that stand for the space: moves with every setting that can change a result."""
    settings: Mapping[str, Any]
    """The leaves of what their configs share, to name what has changed."""

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON gives it back."""
        parts = {"space": plain(self.space), "objectives": dict(self.objectives), "identity": self.identity}
        return json.loads(json.dumps(parts | {"settings": dict(self.settings)}))

    def changes(self, before: Mapping[str, Any]) -> list[str]:
        """What differs from the definition of a study that has begun."""
        now = self.plain
        found: list[str] = []
        parts = ["space", "objectives"]
        if all(before[part] == now[part] for part in parts) and before["identity"] != now["identity"]:
            parts = ["settings"]
        for part in parts:
            for key in {**before[part], **now[part]}:
                was, is_now = before[part].get(key), now[part].get(key)
                if was != is_now:
                    found.append(f"{key} was {_told(was)}, is {_told(is_now)}")
        return found or (["what the settings mean, in the code"] if before["identity"] != now["identity"] else [])


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A point of the space that this process is to try."""

    number: int
    point: dict[str, Value]


@dataclass(frozen=True, kw_only=True)
class Best:
    """A trial that none beats."""

    point: dict[str, Value]
    values: dict[str, float]
    run_id: str


class Study:
    """A study in the folder of a sweep, shared by all processes that search there.

    Args:
        folder: The sweep's folder.
        definition: What is searched for, and where.
        settings: How.

    Raises:
        ConfigError: The study in the folder is another one, its journal is broken, or Optuna is not installed.
    """

    def __init__(self, folder: Path, definition: Definition, settings: Settings) -> None:
        require_optuna()
        self.folder, self.definition, self.settings = folder, definition, settings
        self._home = folder.resolve() / FOLDER
        self._home.mkdir(parents=True, exist_ok=True)
        self._token = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        # held until the process ends, however it ends
        self._alive = FileLock(self._home / f"{self._token}.alive")
        self._alive.acquire()
        with self._alone():
            mend(self.journal)
            self._study = self._open()
            self._study.set_user_attr("watch", self._watch())
            self._retry()

    @property
    def journal(self) -> Path:
        """Optuna's log of the study."""
        return self._home / JOURNAL

    def ask(self) -> list[Trial]:
        """The next trials to try, at most a batch; none when the search is over.

        First come trials that a process left that is gone. A batch ends where the number of its last trial says, so
        a search that was killed asks for the same as one that was not.
        """
        with self._alone():
            trials = [self._complete(trial) for trial in self._abandoned()]
            while not self._over() and (not trials or len(self._begun) % self.settings.batch):
                trial = self._complete(None)
                if not self._known(trial):
                    trials.append(trial)
            return trials

    def tell(self, trial: Trial, record: Record) -> None:
        """The run of a trial has finished.

        Raises:
            Unmeasured: Its record lacks an objective.
        """
        numbers = measured(record)
        values = {metric: find(numbers, metric) for metric in self.definition.objectives}
        self._end(trial, "COMPLETE", list(values.values()), run=record.run_id)
        log.info("trial %d: %s", trial.number, _line(values, record.run_id, trial.point))

    def fail(self, trial: Trial, error: str) -> None:
        """The run of a trial has failed; the next command tries the same again."""
        self._end(trial, "FAIL", None, error=error)

    def stop(self, trial: Trial, error: str) -> None:
        """The run of a trial was found hopeless."""
        self._end(trial, "PRUNED", None, error=error)
        log.info("trial %d: %s", trial.number, error)

    @property
    def knows_values(self) -> bool:
        """Whether a trial of the study has been measured."""
        return any(trial.state.name in ("COMPLETE", "PRUNED") for trial in self._trials)

    def best(self) -> list[Best]:
        """The best trial of one objective, or those of several that none beats in all; each point once."""
        if all(trial.state.name != "COMPLETE" for trial in self._trials):
            return []
        alone = len(self.definition.objectives) == 1
        found: dict[tuple[Value, ...], Best] = {}
        for trial in [self._study.best_trial] if alone else self._study.best_trials:
            values = dict(zip(self.definition.objectives, trial.values, strict=True))
            best = Best(point=self._point(trial), values=values, run_id=trial.user_attrs["run"])
            found.setdefault(tuple(best.point.values()), best)
        return sorted(found.values(), key=lambda best: tuple(best.values.values()))

    def account(self) -> list[str]:
        """How many trials there are, and the best."""
        # a failure that was tried again is what became of the second try
        again = {trial.user_attrs.get("again") for trial in self._begun}
        states = [trial.state.name for trial in self._trials if trial.number not in again]
        names = {"COMPLETE": "finished", "PRUNED": "stopped early", "FAIL": "failed", "RUNNING": "running elsewhere"}
        counts = [f"{states.count(state)} {name}" for state, name in names.items() if state in states]
        lines = [f"{len(states)} trials: {', '.join(counts)} ({self.journal})"]
        if best := self.best():
            aims = ", ".join(f"{direction} {metric}" for metric, direction in self.definition.objectives.items())
            lines.append(f"{'best' if len(self.definition.objectives) == 1 else 'Pareto front'} ({aims}):")
        return lines + [f"  {_line(each.values, each.run_id, each.point)}" for each in best]

    def close(self) -> None:
        """Leave trials that were not told to whoever searches next."""
        Path(self._alive.lock_file).unlink(missing_ok=True)
        self._alive.release()

    def _open(self) -> optuna.Study:
        import optuna

        kept = storage(self.journal)
        names = optuna.get_all_study_names(kept)
        if STUDY in names:
            study = optuna.load_study(study_name=STUDY, storage=kept, sampler=optuna.samplers.RandomSampler())
            if not (changes := self.definition.changes(study.user_attrs["definition"])):
                # its order of the objectives is that of the values
                stored: dict[str, Direction] = study.user_attrs["definition"]["objectives"]
                self.definition = Definition(**{**vars(self.definition), "objectives": stored})
                return study
            self._study = study
            if self.knows_values or any(self._is_alive(trial) for trial in self._running()):
                raise ConfigError(
                    f"{self.folder} holds a search that differs:\n"
                    + "\n".join(f"  {change}" for change in changes[:8])
                    + "\nGive this search a folder of its own with sweep=NAME. Or go on with the search as it was. Or "
                    f"delete {self._home} to begin anew: finished runs stay, and are not run again."
                )
            # nothing was measured: a first try with a mistake in it
            optuna.delete_study(study_name=STUDY, storage=kept)
        study = optuna.create_study(
            study_name=STUDY,
            storage=kept,
            directions=list(self.definition.objectives.values()),
            sampler=optuna.samplers.RandomSampler(),
        )
        study.set_user_attr("definition", self.definition.plain)
        return study

    def _watch(self) -> dict[str, Any] | None:
        """What a watched run must know."""
        if self.settings.pruner is None:
            return None
        ((metric, direction),) = (self.settings.watch or self.definition.objectives).items()
        ((_, aim),) = self.definition.objectives.items()
        return {
            "rule": self.settings.pruner,
            "metric": metric,
            "sign": 1 if direction == aim else -1,
            "warmup": self.settings.warmup,
            "every": self.settings.every,
        }

    def _retry(self) -> None:
        """Queue the points of failed trials again, each once."""
        trials = self._trials
        again = {trial.user_attrs.get("again") for trial in trials}
        for trial in trials:
            if trial.state.name == "FAIL" and trial.number not in again and "same" not in trial.user_attrs:
                self._study.enqueue_trial(trial.params, user_attrs={"again": trial.number})

    def _over(self) -> bool:
        begun = self._begun
        if len(begun) < len(self._trials):
            return False
        # a trial that tries again what failed stands in for it
        if len(begun) - sum("again" in trial.user_attrs for trial in begun) >= self.settings.n_trials:
            return True
        tried = {tuple(self._point(trial).items()) for trial in begun}
        return len(tried) >= size(self.definition.space)

    @property
    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    @property
    def _begun(self) -> list[FrozenTrial]:
        return [trial for trial in self._trials if trial.state.name != "WAITING"]

    def _running(self) -> list[FrozenTrial]:
        return [trial for trial in self._trials if trial.state.name == "RUNNING"]

    def _abandoned(self) -> list[FrozenTrial]:
        return [trial for trial in self._running() if not self._is_alive(trial)]

    def _is_alive(self, trial: FrozenTrial) -> bool:
        """Whether the process that tries it lives; one without a name died before it gave it, for we are alone."""
        token = trial.user_attrs.get("process")
        if token is None or token == self._token:
            return token is not None
        lock = self._home / f"{token}.alive"
        if not lock.exists():
            return False
        try:
            with FileLock(lock, timeout=0):
                lock.unlink()
        except Timeout:
            return True
        return False

    def _complete(self, frozen: FrozenTrial | None) -> Trial:
        """A new trial, or one that was left, with a value for each key and this process's name."""
        import optuna

        number = len(self._trials) if frozen is None else frozen.number
        study = self._study
        study.sampler = self._sampler(number, 0)
        trial = study.ask() if frozen is None else optuna.trial.Trial(study, frozen._trial_id)
        trial.set_user_attr("process", self._token)
        point: dict[str, Value] = {}
        for position, (key, each) in enumerate(self.definition.space.items()):
            # each value from a seed of its own: a trial that was left half drawn is drawn on as it would have been
            study.sampler = self._sampler(number, position)
            name = key.lstrip("+")
            if isinstance(each, Choice):
                point[key] = trial.suggest_categorical(name, each.options)
            elif each.integer:
                step = int(each.step or 1)
                point[key] = trial.suggest_int(name, int(each.low), int(each.high), step=step, log=each.log)
            else:
                value = trial.suggest_float(name, each.low, each.high, step=each.step, log=each.log)
                # 0.1 + 2 * 0.1 is meant to be 0.3
                point[key] = value if each.step is None else round(value, 12)
        return Trial(number=trial.number, point=point)

    def _known(self, trial: Trial) -> bool:
        """Whether the same point was stopped or failed before; then the trial ends as it did."""
        own = self._trials[trial.number]
        same = [each for each in self._begun if each.params == own.params and each.number != own.number]
        states = {each.state.name: each for each in same}
        if "again" in own.user_attrs or "COMPLETE" in states or not states.keys() & {"PRUNED", "FAIL"}:
            return False
        before = states.get("PRUNED") or states["FAIL"]
        self._end(trial, before.state.name, None, same=before.number)
        return True

    def _sampler(self, number: int, position: int) -> optuna.samplers.BaseSampler:
        """A sampler for one value of one trial, which the seed and their numbers decide."""
        from optuna import samplers

        seed = int(digest([self.settings.seed, number, position], 8), 16)
        if self.settings.sampler == "random":
            return samplers.RandomSampler(seed=seed)
        if self.settings.sampler == "nsga2":
            return samplers.NSGAIISampler(seed=seed, population_size=self.settings.population)
        # trials that run beside this one count as bad, so that a batch is spread out
        return samplers.TPESampler(seed=seed, constant_liar=True)

    def _point(self, trial: FrozenTrial) -> dict[str, Value]:
        return {key: trial.params[name] for key in self.definition.space if (name := key.lstrip("+")) in trial.params}

    def _end(self, trial: Trial, state: str, values: list[float] | None, **notes: str | int) -> None:
        """Write down what became of a trial, unless another process has."""
        from optuna.trial import TrialState

        frozen = self._trials[trial.number]
        if frozen.state.is_finished():
            return
        for key, value in notes.items():
            self._study._storage.set_trial_user_attr(frozen._trial_id, key, value)
        self._study.tell(trial.number, values, state=TrialState[state])

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process asks or begins meanwhile."""
        with FileLock(self._home / "study.lock"):
            yield


def _line(values: Mapping[str, float], run_id: str, point: Mapping[str, Value]) -> str:
    measured = "  ".join(f"{metric}={value:.6g}" for metric, value in values.items())
    where = " ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in point.items()
    )
    return f"{measured}  {run_id}  {where}"


def _told(value: Any) -> str:
    """A part of a definition for people."""
    if value is None:
        return "not there"
    if isinstance(value, dict) and "options" in value:
        return ",".join(value["options"])
    if isinstance(value, dict):
        tags = [tag for tag, is_set in (("log", value["log"]), ("int", value["integer"])) if is_set]
        tags += [f"step {value['step']:g}"] if value["step"] is not None else []
        return " ".join([f"{value['low']:g} to {value['high']:g}", *tags])
    return str(value)
