"""A grid of runs, in which finished ones are not run again."""

from __future__ import annotations

from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from hydra_plugins.regraft_sweeper.runs import RunsSweeper, failed


class ResumeSweeper(RunsSweeper):
    """Hydra's grid sweeper, but resumable."""

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
