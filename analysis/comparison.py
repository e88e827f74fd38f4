"""Two conditions that differ in one factor: pairs of runs, how far the pair is controlled, and the verdict.

A difference belongs to the factor only if nothing else differs. The grade says so, from the configs and from the
fingerprints of what the runs had in hand:

* `same-units`: all else equal, the units removed included (one-shot pruning).
* `same-rule`: the same procedure, but it removed other units: its scores depend on the recovery before, as in iterative
  pruning, or the factor is the pruning itself.
* `not controlled`: more differs, and nothing is said about the factor.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from analysis import names
from analysis.collect import CHOICES, AnalysisError, Collection, Run, fingerprints, settings
from analysis.curves import FACETS, LINES
from analysis.statistics import paired_bootstrap
from regraft.records import Record

GradeName = Literal["same-units", "same-rule", "not controlled"]
ORDER: tuple[GradeName, ...] = ("same-units", "same-rule", "not controlled")
"""From the strongest to the weakest."""

MOVES = {
    "model": ("model_in", "batches"),
    "preparation": ("model_in",),
    "task": ("model_in", "batches"),
    "recovery": ("batches",),
    "schedule": ("batches",),
    "pipeline": ("batches",),
    "sparsity": ("batches",),
}
"""Top-level key of a factor -> fingerprints that it decides, so that they may differ with it."""


@dataclass(frozen=True)
class Grade:
    """How far a pair of runs is controlled; `differing` names what differs besides the factor."""

    name: GradeName
    differing: tuple[str, ...] = ()


def grade(a: Record, b: Record, factor: str) -> Grade:
    """The grade of two runs that are to differ in `factor` alone.

    Args:
        a: A finished run.
        b: Another.
        factor: A column of the tidy table (`loss`, `criterion`), or a config key (`loss`, `recovery.epochs`).

    Returns:
        `same-units` if the configs differ in nothing else, the same weights entered pruning, the same units went at
        each prune stage and each recover stage saw the same batches (a stage that trained on nothing, with
        `loss=none`, saw none and is passed over); `same-rule` if only the units differ; else `not controlled`.
    """
    key = config_key(factor)
    mine, theirs = settings(a), settings(b)
    differing = [
        name
        for name in sorted(mine.keys() | theirs.keys())
        if not _under(name, key) and (name not in mine or name not in theirs or mine[name] != theirs[name])
    ]
    moved = MOVES.get(key.split(".")[0], ())
    if "model_in" not in moved and _entered(a) != _entered(b):
        differing.append("the model that entered pruning")
    batches = fingerprints(a, "recover", "batches"), fingerprints(b, "recover", "batches")
    if "batches" not in moved and all(batches) and batches[0] != batches[1]:
        differing.append("the recovery batches")
    if differing:
        return Grade("not controlled", tuple(differing))
    if fingerprints(a, "prune", "units") != fingerprints(b, "prune", "units"):
        return Grade("same-rule")
    return Grade("same-units")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One difference: the second condition subtracted from the first, on the same questions."""

    factor: str
    a: str
    b: str
    criterion: str
    sparsity: float
    """As requested."""
    removed: float | None
    """Share of units removed; None if the two sides differ in it."""
    units: str
    about: str
    """What else tells this comparison from the others; empty if nothing does."""
    grade: Grade
    questions: int
    seeds: int
    distinct: int
    """Number of pairs of different models; 1 if the seed changes nothing."""
    difference: float
    low: float
    high: float
    by_seed: tuple[float, ...]

    @property
    def verdict(self) -> str:
        """The sentence."""
        difference = f"{100 * self.difference:+.1f} points [{100 * self.low:.1f}, {100 * self.high:.1f}]"
        seeds = f"{self.seeds} seed{'s' * (self.seeds > 1)}"
        if self.distinct == 1 and self.seeds > 1:
            seeds += " that give the same run"
        on = f"{self.questions:,} questions x {seeds}"
        if self.grade.name == "not controlled":
            return (
                f"{self.a} minus {self.b}: not controlled {self.where} ({on}): {', '.join(self.grade.differing)} "
                f"differ too, so the difference of {difference} is not attributed to {self.factor}"
            )
        return f"{self.a} minus {self.b}: {difference} {self.where} ({on}, {self.grade.name.replace('-', ' ')})"

    @property
    def where(self) -> str:
        """At which sparsity, by which criterion, and what else tells this comparison from the others."""
        by = f"by {names.value('criterion', self.criterion)}" if self.criterion else ""
        if self.factor == "sparsity":
            return f"{self.units} removed {by}".strip() + self.about
        requested = "a requested " if self.removed is None else ""
        share = names.spaced(self.sparsity if self.removed is None else self.removed)
        return f"at {requested}{share} of {self.units} removed {by}".strip() + self.about


def compare(collection: Collection, factor: str, a: str, b: str) -> tuple[list[Comparison], list[str]]:
    """All differences between the runs with `factor` = `a` and those with `b`, paired by seed.

    A run is paired with the one that equals it in all but the factor. Where there is none, the two runs that are left
    alone at a criterion, sparsity and seed are still paired, and graded `not controlled`.

    Returns:
        The comparisons in order of criterion and sparsity, and a line for each run that found no partner.

    Raises:
        AnalysisError: The factor or a value is not in these runs, predictions are missing, or the two sides of a pair
            answered different questions.
    """
    key = config_key(factor)
    if key == "seed":
        raise AnalysisError("--factor seed: runs are paired by seed, so it cannot be what is compared.")
    if a == b:
        raise AnalysisError(f"--a {a} --b {b}: give two different values of {factor}.")
    first, second = (_side(collection, factor, value) for value in (a, b))
    pairs, alone = _pair(first, second, key)
    table = collection.conditions
    about = dict(zip(map(id, collection.runs), table.to_dict("records"), strict=True))
    columns = [
        column
        for column in (*FACETS, *LINES)
        if table[column].nunique() > 1 and column != "criterion" and not _under(config_key(column), key)
    ]
    groups: dict[tuple[str, float, str], list[tuple[Run, Run]]] = defaultdict(list)
    for mine, theirs in pairs:
        told = _about(about[id(mine)], about[id(theirs)], columns)
        criterion = "" if key == "pruner.criterion" else mine.choice("criterion")
        groups[criterion, mine.sparsity, told].append((mine, theirs))
    comparisons = [_measured(found, factor, a, b, *group) for group, found in groups.items()]
    return sorted(comparisons, key=lambda each: (each.criterion, each.about, each.sparsity)), alone


def config_key(factor: str) -> str:
    """The dotted config key of a column or key."""
    if factor == "train_size":
        return "task.train_size"
    return CHOICES.get(factor, factor).replace("/", ".")


def _under(name: str, key: str) -> bool:
    return name == key or name.startswith(f"{key}.")


def _entered(record: Record) -> str:
    """What entered pruning; where nothing was removed no weights were hashed, and the key of their making stands in."""
    for stage in record.stages:
        if stage.stage == "prune":
            if entered := stage.fingerprints.get("model_in"):
                return entered
            break
    return record.stages[0].key if record.stages else ""


def _value(run: Run, factor: str) -> str | None:
    if factor in CHOICES or factor in CHOICES.values():
        group = CHOICES.get(factor, factor)
        return run.record.choices.get(group)
    key = config_key(factor)
    return str(run.settings[key]) if key in run.settings else None


def _side(collection: Collection, factor: str, value: str) -> list[Run]:
    values = {_value(run, factor) for run in collection.runs} - {None}
    if not values:
        known = ", ".join([*CHOICES, "train_size", "sparsity"])
        raise AnalysisError(f"--factor {factor}: no run has it. Give one of {known}, or a dotted config key.")
    chosen = [run for run in collection.runs if _value(run, factor) == value]
    if not chosen:
        there = ", ".join(sorted(map(str, values)))
        raise AnalysisError(f"{factor}={value}: no finished run has it; there are {there}.")
    return chosen


def _rest(run: Run, key: str) -> tuple[tuple[str, str], ...]:
    """All settings but the factor's."""
    return tuple(sorted((name, repr(value)) for name, value in run.settings.items() if not _under(name, key)))


def _pair(first: Sequence[Run], second: Sequence[Run], key: str) -> tuple[list[tuple[Run, Run]], list[str]]:
    partners: dict[tuple[tuple[str, str], ...], list[Run]] = defaultdict(list)
    for run in second:
        partners[_rest(run, key)].append(run)
    pairs = [(run, partner) for run in first for partner in partners.get(_rest(run, key), ())]
    paired = {id(run) for pair in pairs for run in pair}
    cells: dict[tuple[Any, ...], tuple[list[Run], list[Run]]] = defaultdict(lambda: ([], []))
    for side, runs in enumerate((first, second)):
        for run in runs:
            if id(run) not in paired:
                cell = {"pruner.criterion": run.choice("criterion"), "sparsity": run.sparsity, "seed": run.seed}
                cells[tuple(value for name, value in cell.items() if name != key)][side].append(run)
    alone = []
    for mine, theirs in cells.values():
        if len(mine) == len(theirs) == 1:
            pairs.append((mine[0], theirs[0]))
        else:
            alone += [f"{run.folder}: no partner that equals it in all but {key}, left out" for run in (*mine, *theirs)]
    return pairs, alone


def _about(mine: Mapping[Hashable, Any], theirs: Mapping[Hashable, Any], columns: Sequence[str]) -> str:
    """What tells this comparison from others: the columns that vary, both sides of a pair that differs."""
    text = ""
    for column in columns:
        values = [names.value(column, line[column]) or "nothing" for line in (mine, theirs)]
        if values != ["nothing", "nothing"]:
            text += f", {names.COLUMNS.get(column, column)} {' against '.join(dict.fromkeys(values))}"
    return text.replace(", variant ", ", ")


def _measured(
    pairs: Sequence[tuple[Run, Run]], factor: str, a: str, b: str, criterion: str, sparsity: float, about: str
) -> Comparison:
    pairs = sorted(pairs, key=lambda pair: pair[0].seed)
    distinct = {(_work(mine), _work(theirs)): (mine, theirs) for mine, theirs in reversed(pairs)}
    columns = [_differences(mine, theirs) for mine, theirs in reversed(distinct.values())]
    if len({len(column) for column in columns}) > 1:
        raise AnalysisError(f"{pairs[0][0].folder.parent}: the seeds answered different questions; compare them alone.")
    differences = np.stack(columns, axis=1)
    low, high = paired_bootstrap(differences)
    grades = [grade(mine.record, theirs.record, factor) for mine, theirs in pairs]
    weakest = max(grades, key=lambda each: ORDER.index(each.name))
    differing = tuple(dict.fromkeys(name for each in grades for name in each.differing))
    removed = {round(_removed(run), 4) for pair in pairs for run in pair}
    structures = {run.choice("structure") for pair in pairs for run in pair}
    return Comparison(
        factor=factor,
        a=a,
        b=b,
        criterion=criterion,
        sparsity=sparsity,
        removed=removed.pop() if len(removed) == 1 else None,
        units=names.units(structures),
        about=about,
        grade=Grade(weakest.name, differing),
        questions=len(differences),
        seeds=len({mine.seed for mine, _ in pairs}),
        distinct=len(distinct),
        difference=float(differences.mean()),
        low=low,
        high=high,
        by_seed=tuple(float(value) for value in differences.mean(axis=0)),
    )


def _differences(mine: Run, theirs: Run) -> npt.NDArray[np.float64]:
    """(questions,) right minus right, questions in the order of their ids."""
    a, b = mine.predictions().sort_index(), theirs.predictions().sort_index()
    if not a.index.equals(b.index) or not (a["gold"] == b["gold"]).all():
        raise AnalysisError(
            f"{mine.folder} and {theirs.folder}: answered different questions, so there is nothing to pair. "
            "Compare runs of one task with one evaluation."
        )
    right = [(table["predicted"] == table["gold"]).to_numpy(dtype=float) for table in (a, b)]
    return right[0] - right[1]


def _work(run: Run) -> str:
    stage = run.last_evaluation
    return stage.key if stage else run.record.run_id


def _removed(run: Run) -> float:
    row = run.row(run.last_evaluation)
    return math.nan if row is None or row.block_sparsity is None else row.block_sparsity
