"""Bayesian search with Optuna's TPE (Bergstra et al. 2011; Akiba et al. 2019, arXiv 1907.10902).

    layer l loses   x_l = round(c * w_l * n_l)   within its bounds,   c such that the total is met

A trial draws a weight w_l in [0, 1] for each layer from the densities of what did well and of what did not. The first
trial is the even candidate. Needs the extra `search`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from regraft.config.ranges import ConfigError
from regraft.pruning.allocation.search import Problem, Searched
from regraft.pruning.allocation.shares import share_out


@dataclass(frozen=True, kw_only=True)
class OptunaSearch(Searched):
    """Learns which weights of the layers do well."""

    uses_seed = True

    def search(self, problem: Problem, draw: random.Random) -> None:
        """As the base.

        Raises:
            ConfigError: Optuna is not installed.
        """
        try:
            import optuna
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"pruner/allocation=optuna needs the package {error.name}: pip install 'regraft[search]'"
            ) from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        names = [f"layer{number}" for number in range(len(problem.blocks))]
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=draw.randrange(2**31)))
        study.enqueue_trial(dict.fromkeys(names, 0.5))
        # unlike weights may come to one candidate, which costs nothing: trials are counted as well
        for _ in range(self.evaluations):
            if problem.is_spent:
                return
            trial = study.ask()
            weights = [trial.suggest_float(name, 0.0, 1.0) for name in names]
            study.tell(trial, problem.loss(share_out(problem.room, weights=weights)))
