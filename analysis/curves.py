"""A metric against what was varied: one point a run, and their mean with an interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas

from analysis import names
from analysis.collect import EXPLAINED, RUN_COLUMNS, AnalysisError, Collection, Run
from analysis.metrics import ACCURACY, KNOWN, Metric
from analysis.statistics import stratified_t_interval, wilson
from regraft.records import Row, StageRecord

FACETS = ("criterion", "structure", "model", "task", "preparation")
"""Columns that get a panel of their own where they vary; the first always does."""
LINES = (
    *("loss", "allocation", "budget", "schedule", "teacher", "batch_source", "recovery", "pipeline"),
    *("train_size", "subset", "variant"),
)
"""Columns that get a line of their own where they vary; the first, which colour tells, always does."""
USUAL = {"budget": {"", "units"}, "variant": {""}}
"""Column -> values that need no word where all runs have them."""
EXPLAINS = {"recovery_questions": ("train_size",), "teacher_parameters": ("teacher",)}
"""Column of the x-axis -> columns that say the same in other words."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What the x-axis shows."""

    name: str
    label: str
    """With its unit."""
    swept: str
    """The column whose values make the points of a line: `sparsity`, or the axis itself."""
    scale: float
    """What a value is multiplied with to be shown."""
    value: Callable[[Run, Row], float | None]
    logarithmic: bool = False


SPARSITIES = ("target", "block", "model", "retention")
AS_COLUMNS = {"sparsity": "target", "target_sparsity": "target", "block_sparsity": "block", "model_sparsity": "model"}
"""Column of the tidy table -> the axis that shows it."""
NUMBERS = {
    "recovery_questions": "Recovery questions",
    "recovery_tokens": "Tokens read in recovery",
    "recovery_flops": "FLOPs of recovery, teacher included",
    "teacher_parameters": "Parameters of the teacher",
}
"""Columns that are numbers -> label; their axes are logarithmic."""
RATE = "recovery.learning_rate"
"""The config key whose axis is logarithmic."""


def axis(name: str, structures: set[str], budgets: Set[str] = frozenset()) -> Axis:
    """The x-axis called `name`.

    Args:
        name: `target`, `block` or `model` sparsity, also by the name of its column (`block_sparsity`), `retention`
            (share of the pruned units that is left), a column with numbers (`recovery_questions`,
            `recovery_flops`), a metric, or a dotted config key with numbers.
        structures: What was pruned, for the label.
        budgets: Of what sparsity was asked for, if not of that.
    """
    name = AS_COLUMNS.get(name, name)
    if name in SPARSITIES:
        units = names.units(structures)
        labels = {
            "target": f"Requested share of {names.units(structures, budgets)} removed (%)",
            "block": f"Share of {units} removed (%)",
            "model": "Share of all parameters removed (%)",
            "retention": f"Share of {units} kept (%)",
        }
        return Axis(name=name, label=labels[name], swept="sparsity", scale=100.0, value=_sparsity(name))
    if name in KNOWN:
        known = KNOWN[name]
        return Axis(
            name=name,
            label=known.axis,
            swept="sparsity",
            scale=known.scale,
            value=lambda run, _: measured(run, run.last_evaluation, known),
        )
    if name in NUMBERS:
        return Axis(
            name=name,
            label=NUMBERS[name],
            swept=name,
            scale=1.0,
            value=lambda run, _: getattr(run, name),
            logarithmic=True,
        )
    if name in RUN_COLUMNS:
        raise AnalysisError(
            f"--x {name}: is no number. Give one of {', '.join((*SPARSITIES, *NUMBERS, *KNOWN))}, or a dotted config "
            "key with numbers."
        )
    if name == RATE:
        return Axis(
            name=name,
            label="Learning rate of the recovery",
            swept=name,
            scale=1.0,
            value=lambda run, _: _number(run.settings.get(name)),
            logarithmic=True,
        )
    return Axis(name=name, label=name, swept=name, scale=1.0, value=lambda run, _: _number(run.settings.get(name)))


def measured(run: Run, stage: StageRecord | None, metric: Metric, split: str = "test") -> float | None:
    """What `stage` of the run measured; None where it did not."""
    row = run.row(stage, metric.inverse_of or metric.name, split)
    if row is None or row.value is None or not math.isfinite(row.value):
        return None
    if metric.inverse_of:
        return metric.factor / row.value if row.value else None
    return row.value


@dataclass(frozen=True, kw_only=True)
class Points:
    """One line for each run that has the metric, and how they are to be shown."""

    table: pandas.DataFrame
    """The run's columns and `value`, `n`, `work` (key of the evaluation: equal for runs that came to the same model),
    `x`, `target_sparsity`, `block_sparsity`, `model_sparsity`, `dense` (the metric before pruning), `dense_x`, `run`
    (position in the collection)."""
    metric: Metric
    axis: Axis
    facets: list[str]
    """Columns that vary and get panels."""
    lines: list[str]
    """Columns that vary and get lines; colour tells the first."""
    pooled: list[str]
    """Columns whose values are averaged with equal weight."""
    gaps: tuple[str, ...]
    """A line for each run that is left out."""


def points(
    collection: Collection,
    metric: Metric = ACCURACY,
    x: str = "block",
    *,
    facets: Sequence[str] | None = None,
    colour: str | None = None,
    lines: Sequence[str] = (),
    pool: Sequence[str] = (),
) -> Points:
    """The last value of a metric on test questions of each run.

    Conditions are never averaged by oversight: a column in which runs differ and that is given no role gets lines.

    Args:
        collection: The runs.
        metric: On the y-axis.
        x: On the x-axis, see `axis`.
        facets: Columns with panels of their own; None takes those of `FACETS` in which runs differ.
        colour: The column that colour tells; None takes `loss`.
        lines: Further columns that get lines first.
        pool: Columns (`task`) whose values are averaged, all with the same weight, instead of shown.

    Raises:
        AnalysisError: No run has the metric, a column does not exist or is given two roles, or two runs differ in
            nothing that is known.
    """
    asked = [*(facets or ()), *([colour] if colour else ()), *lines, *pool]
    where = axis(x, *(set(collection.run_table[column]) for column in ("structure", "budget")))
    for column in asked:
        if asked.count(column) > 1 or column == where.swept:
            roles = "given two roles" if column != where.swept else f"varied along the x-axis {x}"
            raise AnalysisError(f"{column}: is {roles}. Name each column once in --facet, --colour, --line and --pool.")
    about = collection.conditions([*asked, *([where.swept] if where.swept not in KNOWN else ())])
    rows, gaps = [], []
    for position, run in enumerate(collection.runs):
        stage = run.last_evaluation
        row, value = run.row(stage, metric.inverse_of or metric.name), measured(run, stage, metric)
        if stage is None or row is None or value is None:
            gaps.append(f"{run.folder}: has no {metric.name} on test questions, left out")
            continue
        at = where.value(run, row)
        if at is None:
            gaps.append(f"{run.folder}: has no {where.name}, left out")
            continue
        dense = run.dense_evaluation
        rows.append(
            {
                "run": position,
                "x": at,
                "value": value,
                "n": row.n,
                "work": stage.key,
                "target_sparsity": run.target(row),
                "block_sparsity": row.block_sparsity,
                "model_sparsity": row.model_sparsity,
                "dense": measured(run, dense, metric),
                "dense_x": where.value(run, run.row(dense) or row) if where.swept == "sparsity" else None,
            }
        )
    if not rows:
        raise AnalysisError(
            f"No run has {metric.name} on test questions against {x}; the first: {gaps[0]}. `python -m analysis "
            "collect` lists what was measured, in the column metric."
        )
    numbers = pandas.DataFrame(rows).astype({"dense": float, "dense_x": float, "x": float, "n": "Int64"})
    table = pandas.concat([about.iloc[numbers["run"]].reset_index(drop=True), numbers], axis=1)
    known = RUN_COLUMNS.keys() - EXPLAINED.keys()
    keys = [column for column in dict.fromkeys([*asked, where.swept]) if column not in known]
    _refuse_doubles(collection, table, keys)

    told = {*pool, where.swept, *EXPLAINS.get(where.name, ())}
    chosen = list(facets) if facets is not None else varying(table, [c for c in FACETS if c not in {*asked, *told}])
    first = colour or next(column for column in LINES if column not in {*told, *chosen, *lines[1:]})
    others = [*FACETS, *LINES, *(() if where.swept == "sparsity" else ("sparsity",))]
    rest = [column for column in others if column not in {first, *chosen, *lines, *told}]
    lines = [*dict.fromkeys([first, *lines]), *(column for column in rest if shown(table, column))]
    if pool:
        table, left_out = _whole(table, [*chosen, *lines, where.swept], pool)
        gaps += left_out
    return Points(
        table=table, metric=metric, axis=where, facets=chosen, lines=lines, pooled=list(pool), gaps=tuple(gaps)
    )


def main_axis(collection: Collection) -> str:
    """What was varied: the number of recovery questions if that alone was, else sparsity as it was asked for."""
    table = collection.run_table
    sizes = table["recovery_questions"].nunique() > 1 and table["sparsity"].nunique() == 1
    return "recovery_questions" if sizes else "target"


def differ(table: pandas.DataFrame, column: str) -> bool:
    """Whether a column has more than one value; a gap is a value."""
    return bool(table[column].nunique(dropna=False) > 1)


def shown(table: pandas.DataFrame, column: str) -> bool:
    """Whether a column is to be told: it has more than one value, or one that must not go without saying."""
    return differ(table, column) or bool(set(table[column]) - USUAL.get(column, set(table[column])))


def varying(table: pandas.DataFrame, columns: Sequence[str]) -> list[str]:
    """The first of `columns`, and those others in which the runs differ."""
    return [column for position, column in enumerate(columns) if position == 0 or differ(table, column)]


def summarise(found: Points, by: Sequence[str] | None = None, also: Sequence[str] = ()) -> pandas.DataFrame:
    """Mean of each condition at each point of the x-axis with a 95 % interval.

    The interval is over seeds (t quantiles) where at least two of them gave different values. Otherwise, with one
    seed or where the seed changes nothing, the seeds tell no spread: a share of questions gets an interval over the
    questions (Wilson), and says so; other metrics get none. Where columns are pooled the interval is over seeds within
    each of their values (stratified), and there is none if a value has a single seed.

    Args:
        found: The points.
        by: Columns that make a condition; None takes those of facets and lines.
        also: Further columns of the points, whose means are told.

    Returns:
        A table with `by`, the swept column, `mean`, `low`, `high`, `over` (seeds, questions or nothing), `seeds`,
        `distinct` (number of different models among them), `questions`, and the mean of each sparsity, of `x` and of
        each of `also`.
    """
    by = [*found.facets, *found.lines] if by is None else list(by)
    swept = found.axis.swept
    rows = []
    for key, group in found.table.groupby([*by, swept], sort=True, dropna=False):
        strata = [stratum for _, stratum in group.groupby(found.pooled)] if found.pooled else [group]
        rows.append(
            dict(zip([*by, swept], key, strict=True))
            | _mean(strata, found.metric)
            | {
                "seeds": group["seed"].nunique(),
                "distinct": group["work"].nunique(),
                "questions": group["n"].max(),
            }
            | {
                column: float(group[column].mean())
                for column in ("x", "target_sparsity", "block_sparsity", "model_sparsity", *also)
            }
            | {f"{column}s": len(set(group[column])) for column in found.pooled}
        )
    table = pandas.DataFrame(rows)
    for column in by:
        if table[column].isna().any():
            # whole numbers with gaps would become floats
            values = [None if names.is_gap(row[column]) else row[column] for row in rows]
            table[column] = pandas.Series(values, index=table.index, dtype=object)
    return table


def _mean(strata: Sequence[pandas.DataFrame], metric: Metric) -> dict[str, Any]:
    """Mean over strata of equal weight, with the interval that there is."""
    values = [list(stratum.drop_duplicates("work")["value"]) for stratum in strata]
    mean = float(np.mean([np.mean(each) for each in values]))
    if min(map(len, values)) > 1 and any(len(set(each)) > 1 for each in values):
        low, high = stratified_t_interval(values)
        return {"mean": mean, "low": low, "high": high, "over": "seeds"}
    if metric.proportion and len(strata) == 1 and pandas.notna(n := strata[0]["n"].iloc[0]):
        low, high = wilson(mean * n, int(n))
        return {"mean": mean, "low": low, "high": high, "over": "questions"}
    return {"mean": mean, "low": math.nan, "high": math.nan, "over": "nothing"}


def select(table: pandas.DataFrame, columns: Sequence[str], values: Sequence[object]) -> pandas.DataFrame:
    """The lines in which the columns have these values; a gap equals a gap."""
    keep = pandas.Series(True, index=table.index)
    for column, value in zip(columns, values, strict=True):
        keep &= table[column].isna() if names.is_gap(value) else table[column] == value
    return table[keep]


def with_condition(table: pandas.DataFrame, columns: Sequence[str], values: Hashable) -> pandas.DataFrame:
    """The table with a column for each part of a condition, the same in all lines; `values` is a key of groupby."""
    assert isinstance(values, tuple) and len(values) == len(columns)
    table = table.copy()
    for column, value in zip(columns, values, strict=True):
        table[column] = value
    return table


def conditions(table: pandas.DataFrame, columns: Sequence[str]) -> list[tuple[object, ...]]:
    """The different values of the columns, in the order in which they are shown: known losses first, then by name.

    A gap is None: nan is not equal to itself, and each would be a value of its own.
    """
    if not columns:
        return [()]
    lines = table[list(columns)].itertuples(index=False, name=None)
    found = {tuple(None if names.is_gap(value) else value for value in line) for line in lines}
    return sorted(found, key=lambda line: tuple(map(names.rank, columns, line)))


def _sparsity(name: str) -> Callable[[Run, Row], float | None]:
    if name == "retention":
        return lambda _, row: None if row.block_sparsity is None else 1 - row.block_sparsity
    if name == "target":
        return lambda run, row: run.target(row)
    return lambda _, row: getattr(row, f"{name}_sparsity")


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(table: pandas.DataFrame, by: Sequence[str], pool: Sequence[str]) -> tuple[pandas.DataFrame, list[str]]:
    """The conditions that were run on all that is pooled: a mean over fewer tasks is no point of the same curve."""
    places = table.groupby(list(pool), dropna=False)
    whole = pandas.Series(False, index=table.index)
    gaps = []
    for key, group in table.assign(place=places.ngroup()).groupby(list(by), dropna=False):
        if group["place"].nunique() == places.ngroups:
            whole[group.index] = True
            continue
        ran = " and ".join(sorted(set(group[pool[0]].map(str))))
        gaps.append(
            f"{names.label(by, key)}: was run on {ran} only, not on all {places.ngroups} {pool[0]}s, {len(group):,} "
            f"run{'s' * (len(group) > 1)} left out"
        )
    if not whole.any():
        raise AnalysisError(f"--pool {','.join(pool)}: no condition was run on all {places.ngroups} of them.")
    return table[whole], gaps


def _refuse_doubles(collection: Collection, table: pandas.DataFrame, keys: Sequence[str]) -> None:
    same = list(dict.fromkeys([*FACETS, *LINES, *keys, "sparsity", "seed", "teacher_parameters"]))
    # whatever the bound, nothing is removed at sparsity 0: that is one model and one point
    found = table[(table["sparsity"] > 0) | ~table.duplicated([*same, "work"])]
    twice = found[found.duplicated(same, keep=False)]
    if not twice.empty:
        first, second = (collection.runs[run] for run in twice["run"].iloc[:2])
        raise AnalysisError(
            f"{first.folder} and {second.folder}: runs of different ids, but equal in every setting and seed; they "
            "come from different versions of the code. Analyse their sweeps separately."
        )


def explained(condition: Mapping[str, object], columns: Sequence[str]) -> str:
    """A condition in words: `KL, schedule one-shot`."""
    return names.label(list(columns), tuple(condition[column] for column in columns))
