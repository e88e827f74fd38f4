"""A grid of runs, in which finished ones are not run again."""

from __future__ import annotations

from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from hydra_plugins.regraft_sweeper.runs import RunsSweeper, failed


class ResumeSweeper(RunsSweeper):
    """Hydra's grid sweeper, but resumable.

    Args:
        max_batch_size: Runs handed to the launcher at once; null hands over all.
        params: Keys and values to sweep.
        skip_refused: Leave out the points of the grid whose choices do not go together; otherwise one such point
            refuses the sweep before anything runs.
    """

    def __init__(
        self, max_batch_size: int | None, params: dict[str, str] | None = None, skip_refused: bool = False
    ) -> None:
        super().__init__(max_batch_size, params)
        self.skip_refused = skip_refused

    def sweep(self, arguments: list[str]) -> Any:
        """Run what is missing.

        Raises:
            ConfigError: The config of a run is wrong; no run has started.
            SweepFailed: Some runs failed; all others were run.
            Stopped: The process was told to stop; the same command goes on from there.
        """
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        (jobs,) = self.split_arguments(parser.parse_overrides(self.parameters(arguments)), None)
        results = self.finish(jobs)
        if error := failed(results):
            raise error
        return results
