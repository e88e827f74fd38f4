"""Accuracy against sparsity: one point a run, and their mean with an interval."""

from __future__ import annotations

from collections.abc import Sequence

import pandas

from analysis.collect import AnalysisError, Collection
from analysis.statistics import t_interval, wilson

FACETS = ("criterion", "structure", "model", "task", "preparation")
"""Columns that get a panel of their own where they vary; the first always does."""
LINES = ("loss", "allocation", "schedule", "teacher", "recovery", "pipeline", "train_size", "variant")
"""Columns that get a line of their own where they vary; the first always does."""
SPARSITIES = ("target", "block", "model")


def points(collection: Collection) -> tuple[pandas.DataFrame, list[str]]:
    """The last accuracy on test questions of each run.

    Returns:
        A table with the run's columns and `value`, `n`, `work` (key of the evaluation: equal for runs that came to
        the same model), `target_sparsity`, `block_sparsity`, `model_sparsity`, `dense` (accuracy before pruning) and
        `run` (position in the collection); and a line for each run that has no accuracy.

    Raises:
        AnalysisError: No run has one, or two runs differ in nothing that is known.
    """
    lines, gaps = [], []
    for position, run in enumerate(collection.runs):
        stage = run.last_evaluation
        row, dense = run.row(stage), run.row(run.dense_evaluation)
        if stage is None or row is None or row.value is None or not row.n:
            gaps.append(f"{run.folder}: has no accuracy on test questions, left out")
            continue
        lines.append(
            {
                "run": position,
                "value": row.value,
                "n": row.n,
                "work": stage.key,
                "target_sparsity": row.target_sparsity,
                "block_sparsity": row.block_sparsity,
                "model_sparsity": row.model_sparsity,
                "dense": None if dense is None else dense.value,
            }
        )
    if not lines:
        raise AnalysisError("\n".join([*gaps, "No run has an accuracy on test questions. Use evaluation=accuracy."]))
    measured = pandas.DataFrame(lines).astype({"dense": float})
    about = collection.conditions.iloc[measured["run"]].reset_index(drop=True)
    table = pandas.concat([about, measured], axis=1)
    twice = table[table.duplicated([*FACETS, *LINES, "sparsity", "seed"], keep=False)]
    if not twice.empty:
        first, second = (collection.runs[run] for run in twice["run"].iloc[:2])
        raise AnalysisError(
            f"{first.folder} and {second.folder}: runs of different ids, but equal in every setting and seed; they "
            "come from different versions of the code. Analyse their sweeps separately."
        )
    return table, gaps


def varying(table: pandas.DataFrame, columns: Sequence[str]) -> list[str]:
    """The first of `columns`, and those others in which the runs differ."""
    return [column for position, column in enumerate(columns) if position == 0 or table[column].nunique() > 1]


def summarise(table: pandas.DataFrame, by: Sequence[str]) -> pandas.DataFrame:
    """Mean accuracy of each group and sparsity with a 95 % interval.

    The interval is over seeds (t quantiles) where at least two of them gave different accuracies. Otherwise, with one
    seed or where the seed changes nothing, the seeds tell no spread: it is over the questions (Wilson), and says so.

    Returns:
        A table with `by`, `sparsity`, `mean`, `low`, `high`, `over` (seeds or questions), `seeds`, `distinct` (number
        of different models among them), `questions`, and the mean of each sparsity.
    """
    lines = []
    for key, group in table.groupby([*by, "sparsity"], sort=True, dropna=False):
        distinct = group.drop_duplicates("work")
        mean = float(distinct["value"].mean())
        if distinct["value"].nunique() > 1:
            over, (low, high) = "seeds", t_interval(list(distinct["value"]))
        else:
            n = int(group["n"].iloc[0])
            over, (low, high) = "questions", wilson(mean * n, n)
        lines.append(
            dict(zip([*by, "sparsity"], key, strict=True))
            | {
                "mean": mean,
                "low": low,
                "high": high,
                "over": over,
                "seeds": group["seed"].nunique(),
                "distinct": len(distinct),
                "questions": int(group["n"].max()),
            }
            | {f"{kind}_sparsity": float(group[f"{kind}_sparsity"].mean()) for kind in SPARSITIES}
        )
    return pandas.DataFrame(lines)
