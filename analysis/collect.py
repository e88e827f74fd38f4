"""Records of any number of sweeps as one tidy table. Nothing is dropped without a word."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas

from regraft.records import PREDICTION_COLUMNS, PREDICTIONS, RECORD, Manifest, Record, Row, StageRecord, is_running

DIGITS = 6
"""Sparsities are keys of groups, so they are rounded: 0.1 + 0.2 and 0.3 are one sparsity."""

CHOICES = {
    "model": "model",
    "task": "task",
    "preparation": "preparation",
    "criterion": "pruner/criterion",
    "structure": "pruner/structure",
    "allocation": "pruner/allocation",
    "schedule": "schedule",
    "loss": "loss",
    "teacher": "teacher",
    "recovery": "recovery",
    "pipeline": "pipeline",
}
"""Column -> config group whose chosen YAML it holds."""

NEUTRAL = frozenset({"tracker", "runtime", "paths", "save_model", "sweep", "hydra"})
"""Top-level config keys that cannot change a result."""

RUN_COLUMNS = {
    "run_id": "str; name of the run and of its folder",
    "sweep": "str; name of the sweep",
    "status": "str; finished (runs that did not finish have no rows; `collect` names them)",
    "seed": "int",
    **{
        column: f"str; the choice of config group {group}, empty if none was named" for column, group in CHOICES.items()
    },
    "train_size": "int; recovery questions asked for, empty for all",
    "variant": "str; settings in which runs with equal choices differ, as key=value; empty if there are none",
    "sparsity": f"float; the run's requested share of units to remove, rounded to {DIGITS} digits",
    "model_in": "str; digest of the weights that entered the first prune stage",
    "units": "str; digest of the units removed, over all prune stages",
    "batches": "str; digest of the recovery batches (example ids in order, steps), over all recover stages",
}
ROW_COLUMNS = {
    "stage_index": "int; stages count from 0",
    "stage": "str; its name",
    "target_sparsity": "float; sparsity asked for at this stage",
    "block_sparsity": "float; share of units removed from the pruned blocks",
    "model_sparsity": "float; share of parameters removed from the whole model",
    "bits": "int; width of the stored weights",
    "split": "str; the questions asked, empty if the metric has none",
    "metric": "str",
    "value": "float; empty where it was no number",
    "n": "int; questions behind the value",
    "ci_low": "float; lower end of the value's own 95 % interval over questions",
    "ci_high": "float; upper end",
    "deterministic": "bool; False for what is measured with a clock",
}
COLUMNS = RUN_COLUMNS | ROW_COLUMNS
"""Column -> type and meaning, of `results.parquet` and `results.csv`."""


class AnalysisError(ValueError):
    """What was asked cannot be answered from these records; the message says why and what to do."""


@dataclass(frozen=True)
class Run:
    """A finished run and its folder."""

    record: Record
    folder: Path

    @property
    def seed(self) -> int:
        return int(self.record.config["seed"])

    @property
    def sparsity(self) -> float:
        return round(float(self.record.config["sparsity"]), DIGITS)

    @property
    def train_size(self) -> int | None:
        size = (self.record.config.get("task") or {}).get("train_size")
        return None if size is None else int(size)

    @cached_property
    def settings(self) -> dict[str, Any]:
        return settings(self.record)

    def choice(self, column: str) -> str:
        return self.record.choices.get(CHOICES[column]) or ""

    @property
    def last_evaluation(self) -> StageRecord | None:
        """The stage after which nothing more was measured."""
        stages = [stage for stage in self.record.stages if stage.stage == "evaluate"]
        return stages[-1] if stages else None

    @property
    def dense_evaluation(self) -> StageRecord | None:
        """The stage that measured the model before anything was taken from it."""
        for stage in self.record.stages:
            if stage.stage in ("prune", "load"):
                return None
            if stage.stage == "evaluate":
                return stage
        return None

    def row(self, stage: StageRecord | None, metric: str = "accuracy", split: str = "test") -> Row | None:
        """The number that `stage` measured."""
        for row in self.record.rows:
            if stage is not None and (row.stage_index, row.metric, row.split) == (stage.index, metric, split):
                return row
        return None

    def fingerprints(self, stage: str, name: str) -> tuple[str, ...]:
        """The fingerprints `name` of all stages called `stage`, in order; stages without one are passed over."""
        return fingerprints(self.record, stage, name)

    def predictions(self, split: str = "test") -> pandas.DataFrame:
        """Answers after the last evaluation: `id` (the index), `gold`, `predicted`, `choices` (their number).

        Raises:
            AnalysisError: The file is missing or has no answers of that stage.
        """
        path = self.folder / PREDICTIONS
        again = "Run the sweep again after deleting the folder."
        try:
            table = pandas.read_parquet(path)
        except FileNotFoundError:
            raise AnalysisError(f"{path}: is missing, so no answer of this run is known. {again}") from None
        except (OSError, ValueError) as error:
            raise AnalysisError(f"{path}: cannot be read ({error}). {again}") from None
        if missing := sorted(set(PREDICTION_COLUMNS) - set(table.columns)):
            raise AnalysisError(f"{path}: has no column {', '.join(missing)}. {again}")
        last = self.last_evaluation
        asked = table[(table["split"] == split) & (table["stage_index"] == (last.index if last else -1))]
        if asked.empty:
            raise AnalysisError(f"{path}: holds no answers to {split} questions of the last evaluation. {again}")
        if asked["id"].duplicated().any():
            raise AnalysisError(f"{path}: holds two answers to one question. {again}")
        return asked.assign(choices=asked["scores"].map(len)).set_index("id")[["gold", "predicted", "choices"]]


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What is in some sweep folders. Each list but `runs` names folders, with the reason."""

    folders: tuple[Path, ...]
    runs: tuple[Run, ...]
    failed: tuple[tuple[Path, str], ...] = ()
    unfinished: tuple[tuple[Path, str], ...] = ()
    missing: tuple[tuple[Path, str], ...] = ()
    unreadable: tuple[tuple[Path, str], ...] = ()
    repeated: tuple[tuple[Path, str], ...] = ()

    @cached_property
    def run_table(self) -> pandas.DataFrame:
        """One line for each finished run, with `RUN_COLUMNS`; line i belongs to `runs[i]`."""
        variants = _variants(self.runs)
        lines = [
            {
                "run_id": run.record.run_id,
                "sweep": run.record.sweep,
                "status": run.record.status,
                "seed": run.seed,
                **{column: run.choice(column) for column in CHOICES},
                "train_size": run.train_size,
                "variant": variant,
                "sparsity": run.sparsity,
                "model_in": next(iter(run.fingerprints("prune", "model_in")), ""),
                "units": _joined(run.fingerprints("prune", "units")),
                "batches": _joined(run.fingerprints("recover", "batches")),
            }
            for run, variant in zip(self.runs, variants, strict=True)
        ]
        return pandas.DataFrame(lines, columns=list(RUN_COLUMNS)).astype({"train_size": "Int64"})

    @property
    def conditions(self) -> pandas.DataFrame:
        """`run_table` with `train_size` as text, `all` where all were taken: groupby and nunique pass over gaps."""
        sizes = ["all" if run.train_size is None else str(run.train_size) for run in self.runs]
        return self.run_table.assign(train_size=sizes)

    def table(self) -> pandas.DataFrame:
        """One line for each row of each finished run, with the columns of `COLUMNS`."""
        owners = [position for position, run in enumerate(self.runs) for _ in run.record.rows]
        rows = [row for run in self.runs for row in run.record.rows]
        numbers = pandas.DataFrame({field.name: [getattr(row, field.name) for row in rows] for field in fields(Row)})
        numbers = numbers.astype({"value": float, "n": "Int64", "ci_low": float, "ci_high": float})
        owned = self.run_table.iloc[owners].reset_index(drop=True)
        return pandas.concat([owned, numbers[list(ROW_COLUMNS)]], axis=1)

    def account(self) -> list[str]:
        """Lines that say how many runs there are and name each one that is left out."""
        lines = [f"{len(self.runs):,} finished runs in {', '.join(map(str, self.folders))}"]
        for kind, found in (
            ("failed", self.failed),
            ("unfinished", self.unfinished),
            ("asked for and not begun", self.missing),
            ("unreadable", self.unreadable),
            ("repeated, counted once", self.repeated),
        ):
            if found:
                lines.append(f"{len(found):,} {kind}:")
                lines += [f"  {folder}: {reason}" for folder, reason in found]
        return lines


def collect(folders: Sequence[Path | str]) -> Collection:
    """Read the record of every run in the sweep folders.

    Raises:
        AnalysisError: A folder does not exist or is a run's, or no run has finished.
    """
    runs: dict[str, Run] = {}
    left_out: dict[str, list[tuple[Path, str]]] = {
        "failed": [],
        "unfinished": [],
        "missing": [],
        "unreadable": [],
        "repeated": [],
    }
    sweeps = tuple(dict.fromkeys(Path(folder) for folder in folders))
    for sweep in sweeps:
        if not sweep.is_dir():
            raise AnalysisError(f"{sweep}: is no folder. Give the folder of a sweep, such as multirun/quickstart.")
        if (sweep / RECORD).exists():
            raise AnalysisError(f"{sweep}: is the folder of one run. Give the sweep's, {sweep.parent}.")
        for folder in sorted(path for path in sweep.iterdir() if path.is_dir()):
            if not (folder / RECORD).exists():
                if (folder / ".hydra").is_dir():
                    left_out["unfinished"].append(
                        (folder, "it is running" if is_running(folder) else "it was stopped or killed")
                    )
                continue
            try:
                record = Record.load(folder)
                run = Run(record, folder)
                _ = run.seed, run.sparsity, run.train_size
            except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
                left_out["unreadable"].append((folder, _told(error, folder)))
                continue
            if record.status != "finished":
                lines = (record.error or "").strip().splitlines() or ["no reason given"]
                left_out["failed"].append((folder, lines[0]))
            elif record.run_id in runs:
                left_out["repeated"].append((folder, f"the run of {runs[record.run_id].folder}"))
            else:
                runs[record.run_id] = run
        left_out["missing"] += _missing(sweep)
    collection = Collection(
        folders=sweeps, runs=tuple(runs.values()), **{kind: tuple(found) for kind, found in left_out.items()}
    )
    if not runs:
        raise AnalysisError("\n".join([*collection.account(), "Nothing to analyse. Run the sweep first."]))
    return collection


def _missing(sweep: Path) -> list[tuple[Path, str]]:
    """Runs that the sweep was asked for and that have no folder."""
    try:
        manifest = Manifest.load(sweep)
    except (FileNotFoundError, ValueError):
        return []
    return [(sweep / name, " ".join(asked)) for name, asked in manifest.runs.items() if not (sweep / name).is_dir()]


def write(collection: Collection) -> tuple[Path, Path]:
    """Write the tidy table into the first sweep's folder as parquet and csv."""
    table = collection.table()
    parquet, csv = (collection.folders[0] / f"results.{ending}" for ending in ("parquet", "csv"))
    table.to_parquet(parquet, index=False)
    table.to_csv(csv, index=False)
    return parquet, csv


def settings(record: Record) -> dict[str, Any]:
    """The leaves of the resolved config by dotted key, without what cannot change a result."""
    return dict(_leaves({key: value for key, value in record.config.items() if key not in NEUTRAL}, ""))


def fingerprints(record: Record, stage: str, name: str) -> tuple[str, ...]:
    """The fingerprints `name` of all stages called `stage`, in order; stages without one are passed over."""
    return tuple(each.fingerprints[name] for each in record.stages if each.stage == stage and name in each.fingerprints)


def _leaves(value: Any, key: str) -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, float):
        yield key, float(f"{value:.9g}")
    elif isinstance(value, (list, tuple)) and any(isinstance(item, (Mapping, list, tuple)) for item in value):
        for position, item in enumerate(value):
            yield from _leaves(item, f"{key}.{position}")
    else:
        yield key, value


def _variants(runs: Sequence[Run]) -> list[str]:
    """For each run the settings in which runs of the same choices differ, beyond seed, sparsity and train_size."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for position, run in enumerate(runs):
        groups.setdefault(tuple(map(run.choice, CHOICES)), []).append(position)
    variants = [""] * len(runs)
    for positions in groups.values():
        values: dict[str, set[str]] = {}
        counts: dict[str, int] = {}
        for position in positions:
            for key, value in runs[position].settings.items():
                values.setdefault(key, set()).add(repr(value))
                counts[key] = counts.get(key, 0) + 1
        varying = sorted(
            key
            for key in values
            if key not in ("seed", "sparsity", "task.train_size")
            and (len(values[key]) > 1 or counts[key] < len(positions))
        )
        for position in positions if varying else ():
            own = runs[position].settings
            variants[position] = " ".join(f"{key}={own[key]}" for key in varying if key in own)
    return variants


def _joined(digests: tuple[str, ...]) -> str:
    """One digest for those of several stages."""
    if len(digests) <= 1:
        return "".join(digests)
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()[:16]


def _told(error: Exception, folder: Path) -> str:
    text = f"{error}" if isinstance(error, ValueError) else f"not a record ({type(error).__name__}: {error})"
    return text.removeprefix(f"{folder / RECORD}: ")


def described_columns() -> str:
    """The columns of the tidy table, for `--help`."""
    width = max(map(len, COLUMNS))
    return "\n".join(f"  {name:<{width}}  {meaning}" for name, meaning in COLUMNS.items())
