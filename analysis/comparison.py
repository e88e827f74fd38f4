"""Two conditions that differ in one factor: pairs of runs, the difference, and the verdict.

The verdict claims a difference if its p-value, adjusted by Holm for the family of comparisons that are made at once, is
below 0.05. Interval and p-value are `crossed.estimate`'s; McNemar's test for each seed and the paired bootstrap over
questions are views of the same pairs.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas

from analysis import names
from analysis.collect import CHOICES, AnalysisError, Collection, Run, under
from analysis.crossed import CROSSED_SEEDS, POWER, Estimate, MeanSquares, Needed, estimate, needed
from analysis.curves import FACETS, LINES, shown
from analysis.grades import ORDER, Grade, config_key, grade
from analysis.statistics import LEVEL, holm, mcnemar, odds_ratio, paired_bootstrap

WHOLE_UNITS = 0.005
"""What is removed may differ from what was requested by so much, since units are whole."""
SEE = 0.02
"""Difference that a study is asked to be able to see."""

REFERENCES = ("ce", "none")
"""Losses with which all others are compared without being asked: labels, and no recovery."""
SOFT_AND_HARD = ("kl", "pseudo_label")
"""The same teacher's answers, soft and hard."""

Pair = tuple[Run, Run]
Kind = Literal["better", "not told apart", "alike", "no spread", "one seed", "not controlled"]
"""What a verdict says; only the first two were tested."""


@dataclass(frozen=True, kw_only=True)
class OneSeed:
    """The pair of one seed."""

    seed: int
    difference: float
    p: float
    """McNemar's exact test, over the questions, of these two models."""
    odds: float
    """Questions that only the first answers rightly, against those that only the second does."""


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
    size: str
    """Recovery questions where comparisons differ in them, a number or `all`; else empty."""
    grade: Grade
    questions: int
    seeds: int
    distinct: int
    """Number of pairs of different models; 1 if the seed changes nothing."""
    difference: float
    estimate: Estimate | None
    """Interval and test; None where all differences are equal, so that nothing is known of their spread."""
    bootstrap: tuple[float, float]
    """Interval over the questions, by paired bootstrap, for these seeds."""
    odds: float
    """Effect size: answers that only the first gives rightly, against those that only the second does, all seeds."""
    by_seed: tuple[OneSeed, ...]
    squares: MeanSquares
    works: frozenset[tuple[str, str]]
    """What was measured; at sparsity 0 the same for all criteria."""
    family: tuple[int, str] = (1, "")
    """Number of comparisons that p is adjusted for, and what they are."""
    adjusted: float | None = None
    """p after Holm; None where there is no test."""

    @property
    def alone(self) -> bool:
        """Whether a single seed was run, which says nothing of others."""
        return self.seeds == 1

    @property
    def tested(self) -> bool:
        """Whether a claim could be made: more than one seed, one factor, some spread."""
        return self.estimate is not None and not self.alone and self.grade.name != "not controlled"

    @property
    def claimed(self) -> bool:
        return self.tested and self.adjusted is not None and self.adjusted < 1 - LEVEL

    @property
    def verdict(self) -> str:
        """The sentence: what was found, where, what it rests on, and a reservation."""
        on = f"{self.on}; {self.unclaimed}" if self.unclaimed else self.on
        return f"{self.claim} {self.where} ({on}){self.reservation}"

    @property
    def kind(self) -> Kind:
        """What the sentence says."""
        if self.grade.name == "not controlled":
            return "not controlled"
        if self.estimate is None:
            return "alike" if self.difference == 0 else "no spread"
        if self.alone:
            return "one seed"
        return "better" if self.claimed else "not told apart"

    @property
    def sides(self) -> tuple[str, str]:
        """What the two values are called."""
        return names.side(self.factor, self.a), names.side(self.factor, self.b)

    @property
    def signed(self) -> str:
        """The first minus the second, with the interval: `+1.4 points [-0.3, 3.1]`."""
        return f"{names.signed(100 * self.difference)} points {self.interval}"

    @property
    def interval(self) -> str:
        """In brackets, or that there is none."""
        if self.estimate is None:
            return "[no interval: no spread]"
        return f"[{_points(self.estimate.low)}, {_points(self.estimate.high)}]"

    @property
    def claim(self) -> str:
        """The part of the sentence before the place."""
        a, b = self.sides
        match self.kind:
            case "not controlled":
                return f"{a} minus {b}: not controlled"
            case "alike":
                return f"{a} and {b} answer every question alike"
            case "no spread":
                return f"{a} and {b} differ by {self.signed} on every question"
            case "one seed":
                return f"{a} minus {b}: {self.signed}"
            case "not told apart":
                return f"{a} and {b} are not told apart: {self.signed}"
        assert self.estimate is not None
        low, high = self.estimate.low, self.estimate.high
        if self.difference < 0:
            a, b, low, high = b, a, -high, -low
        return f"{a} is better than {b} by {100 * abs(self.difference):.1f} points [{_points(low)}, {_points(high)}]"

    @property
    def unclaimed(self) -> str:
        """Why nothing is claimed though only the factor differs; empty where that is no matter of seeds."""
        return "other seeds are not known, so nothing is claimed" if self.kind == "one seed" else ""

    @property
    def reservation(self) -> str:
        """What the sentence ends with where more than the factor differs; else empty."""
        if self.kind != "not controlled":
            return ""
        return (
            f": {', '.join(self.grade.differing)} differ too, so the difference of {self.signed} is not attributed to "
            f"{self.factor}"
        )

    @property
    def on(self) -> str:
        """What the sentence rests on."""
        seeds = f"{self.seeds} seed{'s' * (self.seeds > 1)}"
        if self.distinct == 1 and self.seeds > 1:
            seeds += " that give the same run"
        told = [f"{self.questions:,} questions x {seeds}"]
        if self.estimate and self.estimate.over != "questions and seeds":
            fixed = "questions" if self.estimate.over == "seeds" else "models"
            told.append(f"interval over {self.estimate.over}, for these {fixed}")
        if self.estimate and self.adjusted is not None:
            number, what = self.family
            by = "" if self.estimate.decided_by == self.estimate.over else f" over {self.estimate.decided_by}"
            told.append(names.p_value(self.adjusted) + by + (f" after Holm over {number} {what}" if number > 1 else ""))
        if self.grade.name != "not controlled":
            told.append(self.grade.name.replace("-", " "))
        if self.grade.steps:
            a, b = (
                f"{side} {names.span(steps)}"
                for side, steps in zip(self.sides, zip(*self.grade.steps, strict=True), strict=True)
            )
            told.append(f"one budget gave {a} and {b} steps of the same batches")
        told += [f"different {name}" for name in self.grade.surroundings]
        return ", ".join(told)

    @property
    def where(self) -> str:
        """At which sparsity, by which criterion, and what else tells this comparison from the others."""
        by = f"by {names.value('criterion', self.criterion)}" if self.criterion else ""
        by = by.replace("by random", "at random")
        if self.factor == "sparsity":
            return f"{self.units} removed {by}".strip() + self.besides
        share = names.spaced(self.sparsity)
        if self.removed is None:
            share = f"a requested {share}"
        elif abs(self.removed - self.sparsity) > WHOLE_UNITS:
            share = f"{names.spaced(self.removed)} ({share} requested)"
        return f"at {share} of {self.units} removed {by}".strip() + self.besides

    @property
    def besides(self) -> str:
        """What tells this comparison from the others, but sparsity and criterion; it begins with a comma."""
        return (f", {self.size} recovery questions" if self.size else "") + self.about

    def needed(self, difference: float = SEE) -> Needed | None:
        """The study that would see `difference`; None where too few seeds say how far seeds differ.

        It is asked to see it at the first step of Holm, so that the rest of the family does not matter. Fewer seeds
        than `CROSSED_SEEDS` tell too little of their own spread for a plan.
        """
        if not self.tested or 1 < self.squares.seeds < CROSSED_SEEDS:
            return None
        size = self.squares.questions, self.squares.seeds
        return needed(difference, self.squares.components, *size, alpha=(1 - LEVEL) / self.family[0])


def loss_pairs(present: set[str]) -> list[tuple[str, str]]:
    """Losses that are compared without being asked, of those that were run.

    Each loss with labels (`ce`), then soft with hard answers of the teacher, then each loss with no recovery; KL, the
    question of the paper, comes first.
    """
    labels, nothing = REFERENCES
    losses = sorted(present - {nothing, ""}, key=lambda loss: (loss != "kl", names.rank("loss", loss)))
    pairs = [
        *((loss, labels) for loss in losses if loss != labels),
        SOFT_AND_HARD,
        *((loss, nothing) for loss in losses),
    ]
    return [pair for pair in pairs if set(pair) <= present]


def compare(
    collection: Collection, factor: str, a: str, b: str, tuned: Sequence[str] = ()
) -> tuple[list[Comparison], list[str]]:
    """All differences between the runs with `factor` = `a` and those with `b`, paired by seed.

    A run is paired with the one that equals it in all but the factor. Where there is none, the two runs that are left
    alone at a criterion, sparsity and seed are still paired, and graded `not controlled`. All comparisons that could
    claim something are one family.

    Args:
        collection: The runs.
        factor: A column of the tidy table, or a config key.
        a: Its value in the runs that are counted positive.
        b: Its value in the runs that are subtracted.
        tuned: Config keys that each side has chosen for itself, in which the runs of a pair may differ.

    Returns:
        The comparisons in order of criterion and sparsity; and a line for each run that found no partner, and for each
        comparison that cannot be made because predictions are missing or the sides answered different questions.

    Raises:
        AnalysisError: The factor or a value is not in these runs, or no comparison can be made.
    """
    key = config_key(factor)
    if key in ("seed", "task.subset"):
        raise AnalysisError(f"--factor {factor}: runs are paired by it, so it cannot be what is compared.")
    if a == b:
        raise AnalysisError(f"--a {a} --b {b}: give two different values of {factor}.")
    first, second = (_side(collection, factor, value) for value in (a, b))
    pairs, alone = _pair(first, second, key, tuned)
    table = collection.conditions([name for name in tuned if any(name in run.settings for run in collection.runs)])
    about = dict(zip(map(id, collection.runs), table.to_dict("records"), strict=True))
    columns = [
        column
        for column in (*FACETS, *LINES)
        if shown(table, column) and column != "criterion" and not under(config_key(column), key)
    ]
    groups: dict[tuple[str, float, str, str, bool], list[tuple[Pair, Grade]]] = defaultdict(list)
    for mine, theirs in pairs:
        lines = about[id(mine)], about[id(theirs)]
        sized = "train_size" in columns and lines[0]["train_size"] == lines[1]["train_size"]
        told = _about(*lines, [column for column in columns if not (sized and column == "train_size")], key)
        criterion = "" if key == "pruner.criterion" else mine.choice("criterion")
        size = str(lines[0]["train_size"]) * sized
        graded = grade(mine.record, theirs.record, factor, tuned)
        group = criterion, mine.sparsity, size, told, graded.name != "not controlled"
        groups[group].append(((mine, theirs), graded))
    comparisons = []
    for (criterion, sparsity, size, told, _), found in groups.items():
        try:
            comparisons.append(_measured(found, factor, a, b, criterion, sparsity, size, told))
        except AnalysisError as error:
            alone.append(f"{factor} {a} and {b} at sparsity {sparsity:g}{told} are not compared: {error}")
    if groups and not comparisons:
        raise AnalysisError(alone[-1])
    comparisons.sort(key=lambda each: (each.criterion, each.about, each.sparsity, names.rank("", each.size)))
    return _adjusted(comparisons), alone


def differences(pairs: Sequence[Pair]) -> npt.NDArray[np.float64]:
    """(questions, pairs) right under the first minus right under the second, questions in the order of their ids.

    Raises:
        AnalysisError: Predictions are missing, or two runs answered different questions.
    """
    columns: list[npt.NDArray[np.float64]] = []
    index = pairs[0][0].right.index
    for mine, theirs in pairs:
        for run in (mine, theirs):
            if not run.right.index.equals(index):
                raise AnalysisError(
                    f"{pairs[0][0].folder} and {run.folder}: answered different questions, so there is nothing to "
                    "pair. Compare runs of one task with one evaluation, for instance with --where task=NAME."
                )
        columns.append(mine.right.to_numpy(dtype=float) - theirs.right.to_numpy(dtype=float))
    return np.stack(columns, axis=1)


def replicates(pairs: Sequence[Pair]) -> list[Pair]:
    """One pair for each pair of different models, in order of seeds: a seed that changes nothing is no replicate."""
    ordered = sorted(pairs, key=lambda pair: pair[0].seed)
    found: dict[tuple[str, str], Pair] = {}
    for pair in ordered:
        found.setdefault((pair[0].work, pair[1].work), pair)
    return list(found.values())


def as_table(comparisons: Sequence[Comparison]) -> pandas.DataFrame:
    """One line for each comparison, for csv."""
    return pandas.DataFrame(
        [
            {
                "factor": each.factor,
                "a": each.a,
                "b": each.b,
                "criterion": each.criterion,
                "sparsity": each.sparsity,
                "train_size": each.size,
                "about": each.about.removeprefix(", "),
                "difference": each.difference,
                "low": each.estimate.low if each.estimate else None,
                "high": each.estimate.high if each.estimate else None,
                "over": each.estimate.over if each.estimate else None,
                "p": each.estimate.p if each.estimate else None,
                "p_holm": each.adjusted,
                "family": each.family[0],
                "claimed": each.claimed,
                "grade": each.grade.name,
                "differing": " ".join(each.grade.differing),
                "odds_ratio": each.odds,
                "bootstrap_low": each.bootstrap[0],
                "bootstrap_high": each.bootstrap[1],
                "questions": each.questions,
                "seeds": each.seeds,
                "distinct": each.distinct,
            }
            for each in comparisons
        ]
    )


def told_views(each: Comparison) -> list[str]:
    """The paired bootstrap, the effect size, and McNemar's test of each seed, in words."""
    low, high = each.bootstrap
    seeds = ", ".join(
        f"seed {one.seed} {names.signed(100 * one.difference)} ({names.p_value(one.p)})" for one in each.by_seed
    )
    return [
        f"{each.where}: bootstrap [{_points(low)}, {_points(high)}], odds ratio of what one side alone answers rightly "
        f"{each.odds:.2f}",
        f"  McNemar: {seeds}",
    ]


def told_needed(each: Comparison, difference: float = SEE) -> str:
    """How large a study would see `difference`, in words; empty where that is not known."""
    found = each.needed(difference)
    if found is None:
        return ""
    questions = f"about {_rounded(found.questions):,} questions" if found.questions else "no number of questions"
    if each.squares.seeds == 1:
        return f"  {each.where}: {questions} (seeds change nothing)"
    seeds = f"about {_rounded(found.seeds)} seeds" if found.seeds else "no number of seeds"
    return f"  {each.where}: {seeds} of these questions, or {questions} with these seeds"


def _rounded(number: int) -> int:
    """To two digits, upwards: what is planned from is an estimate."""
    unit = 10 ** max(len(str(number)) - 2, 0)
    return -(-number // unit) * unit


def told_needed_title(family: int, difference: float = SEE) -> str:
    """What the lines of `told_needed` say."""
    level = f"{1 - LEVEL:.2g}" + (f"/{family}" if family > 1 else "")
    return f"to see {100 * difference:g} points with a probability of {POWER:g} (p < {level}):"


def _points(value: float) -> str:
    """In points."""
    return names.signed(100 * value).removeprefix("+")


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


def _rest(run: Run, but: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """All settings but those of these keys."""
    return tuple(
        sorted((name, repr(value)) for name, value in run.settings.items() if not any(under(name, key) for key in but))
    )


def _pair(first: Sequence[Run], second: Sequence[Run], key: str, tuned: Sequence[str]) -> tuple[list[Pair], list[str]]:
    partners: dict[tuple[tuple[str, str], ...], list[Run]] = defaultdict(list)
    but = (key, *tuned)
    for run in second:
        partners[_rest(run, but)].append(run)
    pairs = [(run, partner) for run in first for partner in partners.get(_rest(run, but), ())]
    paired = {id(run) for pair in pairs for run in pair}
    cells: dict[tuple[Any, ...], tuple[list[Run], list[Run]]] = defaultdict(lambda: ([], []))
    for side, runs in enumerate((first, second)):
        for run in runs:
            if id(run) not in paired:
                cell = {
                    "model": run.choice("model"),
                    "task": run.choice("task"),
                    "pruner.criterion": run.choice("criterion"),
                    "sparsity": run.sparsity,
                    "seed": run.seed,
                }
                cells[tuple(value for name, value in cell.items() if name != key)][side].append(run)
    alone = []
    for mine, theirs in cells.values():
        if len(mine) == len(theirs) == 1:
            pairs.append((mine[0], theirs[0]))
        else:
            alone += [f"{run.folder}: no partner that equals it in all but {key}, left out" for run in (*mine, *theirs)]
    return pairs, alone


def _about(mine: Mapping[Hashable, Any], theirs: Mapping[Hashable, Any], columns: Sequence[str], key: str) -> str:
    """What tells this comparison from others: the columns that vary, both sides of a pair that differs."""
    text = ""
    for column in columns:
        choices = [line[column] for line in (mine, theirs)]
        if column == "variant":
            # a setting of the factor is one side's own: the other has no such thing
            settings = [re.split(r" (?=[\w.]+=)", choice) for choice in choices]
            own = [each for side in settings for each in side if under(each.partition("=")[0], key)]
            choices = [" ".join(each for each in side if each not in own) for side in settings]
            text += "".join(f", {names.value(column, each)}" for each in own if each.partition("=")[0] != key)
        values = [names.value(column, choice) or "nothing" for choice in choices]
        if values != ["nothing", "nothing"]:
            text += f", {names.COLUMNS.get(column, column)} {' against '.join(dict.fromkeys(values))}"
    return text.replace(", variant ", ", ")


def _measured(
    graded: Sequence[tuple[Pair, Grade]],
    factor: str,
    a: str,
    b: str,
    criterion: str,
    sparsity: float,
    size: str,
    about: str,
) -> Comparison:
    pairs, grades = [pair for pair, _ in graded], [each for _, each in graded]
    distinct = replicates(pairs)
    table = differences(distinct)
    if len(table) < 2:
        raise AnalysisError(f"{pairs[0][0].folder}: answered one question; a comparison needs at least two.")
    weakest = max(grades, key=lambda each: ORDER.index(each.name))
    structures, budgets = ({run.choice(column) for pair in pairs for run in pair} for column in ("structure", "budget"))
    # of a budget the units that are gone are no share
    costs = bool(budgets - {"", "units"})
    removed = set() if costs else {round(_removed(run), 4) for pair in pairs for run in pair}
    return Comparison(
        factor=factor,
        a=a,
        b=b,
        criterion=criterion,
        sparsity=sparsity,
        removed=removed.pop() if len(removed) == 1 else None,
        units=names.units(structures, budgets),
        about=about,
        size=size,
        grade=Grade(
            weakest.name,
            tuple(dict.fromkeys(name for each in grades for name in each.differing)),
            tuple(dict.fromkeys(name for each in grades for name in each.surroundings)),
            tuple(steps for each in grades for steps in each.steps) if weakest.name != "not controlled" else (),
        ),
        questions=len(table),
        seeds=len({mine.seed for mine, _ in pairs}),
        distinct=len(distinct),
        difference=float(table.mean()),
        estimate=estimate(table),
        bootstrap=paired_bootstrap(table),
        odds=odds_ratio(table),
        by_seed=tuple(
            OneSeed(seed=mine.seed, difference=float(column.mean()), p=mcnemar(column), odds=odds_ratio(column))
            for (mine, _), column in zip(distinct, table.T, strict=True)
        ),
        squares=MeanSquares.of(table),
        works=frozenset((mine.work, theirs.work) for mine, theirs in distinct),
    )


def _adjusted(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same with p adjusted by Holm over all that are tested; what is the same measurement is one test."""
    tested = [each for each in comparisons if each.tested]
    tests = {each.works: each.estimate.p for each in tested if each.estimate}
    adjusted = dict(zip(tests, holm(list(tests.values())), strict=True))
    conditions = {(each.criterion, each.about) for each in tested}
    sparsities, sizes = {each.sparsity for each in tested}, {each.size for each in tested}
    what = "comparisons"
    if len(conditions) == 1 and len(sizes) == 1:
        what = "sparsities"
    elif len(conditions) == 1 and len(sparsities) == 1:
        what = "numbers of recovery questions"
    family = len(tests), what
    return [
        replace(each, family=family, adjusted=adjusted[each.works]) if each.tested else each for each in comparisons
    ]


def _removed(run: Run) -> float:
    row = run.row(run.last_evaluation)
    return math.nan if row is None or row.block_sparsity is None else row.block_sparsity
