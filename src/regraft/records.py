"""The typed record that a run leaves: the contract between runs and analysis.

`multirun/<sweep>/<run_id>/` holds

* `record.json`: a `Record`. A result exists when this file exists; it is written last, atomically.
* `predictions.parquet`: one line per evaluated stage, split and question, with the columns of `PREDICTION_COLUMNS`.
* `training.parquet`: one line per optimizer step, with the columns of `TRAINING_COLUMNS`; absent if nothing trained.
* `scores.parquet`: histograms of the scores by which units were removed, with the columns of `SCORE_COLUMNS`; absent if
  nothing was removed, or by a version that did not keep them.
* `run.log`, `checkpoint/` (with `save_model=true`, in the format of `export`), and the tracker's own files.
* `.claim`: locked by the process that does the run; `.begun`: there from its start to its end.

`multirun/<sweep>/manifest.json` is a `Manifest`: which runs were asked for, written before the first of them starts.
`multirun/<sweep>/questions/<digest>.parquet` holds the questions that its runs were asked, with the columns of
`QUESTION_COLUMNS`; the details of an evaluate stage name the digest (`questions`).
"""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from regraft.secrets import redacted

SCHEMA_VERSION = 1
RECORD = "record.json"
CHECKPOINT = "checkpoint"
PREDICTIONS = "predictions.parquet"
TRAINING = "training.parquet"
SCORES = "scores.parquet"
QUESTIONS = "questions"
BATCHES_BY_STEP = "batches_by_step"
MANIFEST = "manifest.json"
CLAIM = ".claim"
BEGUN = ".begun"
STOPPED_BY_SEARCH = "stopped by the search: "
"""How the error of a run begins in which a search saw no hope."""

PREDICTION_COLUMNS = {
    "stage_index": "int; the stage after which the model was asked",
    "stage": "str; its name",
    "split": "str; as in `evaluation.splits`; after the first evaluate stage preparation and recovery too",
    "id": "str; the question",
    "gold": "int; number of the right choice",
    "predicted": "int; number of the choice with the highest score",
    "scores": "list of float; score of each choice by the rule that decides (nats, or nats per character)",
}
TRAINING_COLUMNS = {
    "stage_index": "int; the recover stage",
    "step": "int; optimizer steps since the stage began, from 1",
    "loss": "float; mean over what counts in the step",
    "lr": "float; learning rate of the step",
    "grad_norm": "float; global L2 norm before clipping",
    "examples": "int; questions seen since the stage began",
    "tokens": "int; tokens that the student read since then, padding not counted",
    "flops": "float; floating-point operations since then, the teacher's included (`regraft.models.cost`)",
}
LATER_TRAINING_COLUMNS = frozenset({"tokens", "flops"})
"""Those that tables of earlier versions lack."""
SCORE_COLUMNS = {
    "stage_index": "int; the prune stage",
    "stage": "str; its name",
    "structure": "str; what was pruned",
    "layer": "int; of the dense model, counted from 0",
    "low": "float; lower end of a bin of scores",
    "high": "float; its upper end, which belongs to the next bin except for the last",
    "units": "int; units with a score in the bin",
    "removed": "int; those of them that were removed",
}
QUESTION_COLUMNS = {
    "split": "str; as in `evaluation.splits`",
    "id": "str; the question",
    "question": "str; its text as the task has it",
    "choices": "list of str; what could be answered, in the order of the scores",
}


class SchemaError(ValueError):
    """A file was written by a version of regraft with another schema. It is left as it is."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number.

    `stage_index` counts stages from 0. `target_sparsity` is the sparsity asked for at this stage, `block_sparsity` the
    share of units removed from the pruned blocks, `model_sparsity` the share of parameters removed from the whole
    model; both relative to the dense model, and None where none is known. `bits` is the width of the stored weights.
    `ci_low` and `ci_high` bound a 95 % interval over the `n` questions where the metric has one. `deterministic` is
    False for what is measured with a clock.
    """

    stage_index: int
    stage: str
    target_sparsity: float
    block_sparsity: float | None
    model_sparsity: float | None
    bits: int
    split: str
    metric: str
    value: float | None
    n: int | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    deterministic: bool = True

    @property
    def name(self) -> str:
        """`test/accuracy`; `parameters`, which has no split."""
        return f"{self.split}/{self.metric}".strip("/")


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """What a stage did.

    `fingerprints` holds `model_in` (weights that entered), `units` (what is removed, in the dense numbering) and
    `batches` (example ids in order with the number of steps), each a hex digest; absent where a stage has none.
    `seconds` is the time that the stage's work took when it was done; `reused` says that this run took it from the
    cache.
    """

    index: int
    stage: str
    key: str
    target_sparsity: float
    fingerprints: dict[str, str]
    seconds: float
    reused: bool = False
    details: dict[str, Any] = field(default_factory=dict)
    """Plain data: steps, removed units by layer, and the like. A recover stage's cost is in `examples`, `tokens` (that
    the student read), `teacher_tokens` (that were read without learning), `flops` (all, what was asked and written
    before included) and `teacher_flops` (those of them that were not the student's). One that a budget ended has in
    `batches_by_step` a digest of its batches up to each step."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One run. `config` is the resolved config as plain data, `choices` the chosen YAML of each config group."""

    run_id: str
    sweep: str
    status: Literal["finished", "failed"]
    error: str | None
    """Of a failed run; or of a finished one, why its model could not be exported."""
    config: dict[str, Any]
    choices: dict[str, str]
    environment: dict[str, Any]
    stages: list[StageRecord]
    rows: list[Row]
    schema_version: int = SCHEMA_VERSION

    def save(self, folder: Path) -> None:
        """Write `record.json` into `folder`: aside, synced to disk, then renamed."""
        _write(Path(folder) / RECORD, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Record:
        """Read the record in `folder`.

        Raises:
            SchemaError: It was written by another version of the schema.
            ValueError: It is no whole record.
        """
        path = Path(folder) / RECORD
        plain = _read(path, "record", "Run the same command again: this run is done anew.")
        try:
            plain["stages"] = [StageRecord(**stage) for stage in plain["stages"]]
            plain["rows"] = [Row(**row) for row in plain["rows"]]
            return cls(**plain)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}: not a whole record ({error}). Run the same command again.") from error


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One call of the command that runs a sweep. `time` is UTC, `commit` that of the code, `+` if files differ."""

    time: str
    commit: str | None
    overrides: list[str]
    runs: int
    """How many runs it asked for, finished ones included."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a sweep was asked for, by all launches together."""

    sweep: str
    runs: dict[str, list[str]]
    """Run id -> the overrides that make this run."""
    launches: list[Launch]
    schema_version: int = SCHEMA_VERSION

    def save(self, folder: Path) -> None:
        """Write `manifest.json` into the sweep's folder: aside, synced to disk, then renamed."""
        _write(Path(folder) / MANIFEST, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read the manifest of the sweep in `folder`.

        Raises:
            FileNotFoundError: There is none.
            SchemaError: It was written by another version of the schema.
            ValueError: It is no whole manifest.
        """
        path = Path(folder) / MANIFEST
        plain = _read(path, "manifest", "Move the sweep's folder away, or give another name with sweep=NAME.")
        try:
            plain["launches"] = [Launch(**launch) for launch in plain["launches"]]
            return cls(**plain)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}: not a whole manifest ({error}). Move it away and run again.") from error


def questions_file(folder: Path, record: Record) -> Path | None:
    """Where the questions are that the run in `folder` was asked; None if it named none."""
    named = next((str(stage.details[QUESTIONS]) for stage in record.stages if QUESTIONS in stage.details), "")
    # a record may come from elsewhere, and must not name a file that is none of the sweep's
    if not re.fullmatch(r"[0-9a-f]+", named):
        return None
    return Path(folder).resolve().parent / QUESTIONS / f"{named}.parquet"


def is_running(folder: Path) -> bool:
    """Whether a process, on this or another machine, is doing the run in `folder` now."""
    claim = Path(folder) / CLAIM
    if not claim.is_file():
        return False
    try:
        with FileLock(claim, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return False  # a folder that cannot be written holds no lock of a run


def was_killed(folder: Path) -> bool:
    """Whether the process that did the run in `folder` ended without a word."""
    return (Path(folder) / BEGUN).is_file() and not is_running(folder)


def is_finished(folder: Path, model_file: str | None = None) -> bool:
    """Whether `folder` holds the record of a finished run; a torn record does not count.

    Args:
        folder: The run's folder.
        model_file: What must be there of its saved model.

    Raises:
        SchemaError: The record was written by another version of regraft: running again would overwrite it.
    """
    try:
        finished = Record.load(folder).status == "finished"
    except SchemaError:
        raise
    except (FileNotFoundError, ValueError):
        return False
    return finished and (model_file is None or (Path(folder) / model_file).is_file())


def _write(path: Path, plain: dict[str, Any]) -> None:
    """Write JSON without secrets aside, sync it to disk, rename it."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("w", encoding="utf-8") as file:
            json.dump(redacted(_finite(plain)), file, indent=1, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _read(path: Path, name: str, next_step: str) -> dict[str, Any]:
    """Plain data of this version's schema.

    Raises:
        SchemaError: It is of another.
        ValueError: It is not whole.
    """
    try:
        plain: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = plain["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a whole {name} ({error}). {next_step}") from error
    if version != SCHEMA_VERSION:
        raise SchemaError(
            f"{path}: schema_version={version}, this version of regraft reads {SCHEMA_VERSION}. Move the folder away, "
            "or give another name with sweep=NAME; to read it, install the version that wrote it."
        )
    return plain


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
