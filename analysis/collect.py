"""Records of any number of sweeps as one tidy table. Nothing is dropped without a word."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
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
    "budget": "pruner/budget",
    "schedule": "schedule",
    "loss": "loss",
    "teacher": "teacher",
    "batch_source": "batches",
    "recovery": "recovery",
    "pipeline": "pipeline",
}
"""Column -> config group whose chosen YAML it holds."""

AT_MOST = "pruner.budget.at_most"
"""Config key of a budget that is given by itself, in what it counts."""
TOLD = {"pruner.shuffled": False, **dict.fromkeys(("loss.target", "loss.over", "loss.at"), None)}
"""Config keys that `variant` tells of any run in which they have another value than this, be it that of all runs: those
of a control, and of `loss=compare`, which is a loss for each combination of them."""
UNNAMED = {"budget": "units", "batch_source": "questions"}
"""Column -> what records mean that are older than its group."""
LATER: dict[str, Any] = {
    **dict.fromkeys(("recovery.tokens", "recovery.flops"), None),
    "recovery.gradient_checkpointing": False,
    "recovery.optimizer": "adamw",
    "recovery.frozen": [],
    "teacher.precision": "as_stored",
}
"""Config keys that records may be older than -> what these mean by saying nothing."""

OWN_COLUMN = ("seed", "sparsity", AT_MOST, "task.train_size", "task.subset")
"""Config keys that columns tell: `sparsity` is told by the bound where there is one."""
LENGTH = ("recovery.epochs", "recovery.steps", "recovery.tokens", "recovery.flops")
EXPLAINED = {"teacher_parameters": ("teacher",), "recovery_tokens": LENGTH, "recovery_flops": LENGTH}
"""Column -> config keys whose settings it tells in short."""

NEUTRAL = frozenset({"tracker", "runtime", "paths", "save_model", "export", "sweep", "hydra"})
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
    "subset": "int; the draw of recovery questions, empty for the first ones",
    "recovery_questions": "int; recovery questions there were; empty if the dense model was not asked them",
    "teacher_parameters": "int; size of the model whose answers recovery followed; empty where it followed none",
    "recovery_tokens": "int; tokens that the student read in all recover stages; empty if none was counted",
    "recovery_flops": "float; floating-point operations of all recover stages, the teacher's included; empty likewise",
    "recovery_seconds": "float; time that they took, which another run of the same takes otherwise; empty likewise",
    "variant": "str; settings in which runs with equal choices differ, and those of controls, as key=value; or empty",
    "sparsity": "float; the run's requested share to remove of units, or of what the budget counts, rounded to "
    f"{DIGITS} digits; with {AT_MOST} the share that this does not allow",
    "model_in": "str; digest of the weights that entered the first prune stage",
    "units": "str; digest of the units removed, over all prune stages",
    "batches": "str; digest of the recovery batches (example ids in order, steps), over all recover stages",
}
ROW_COLUMNS = {
    "stage_index": "int; stages count from 0",
    "stage": "str; its name",
    "target_sparsity": f"float; sparsity asked for at this stage; with {AT_MOST} as above",
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
        """As it was asked for; of a budget that was given by itself the share of the dense model's cost that is above.

        Then the config's own sparsity is but the highest that may go for it.
        """
        given = round(float(self.record.config["sparsity"]), DIGITS)
        return given if self._above is None else self._above

    @cached_property
    def _above(self) -> float | None:
        """Of what the dense model costs the share that `pruner.budget.at_most` does not allow; None without it."""
        if self.settings.get(AT_MOST) is None:
            return None
        told = [stage.details["budget"] for stage in self.record.stages if "budget" in stage.details]
        if not told:
            return None
        share = max(0.0, 1 - float(told[-1]["allowed"]) / float(told[-1]["dense"]))
        # the clock does not tell a share more exactly
        return round(share, 2 if self.choice("budget") == "latency" else DIGITS)

    def target(self, row: Row) -> float:
        """The sparsity that was asked for at a stage."""
        return row.target_sparsity if self._above is None or not row.target_sparsity else self._above

    @property
    def train_size(self) -> int | None:
        size = (self.record.config.get("task") or {}).get("train_size")
        return None if size is None else int(size)

    @property
    def subset(self) -> int | None:
        subset = (self.record.config.get("task") or {}).get("subset")
        return None if subset is None else int(subset)

    @property
    def recovery_questions(self) -> int | None:
        row = self.row(self.dense_evaluation, split="recovery")
        return None if row is None else row.n

    @property
    def teacher_parameters(self) -> int | None:
        """Of the last recovery that had a teacher."""
        sizes = [(stage.details.get("teacher") or {}).get("parameters") for stage in self.record.stages]
        return next((int(size) for size in reversed(sizes) if size), None)

    def recovery(self, name: str) -> float | None:
        """Of all recover stages: `tokens`, `flops`, `seconds`."""
        trained = [stage for stage in self.record.stages if stage.stage == "recover" and "flops" in stage.details]
        told = [stage.seconds if name == "seconds" else float(stage.details[name]) for stage in trained]
        return sum(told) if told else None

    @property
    def recovery_tokens(self) -> float | None:
        return self.recovery("tokens")

    @property
    def recovery_flops(self) -> float | None:
        return self.recovery("flops")

    @property
    def work(self) -> str:
        """The key of the last evaluation: equal for runs that came to the same model."""
        return self.last_evaluation.key if self.last_evaluation else self.record.run_id

    @property
    def label_free(self) -> bool:
        """Whether recovery trained, and is known to have read no label."""
        told = [stage.details["needs"] for stage in self.record.stages if "needs" in stage.details]
        return bool(told) and not any("labels" in needs for needs in told)

    @cached_property
    def settings(self) -> dict[str, Any]:
        return settings(self.record)

    def choice(self, column: str) -> str:
        """The chosen YAML of the column's group; of a combined pruner those of its parts."""
        group, choices = CHOICES[column], self.record.choices
        parts = {chosen for key, chosen in choices.items() if key.startswith(f"{group}@pruner.parts.")}
        unnamed = UNNAMED.get(column, "") if choices else ""
        return choices.get(group) or " + ".join(sorted(parts)) or unnamed

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

    @cached_property
    def _rows(self) -> dict[tuple[int, str, str], Row]:
        return {(row.stage_index, row.metric, row.split): row for row in reversed(self.record.rows)}

    def row(self, stage: StageRecord | None, metric: str = "accuracy", split: str = "test") -> Row | None:
        """The number that `stage` measured on the questions of `split`, or where it asks none the number itself."""
        if stage is None:
            return None
        return self._rows.get((stage.index, metric, split)) or self._rows.get((stage.index, metric, ""))

    def fingerprints(self, stage: str, name: str) -> tuple[str, ...]:
        """The fingerprints `name` of all stages called `stage`, in order; stages without one are passed over."""
        return fingerprints(self.record, stage, name)

    @cached_property
    def right(self) -> pandas.Series[bool]:
        """Whether each test question was answered rightly after the last evaluation, in the order of the ids.

        Two runs were asked the same if the index is: it holds each question with its right choice.
        """
        asked = self.predictions().sort_index()
        index = pandas.MultiIndex.from_arrays([asked.index, asked["gold"]])
        return pandas.Series((asked["predicted"] == asked["gold"]).to_numpy(), index=index)

    def predictions(
        self, split: str = "test", dense: bool = False, after: StageRecord | None = None
    ) -> pandas.DataFrame:
        """Answers after the last evaluation: `id` (the index), `gold`, `predicted`, `scores`, `choices` (their number).

        Args:
            split: The questions.
            dense: Whether to read the answers of the dense model instead.
            after: The evaluation to read instead.

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
        stage = after or (self.dense_evaluation if dense else self.last_evaluation)
        asked = table[(table["split"] == split) & (table["stage_index"] == (stage.index if stage else -1))]
        if asked.empty:
            which = "dense" if dense else "last" if after is None else f"{after.index}th"
            raise AnalysisError(f"{path}: holds no answers to {split} questions of the {which} evaluation. {again}")
        if asked["id"].duplicated().any():
            raise AnalysisError(f"{path}: holds two answers to one question. {again}")
        return asked.assign(choices=asked["scores"].map(len)).set_index("id")[
            ["gold", "predicted", "scores", "choices"]
        ]


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What is in some sweep folders. Each list but `runs` names folders, with the reason."""

    folders: tuple[Path, ...]
    runs: tuple[Run, ...]
    filtered: tuple[str, int] | None = None
    """A filter in words, and the number of finished runs that it leaves out."""
    failed: tuple[tuple[Path, str], ...] = ()
    unfinished: tuple[tuple[Path, str], ...] = ()
    missing: tuple[tuple[Path, str], ...] = ()
    unreadable: tuple[tuple[Path, str], ...] = ()
    repeated: tuple[tuple[Path, str], ...] = ()

    @cached_property
    def run_table(self) -> pandas.DataFrame:
        """One line for each finished run, with `RUN_COLUMNS`; line i belongs to `runs[i]`."""
        return self._table(())

    def _table(self, explained: Sequence[str]) -> pandas.DataFrame:
        variants = _variants(self.runs, explained)
        lines = [
            {
                "run_id": run.record.run_id,
                "sweep": run.record.sweep,
                "status": run.record.status,
                "seed": run.seed,
                **{column: run.choice(column) for column in CHOICES},
                "train_size": run.train_size,
                "subset": run.subset,
                "recovery_questions": run.recovery_questions,
                "teacher_parameters": run.teacher_parameters,
                **{f"recovery_{name}": run.recovery(name) for name in ("tokens", "flops", "seconds")},
                "variant": variant,
                "sparsity": run.sparsity,
                "model_in": next(iter(run.fingerprints("prune", "model_in")), ""),
                "units": _joined(run.fingerprints("prune", "units")),
                "batches": _joined(run.fingerprints("recover", "batches")),
            }
            for run, variant in zip(self.runs, variants, strict=True)
        ]
        numbers = ("train_size", "subset", "recovery_questions", "teacher_parameters", "recovery_tokens")
        measured = ("recovery_flops", "recovery_seconds")
        kinds = dict.fromkeys(numbers, "Int64") | dict.fromkeys(measured, "float64")
        return pandas.DataFrame(lines, columns=list(RUN_COLUMNS)).astype(kinds)

    @cached_property
    def drawn_by_seed(self) -> bool:
        """Whether each seed drew recovery questions of its own (`task.subset: ${seed}`)."""
        subsets = self.run_table.groupby("seed")["subset"]
        return bool(self.run_table["subset"].nunique() > 1 and subsets.nunique(dropna=False).max() == 1)

    def conditions(self, columns: Sequence[str] = ()) -> pandas.DataFrame:
        """`run_table` for grouping, with further columns.

        `train_size` is text, `all` where all were taken, since groupby and nunique pass over gaps. `variant` tells
        only what the columns leave open. `subset` is text, and empty where each seed drew its own recovery questions:
        then it is part of what a seed is. Where a run has no such key there is None; lists are text, since groups need
        values that can be hashed.

        Args:
            columns: Columns of `run_table`, or dotted config keys (`recovery.learning_rate`), which become columns.

        Raises:
            AnalysisError: No run has such a column or key.
        """
        keys = [column for column in columns if column not in RUN_COLUMNS]
        for key in keys:
            if not any(key in run.settings for run in self.runs):
                raise AnalysisError(
                    f"{key}: no run has it. Give a column ({', '.join(RUN_COLUMNS)}), or a dotted config key such as "
                    "recovery.learning_rate; for an axis, a metric or a kind of sparsity (target, block, model) too."
                )
        explained = [*keys, *(key for column in columns for key in EXPLAINED.get(column, ()))]
        table = self._table(explained) if explained else self.run_table
        sizes = ["all" if run.train_size is None else str(run.train_size) for run in self.runs]
        subsets = ["" if run.subset is None or self.drawn_by_seed else str(run.subset) for run in self.runs]
        table = table.assign(train_size=sizes, subset=subsets)
        for key in keys:
            found = [run.settings.get(key) for run in self.runs]
            values = [str(each) if isinstance(each, list | tuple) else each for each in found]
            # numbers with gaps would become floats with nan, and nan is no value that equals itself
            table[key] = pandas.Series(values, index=table.index, dtype=object if None in values else None)
        return table

    def where(self, conditions: Mapping[str, Sequence[str]]) -> Collection:
        """The runs whose columns have one of the given values, such as `{"loss": ["ce", "kl"]}`.

        Numbers are compared as numbers: `0.50` is `0.5`. `empty` stands for what a run does not have.

        Raises:
            AnalysisError: There is no such column or key, or no run is left.
        """
        if not conditions:
            return self
        told = " ".join(f"{column}={','.join(values)}" for column, values in conditions.items())
        try:
            table = self.conditions(list(conditions)).assign(subset=self.run_table["subset"])
        except AnalysisError as error:
            raise AnalysisError(f"--where {told}: {error}") from None
        keep = pandas.Series(True, index=table.index)
        for column, values in conditions.items():
            known = table[column].map(_plain)
            wanted = {_plain(value) for value in values}
            if missing := wanted - set(known):
                asked, there = (", ".join(sorted(map(str, each))) for each in (missing, set(known)))
                raise AnalysisError(f"--where {column}={asked}: no finished run has it; there are {there}.")
            keep &= known.isin(wanted)
        runs = tuple(run for run, kept in zip(self.runs, keep, strict=True) if kept)
        if not runs:
            raise AnalysisError(f"--where {told}: no finished run has all of it.")
        before, number = self.filtered or ("", 0)
        return replace(self, runs=runs, filtered=(f"{before} {told}".strip(), number + len(self.runs) - len(runs)))

    def table(self) -> pandas.DataFrame:
        """One line for each row of each finished run, with the columns of `COLUMNS`."""
        owners = [position for position, run in enumerate(self.runs) for _ in run.record.rows]
        rows = [row for run in self.runs for row in run.record.rows]
        numbers = pandas.DataFrame({field.name: [getattr(row, field.name) for row in rows] for field in fields(Row)})
        numbers["target_sparsity"] = [run.target(row) for run in self.runs for row in run.record.rows]
        numbers = numbers.astype({"value": float, "n": "Int64", "ci_low": float, "ci_high": float})
        owned = self.run_table.iloc[owners].reset_index(drop=True)
        return pandas.concat([owned, numbers[list(ROW_COLUMNS)]], axis=1)

    def account(self) -> list[str]:
        """Lines that say how many runs there are and name each one that is left out."""
        lines = [f"{len(self.runs):,} finished runs in {', '.join(map(str, self.folders))}"]
        if self.filtered:
            told, number = self.filtered
            lines.append(f"{number:,} more that --where {told} leaves out")
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


def collect(folders: Sequence[Path | str], unfinished: Sequence[tuple[Path, str]] = ()) -> Collection:
    """Read the record of every run in the sweep folders.

    Args:
        folders: The folders.
        unfinished: Runs that are known not to be there, with the reason.

    Raises:
        AnalysisError: A folder does not exist or is a run's, or no run has finished.
    """
    runs: dict[str, Run] = {}
    left_out: dict[str, list[tuple[Path, str]]] = {
        "failed": [],
        "unfinished": list(unfinished),
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
                _ = run.seed, run.sparsity, run.train_size, run.subset
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
        folders=sweeps,
        runs=tuple(runs.values()),
        failed=tuple(left_out["failed"]),
        unfinished=tuple(left_out["unfinished"]),
        missing=tuple(left_out["missing"]),
        unreadable=tuple(left_out["unreadable"]),
        repeated=tuple(left_out["repeated"]),
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


def write(collection: Collection, folder: Path) -> tuple[Path, Path]:
    """Write the tidy table as parquet and csv."""
    folder.mkdir(parents=True, exist_ok=True)
    table = collection.table()
    parquet, csv = (folder / f"results.{ending}" for ending in ("parquet", "csv"))
    table.to_parquet(parquet, index=False)
    table.to_csv(csv, index=False)
    return parquet, csv


def settings(record: Record) -> dict[str, Any]:
    """The leaves of the resolved config by dotted key, without what cannot change a result."""
    meant = {key: value for key, value in LATER.items() if key.partition(".")[0] in record.config}
    return meant | dict(_leaves({key: value for key, value in record.config.items() if key not in NEUTRAL}, ""))


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


def _plain(value: object) -> str | float:
    """For comparing what was written with what was recorded."""
    text = "" if value is None or value is pandas.NA else str(value)
    try:
        return round(float(text), DIGITS)
    except ValueError:
        return text or "empty"


def _variants(runs: Sequence[Run], explained: Sequence[str] = ()) -> list[str]:
    """For each run the settings in which runs of the same choices differ, beyond what has a column of its own.

    And those of `TOLD`: a control must not look like what it is the control of, nor two losses like one.

    Args:
        runs: The runs.
        explained: Further keys that have one; all below them too.
    """
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
            if key not in OWN_COLUMN
            and not any(under(key, other) for other in explained)
            and (
                len(values[key]) > 1
                or counts[key] < len(positions)
                or (key in TOLD and values[key] != {repr(TOLD[key])})
            )
        )
        for position in positions if varying else ():
            own = runs[position].settings
            variants[position] = " ".join(f"{key}={own[key]}" for key in varying if key in own)
    return variants


def under(name: str, key: str) -> bool:
    """Whether a dotted name is the key or lies below it."""
    return name == key or name.startswith(f"{key}.")


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
