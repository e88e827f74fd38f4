"""A run that was recorded, told to a tracker as if it were done now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas

from regraft.interfaces import RunInfo, RunLog
from regraft.records import PREDICTIONS, SCORES, TRAINING, Record


def info(record: Record, folder: Path) -> RunInfo:
    """What a tracker needs to name and group the run."""
    return RunInfo(
        run_id=record.run_id,
        sweep=record.sweep,
        config=record.config,
        choices=record.choices,
        environment=record.environment,
        folder=folder,
    )


def replay(record: Record, folder: Path, log: RunLog) -> None:
    """Tell `log` all that the run in `folder` did and measured, to the end."""
    tables = {
        name: pandas.read_parquet(folder / name)
        for name in (PREDICTIONS, TRAINING, SCORES)
        if (folder / name).is_file()
    }
    for stage in record.stages:
        own = {
            name: lines.drop(columns=["stage_index", "stage"])
            for name, table in tables.items()
            if not (lines := table[table["stage_index"] == stage.index]).empty
        }
        steps(own.get(TRAINING), int(stage.details.get("first_step", 0)), log)
        log.stage(stage, [row for row in record.rows if row.stage_index == stage.index], own)
    log.finish(record)


def steps(lines: pandas.DataFrame | None, first_step: int, log: RunLog) -> None:
    """Tell `log` the optimizer steps of one recover stage, which begins after `first_step` steps of the run."""
    for line in () if lines is None else lines.to_dict("records"):
        step({str(name): float(value) for name, value in line.items()}, first_step, log)


def step(line: Mapping[str, float], first_step: int, log: RunLog) -> None:
    """Tell `log` one line of the training table."""
    log.step(first_step + int(line["step"]), {name: value for name, value in line.items() if name != "step"})
