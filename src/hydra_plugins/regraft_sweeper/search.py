"""A search with Optuna: runs that a sampler asks for, batch by batch."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydra_plugins.regraft_sweeper.runs import RunsSweeper
from regraft.cache import digest
from regraft.config.ranges import ConfigError, require
from regraft.records import STOPPED_BY_SEARCH, Record
from regraft.stages.plan import run_id
from regraft.sweeps.failures import SweepFailed
from regraft.sweeps.identity import register, resolved, typed
from regraft.sweeps.journal import NotFinite, Unmeasured
from regraft.sweeps.search import Definition, Settings, Study, Trial
from regraft.sweeps.space import Space, dimension, edges, middle, written
from regraft.sweeps.watch import TRIAL

if TYPE_CHECKING:
    from regraft.config.schema import RunConfig

log = logging.getLogger(__name__)

NEUTRAL = ("tracker", "runtime", "save_model", "export", "sweep", "evaluate")
"""Top-level keys that are not named when a search differs: they change no result."""


class SearchSweeper(RunsSweeper):
    """Hydra's sweeper for a search; the arguments are documented in `conf/hydra/sweeper/search.yaml`."""

    def __init__(self, params: Mapping[str, Any] | None = None, **settings: Any) -> None:
        super().__init__(max_batch_size=None, params=dict(params or {}))
        self._settings: dict[str, Any] = {
            name: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            for name, value in settings.items()
        }

    def sweep(self, arguments: list[str]) -> None:
        """Search on, until there are as many trials as asked for.

        Raises:
            ConfigError: The settings, the space or a run's config is wrong.
            SweepFailed: Some runs failed; the search went on.
        """
        register()
        assert self.config is not None and self.hydra_context is not None
        known = [field.name for field in fields(Settings)]
        for name in self._settings:
            require(name in known, f"hydra.sweeper.{name}", self._settings[name], f"one of {', '.join(known)}")
        settings = Settings(**{**self._settings, "objectives": self._settings["objectives"] or {}})
        fixed, space = self._read(arguments)
        definition = self._define(fixed, space, settings)
        study = Study(self.folder, definition, settings)
        failures: list[str] = []
        try:
            while trials := study.ask():
                failures += self._try(study, trials, fixed)
        finally:
            study.close()
        for line in study.account():
            log.info("%s", line)
        if failures:
            raise SweepFailed(
                f"{len(failures)} trials failed; the same command tries them again:\n" + "\n".join(failures)
            )

    def _read(self, arguments: Sequence[str]) -> tuple[list[str], Space]:
        """Overrides that all runs share, and the space."""
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        fixed, space = [], {}
        for override in parser.parse_overrides(self.parameters(arguments)):
            if override.is_sweep_override():
                space[override.get_key_element()] = dimension(override)
            else:
                assert override.input_line is not None
                fixed.append(override.input_line)
        if not space:
            raise ConfigError(
                "hydra/sweeper=search: there is nothing to search. Give a key several values, for example "
                "sparsity='interval(0.1,0.9)' loss=ce,kl."
            )
        # in an order of its own, so that the order on the command line decides nothing
        return fixed, dict(sorted(space.items()))

    def _define(self, fixed: Sequence[str], space: Space, settings: Settings) -> Definition:
        """What decides the study.

        Raises:
            ConfigError: A run at a bound of the space, or with one of its choices, would be refused, or would not
                measure an objective.
        """
        # what no run in the middle does, such as training without a loss, one with another choice may do
        names = [run_id(self._config(fixed, written(point))[0]) for point in edges(space)]
        config, plain = self._config(fixed, written(middle(space)))
        splits = config.evaluation.splits
        for metric in settings.objectives:
            split, slash, _ = metric.partition("/")
            if slash and split not in splits:
                raise ConfigError(
                    f"hydra.sweeper.objectives.{metric}: must be of a split that is evaluated, "
                    f"{' or '.join(splits)}. Add it to evaluation.splits."
                )
        keys = [key.lstrip("+").split("@")[0].replace("/", ".") for key in space]
        unlike = [key for key in keys if key.split(".")[0] in ("sparsity", "schedule", "pipeline")]
        if settings.watches_evaluations and unlike:
            raise ConfigError(
                f"hydra.sweeper.pruner={settings.pruner}: must be null, or watch a metric of training "
                f"(hydra.sweeper.watch={{recover/loss:minimize}}), in a search over {', '.join(unlike)}: such runs are "
                "evaluated after different amounts of pruning and cannot be compared."
            )
        leaves = {
            key: value
            for key, value in _leaves(plain, "")
            if key.split(".")[0] not in NEUTRAL and not any(f"{key}.".startswith(f"{name}.") for name in keys)
        }
        return Definition(space=space, objectives=settings.objectives, identity=digest(names), settings=leaves)

    def _config(self, fixed: Sequence[str], own: Sequence[str]) -> tuple[RunConfig, dict[str, Any]]:
        """The config of a run, typed and as plain data.

        Raises:
            ConfigError: It is wrong; the message begins with the run's own overrides.
        """
        assert self.config is not None and self.hydra_context is not None
        try:
            composed = self.hydra_context.config_loader.load_sweep_config(self.config, [*fixed, *own])
            return typed(composed, composed.hydra), resolved(composed, composed.hydra)
        except (ConfigError, HydraException, OmegaConfBaseException) as error:
            raise ConfigError(f"{' '.join(own)}: {error}") from None

    def _try(self, study: Study, trials: Sequence[Trial], fixed: Sequence[str]) -> list[str]:
        """Run the trials, tell the study, and return a line for each that failed."""
        failures = []

        def fail(trial: Trial, error: str) -> None:
            study.fail(trial, error)
            failures.append(f"  {' '.join(written(trial.point))}: {error}")

        possible = []
        for trial in trials:
            try:
                self._config(fixed, written(trial.point))
                possible.append(trial)
            except ConfigError as error:
                # a point inside the space may be refused though its bounds were not
                fail(trial, str(error))
        jobs = [[*fixed, *written(trial.point), *_watch(study, trial)] for trial in possible]
        for trial, finished in zip(possible, self.finish(jobs) if jobs else [], strict=True):
            if finished.error is None:
                try:
                    study.tell(trial, Record.load(finished.folder))
                except NotFinite as error:
                    fail(trial, str(error))
                except Unmeasured as error:
                    if not study.knows_values:
                        raise ConfigError(f"hydra.sweeper.objectives.{error}") from None
                    fail(trial, str(error))
            elif (told := finished.error.splitlines()[0]).startswith(STOPPED_BY_SEARCH):
                study.stop(trial, told)
            else:
                fail(trial, told)
        return failures


def _watch(study: Study, trial: Trial) -> list[str]:
    """The override that lets a run report to its trial: its environment is no part of its identity."""
    if study.settings.pruner is None:
        return []
    where = f"{study.journal}:{trial.number}".replace("\\", "\\\\").replace("'", "\\'")
    return [f"+hydra.job.env_set.{TRIAL}='{where}'"]


def _leaves(value: Any, key: str) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        return [leaf for name, item in value.items() for leaf in _leaves(item, f"{key}.{name}" if key else str(name))]
    return [(key, value if isinstance(value, str | int | float | None) else json.dumps(value))]
