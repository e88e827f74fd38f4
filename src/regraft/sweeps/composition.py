"""The typed configs of many runs, composed once for all that differ in plain values only.

Hydra takes 50 ms and more for a composition, most of it for reading the same YAML files again; a grid of a thousand
runs has few combinations of files and many of values.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from regraft.config.ranges import ConfigError
from regraft.config.schema import RunConfig
from regraft.sweeps.identity import typed

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader


@dataclass
class Composer:
    """Composes the jobs of a sweep.

    Args:
        loader: Hydra's.
        sweep: The config of the sweep itself.
    """

    loader: ConfigLoader
    sweep: DictConfig
    _parsed: dict[str, Override] = field(default_factory=dict)
    _groups: dict[str, bool] = field(default_factory=dict)
    _composed: dict[tuple[str, ...], DictConfig] = field(default_factory=dict)

    def whole(self, job: Sequence[str]) -> DictConfig:
        """The config of one run as Hydra composes it, with Hydra's own part."""
        composed: DictConfig = self.loader.load_sweep_config(self.sweep, list(job))
        return composed

    def config(self, job: Sequence[str]) -> RunConfig:
        """The typed config of one run.

        Raises:
            ConfigError: The config is wrong; the message begins with the overrides.
            HydraException: A choice or key does not exist.
        """
        overrides = [self._parse(override) for override in job]
        files = tuple(override.input_line or "" for override in overrides if not self._is_value(override))
        composed = self._base(files)
        try:
            if composed.evaluate is None:
                composed = copy.deepcopy(composed)
                for override in overrides:
                    if self._is_value(override):
                        OmegaConf.update(composed, override.key_or_group, override.value(), merge=True)
            else:
                composed = self.whole(job)
        except (OmegaConfBaseException, HydraException):
            composed = self.whole(job)  # its message is made for the command line
        try:
            return typed(composed, composed.hydra)
        except ConfigError as error:
            raise type(error)(f"{' '.join(job)}: {error}") from None

    def _base(self, files: tuple[str, ...]) -> DictConfig:
        if files not in self._composed:
            self._composed[files] = self.whole(files)
        return self._composed[files]

    def _parse(self, override: str) -> Override:
        if override not in self._parsed:
            self._parsed[override] = OverridesParser.create(config_loader=self.loader).parse_override(override)
        return self._parsed[override]

    def _is_value(self, override: Override) -> bool:
        """Whether it sets a value and decides nothing about which files are read."""
        key = override.key_or_group
        if key not in self._groups:
            self._groups[key] = "/" in key or key == "experiment" or bool(self.loader.get_group_options(key))
        changes = override.type is OverrideType.CHANGE and override.package is None
        return changes and not self._groups[key] and key.split(".")[0] not in ("hydra", "evaluate")
