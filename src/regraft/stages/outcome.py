"""What a stage leaves besides a model, and how it is kept in the cache."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas


WARNINGS = "warnings"
"""In the details: what the user should know of the stage, also when it was done before."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One measured number of a stage."""

    metric: str
    value: float
    split: str = ""
    n: int | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    deterministic: bool = True


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Plain data and tables."""

    fingerprints: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    metrics: tuple[Metric, ...] = ()
    block_sparsity: float | None = 0.0
    model_sparsity: float | None = 0.0
    bits: int = 0
    seconds: float = 0.0
    """Time that the work took. A stage gives what an interrupted process spent on it before; `run` adds this one's."""
    reused: bool = False
    tables: dict[str, pandas.DataFrame] = field(default_factory=dict)
    """File name (`predictions.parquet`, `training.parquet`) -> its lines."""

    def save(self, folder: Path) -> None:
        plain = asdict(replace(self, tables={}))
        (folder / "outcome.json").write_text(json.dumps(plain), encoding="utf-8")
        for name, table in self.tables.items():
            table.to_parquet(folder / name, index=False)

    @classmethod
    def load(cls, folder: Path) -> Outcome:
        import pandas

        plain = json.loads((folder / "outcome.json").read_text(encoding="utf-8"))
        plain["metrics"] = tuple(Metric(**metric) for metric in plain["metrics"])
        plain["tables"] = {path.name: pandas.read_parquet(path) for path in sorted(folder.glob("*.parquet"))}
        return cls(**plain)
