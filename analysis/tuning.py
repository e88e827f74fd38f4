"""Each arm at the learning rate that suits it: chosen on the selection questions, told on the test questions.

An arm is all runs that differ in learning rate and seed alone: a loss, after one way of pruning, at one sparsity. Its
rate is chosen for all seeds together, in two ways:

* with labels: the highest mean accuracy on the selection questions;
* without, for losses that read none: the lowest mean KL from the dense model there, over the choices (`dense_kl`).

Among equals the lower rate is taken. The best of each arm are then compared on the test questions, none of which chose
anything, as `comparison` compares all runs: paired by question and seed.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas

from analysis import comparison, names
from analysis.collect import AnalysisError, Collection, Run
from analysis.comparison import Comparison, compare, differences, loss_pairs, replicates
from analysis.crossed import Estimate, estimate
from analysis.curves import FACETS, LINES, RATE, conditions, differ, measured, select
from analysis.metrics import ACCURACY, KNOWN, Metric
from analysis.statistics import t_interval
from analysis.tables import Cell, Table

SELECTION = "selection"
KL = KNOWN["dense_kl"]
ARM = (*FACETS, "sparsity", *LINES)
"""Columns that make an arm."""
FEW = 4
"""Losses up to which every pair is compared."""
WITH, WITHOUT = "with labels", "without labels"
"""How rates were chosen."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A learning rate that was chosen for an arm."""

    rate: float
    by: Metric
    """On the selection questions."""
    score: float
    """Mean over seeds of what chose it."""
    runs: tuple[Run, ...]
    """At this rate, in order of seeds."""

    @property
    def accuracies(self) -> list[float]:
        """On the test questions, of each different model."""
        by_model = {run.work: measured(run, run.last_evaluation, ACCURACY) for run in self.runs}
        return [value for value in by_model.values() if value is not None]

    @property
    def told(self) -> str:
        """The mean accuracy on the test questions with half the width of its interval over seeds, where they differ."""
        values = self.accuracies
        text = ACCURACY.number(float(np.mean(values)))
        if len(set(values)) < 2:
            return text
        low, high = t_interval(values)
        return f"{text} ± {ACCURACY.number((high - low) / 2)}"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What one loss can do after one way of pruning."""

    condition: Mapping[str, Any]
    """Column of `ARM` -> value."""
    name: str
    """The loss, and in what else arms differ."""
    rates: tuple[float, ...]
    """Those that could be chosen, from low to high."""
    left_out: tuple[float, ...]
    """Those that lack a seed."""
    labelled: Choice
    label_free: Choice | None
    """None where the loss reads labels anyway."""

    @property
    def choices(self) -> dict[str, Choice]:
        """How -> choice."""
        return {WITH: self.labelled} | ({} if self.label_free is None else {WITHOUT: self.label_free})

    @property
    def without_more_labels(self) -> Choice:
        """The choice that asks for no label that the loss does not read."""
        return self.label_free or self.labelled

    def difference(self) -> tuple[float, Estimate | None]:
        """Test accuracy at the rate chosen without labels, minus that at the one chosen with; and its interval."""
        assert self.label_free is not None
        if self.label_free.rate == self.labelled.rate:
            return 0.0, None
        table = differences(replicates(list(zip(self.label_free.runs, self.labelled.runs, strict=True))))
        return float(table.mean()), estimate(table)

    @property
    def warnings(self) -> list[str]:
        """That a better rate may lie beyond the grid."""
        found = []
        for how, choice in self.choices.items():
            for end, rate in (("lowest", self.rates[0]), ("highest", self.rates[-1])):
                if choice.rate == rate:
                    found.append(
                        f"{self.name}: {rate:g}, chosen {how}, is the {end} of {len(self.rates)} learning rates; a "
                        f"better one may lie beyond. {self._beyond(rate, end == 'highest')}"
                    )
        return found

    def _beyond(self, rate: float, higher: bool) -> str:
        """What to run where `rate` is the end of the grid."""
        left_out = sorted((each for each in self.left_out if (each > rate) == higher), reverse=not higher)
        if left_out:
            between = math.sqrt(rate * left_out[0])
            return f"{left_out[0]:g} was left out: run its missing seeds, or {RATE}={between:.1g}."
        return f"Widen the grid: {RATE}=...,{rate * 3 if higher else rate / 3:.1g}."


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """All arms of some sweeps, and best against best."""

    arms: tuple[Arm, ...]
    compared: Mapping[str, tuple[Comparison, ...]]
    """How rates were chosen -> losses compared, each pair a family of its own for Holm."""
    gaps: tuple[str, ...]
    """A line for each thing that is left out."""
    questions: tuple[int, int]
    """Selection and test questions."""

    @property
    def verdicts(self) -> list[str]:
        """Of best against best, and what is left out."""
        lines: list[str] = []
        for how, comparisons in self.compared.items():
            if comparisons:
                lines.append(f"Best against best on the test questions, {_explained(how)}:")
                lines += [f"  {each.verdict}" for each in comparisons]
        return [*lines, *self.gaps]


def tune(collection: Collection) -> Tuned:
    """Choose a learning rate for each arm, both ways, and compare losses at their best.

    Raises:
        AnalysisError: No arm was run at several learning rates and asked selection questions, or selection and test
            questions have some in common.
    """
    table = collection.conditions([RATE]) if any(RATE in run.settings for run in collection.runs) else None
    arms: list[Arm] = []
    gaps: list[str] = []
    if table is not None:
        trained = table[table["loss"] != "none"]
        differing = [column for column in ARM if column != "loss" and differ(trained, column)]
        for condition in conditions(table, ARM):
            named = dict(zip(ARM, condition, strict=True))
            chosen = select(table, ARM, condition)
            if named["loss"] != "none" and chosen[RATE].nunique() > 1:
                name = names.label(["loss", *differing], [named[column] for column in ("loss", *differing)])
                arm, left_out = _arm(named, name, [collection.runs[position] for position in chosen.index])
                arms += [arm] if arm else []
                gaps += left_out
    if not arms:
        raise AnalysisError(
            "\n".join(
                [
                    *gaps,
                    "no loss was run at several learning rates with selection questions, so there is no "
                    "rate to choose. Run experiment=lr_per_arm, or a sweep over recovery.learning_rate with "
                    "evaluation.splits=[selection,test] and task.selection_size=240.",
                ]
            )
        )
    questions = _asked(arms)
    pairs = _pairs(arms, gaps)
    compared = {}
    for how in (WITH, WITHOUT):
        runs = tuple(run for arm in arms for run in (arm.labelled if how == WITH else arm.without_more_labels).runs)
        free = {arm.condition["loss"] for arm in arms if arm.label_free}
        compared[how] = _best_against_best(replace(collection, runs=runs), pairs, how, free, gaps)
    return Tuned(arms=tuple(arms), compared=compared, gaps=tuple(dict.fromkeys(gaps)), questions=questions)


def table(found: Tuned) -> Table:
    """One line for each arm: both choices, what chose them, and the accuracy on the test questions."""
    about = pandas.DataFrame([arm.condition for arm in found.arms])
    columns = [column for column in ARM if column in ("criterion", "sparsity", "loss") or differ(about, column)]
    seeds = [len(choice.runs) for arm in found.arms for choice in arm.choices.values()]
    body = []
    for arm in found.arms:
        texts = [names.value(column, arm.condition[column]) for column in columns]
        texts += [f"{arm.labelled.rate:g}", ACCURACY.number(arm.labelled.score), arm.labelled.told]
        if arm.label_free is None:
            texts += [""] * 4
        else:
            texts += [f"{arm.label_free.rate:g}", KL.number(arm.label_free.score), arm.label_free.told]
            texts.append(_told_difference(arm))
        body.append(tuple(map(Cell, texts)))
    selection, test = found.questions
    return Table(
        title="Test accuracy (%) at the learning rate that was chosen on the selection questions, with and without "
        "labels",
        header=(
            *(names.COLUMNS.get(column, column) for column in columns),
            "rate by accuracy",
            "accuracy there (%)",
            "test accuracy (%)",
            "rate by KL",
            "KL there (nats)",
            "test accuracy (%)",
            "difference (points)",
        ),
        body=tuple(body),
        left=len(columns),
        notes=(
            f"Rates are chosen for all {names.span(seeds)} seeds together on {selection:,} selection questions; none "
            f"of them is among the {test:,} test questions, nor among the recovery questions.",
            "By accuracy: with labels. By KL: without, by the KL from the dense model over the choices; blank where "
            "the loss reads labels anyway.",
            "±: interval of the mean over seeds (t quantiles). Difference: the choice without labels minus that with, "
            "on the same questions and seeds.",
            *(warning for arm in found.arms for warning in arm.warnings),
        ),
    )


def as_table(found: Tuned) -> pandas.DataFrame:
    """One line for each choice, for csv."""
    lines = []
    for arm in found.arms:
        for how, choice in arm.choices.items():
            values = choice.accuracies
            low, high = t_interval(values) if len(set(values)) > 1 else (math.nan, math.nan)
            lines.append(
                {
                    **arm.condition,
                    "chosen": how,
                    "learning_rate": choice.rate,
                    "lowest_rate": arm.rates[0],
                    "highest_rate": arm.rates[-1],
                    f"selection_{ACCURACY.name if how == WITH else KL.name}": choice.score,
                    "accuracy": float(np.mean(values)),
                    "low": low,
                    "high": high,
                    "seeds": len(choice.runs),
                }
            )
    return pandas.DataFrame(lines)


def compared_table(found: Tuned) -> pandas.DataFrame:
    """One line for each comparison of two losses at their best, for csv."""
    lines = [
        {"chosen": how} | line
        for how, comparisons in found.compared.items()
        for line in comparison.as_table(comparisons).to_dict("records")
    ]
    return pandas.DataFrame(lines)


def _arm(condition: dict[str, Any], name: str, runs: Sequence[Run]) -> tuple[Arm | None, list[str]]:
    """The arm of these runs; None, with the reason, where nothing can be chosen."""
    by_rate: dict[float, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        by_rate.setdefault(float(run.settings[RATE]), []).append(run)
    rates = sorted(by_rate)
    seeds = {run.seed for run in runs}
    gaps = []
    for rate in rates:
        if missing := seeds - {run.seed for run in by_rate[rate]}:
            told = ", ".join(map(str, sorted(missing)))
            gaps.append(f"{by_rate[rate][0].folder}: learning rate {rate:g} lacks seed {told}, left out")
            del by_rate[rate]
    labelled = _chosen(by_rate, ACCURACY)
    if labelled is None:
        return None, [*gaps, f"{runs[0].folder}: was asked no selection questions, left out"]
    label_free = _chosen(by_rate, KL) if all(run.label_free for run in runs) else None
    usable = tuple(sorted(by_rate))
    left_out = tuple(rate for rate in rates if rate not in by_rate)
    arm = Arm(condition=condition, name=name, rates=usable, left_out=left_out, labelled=labelled, label_free=label_free)
    return arm, gaps


def _chosen(by_rate: Mapping[float, Sequence[Run]], metric: Metric) -> Choice | None:
    """The rate whose mean over seeds is best on the selection questions; None where some run was not asked them."""
    found = []
    for rate, runs in by_rate.items():
        values = [measured(run, run.last_evaluation, metric, SELECTION) for run in runs]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return None
        score = math.fsum(known) / len(known)
        found.append(Choice(rate=rate, by=metric, score=score, runs=tuple(runs)))
    sign = -1 if metric.higher else 1
    return min(found, key=lambda choice: (round(sign * choice.score, 12), choice.rate), default=None)


def _asked(arms: Sequence[Arm]) -> tuple[int, int]:
    """The numbers of selection and of test questions, which must have none in common."""
    firsts = {arm.condition["task"]: arm.labelled.runs[0] for arm in arms}
    sizes = []
    for run in firsts.values():
        asked = [run.predictions(split).index for split in (SELECTION, "test")]
        if len(both := asked[0].intersection(asked[1])):
            raise AnalysisError(
                f"{run.folder}: {len(both)} selection questions are test questions too, so what chooses would be what "
                "is reported. Give the task a selection split of its own (task.selection_size)."
            )
        sizes.append((len(asked[0]), len(asked[1])))
    return sizes[0]


def _pairs(arms: Sequence[Arm], gaps: list[str]) -> list[tuple[str, str]]:
    """The losses that are compared: all pairs of few; of many those of `loss_pairs`, and the best with each other one.

    The best is the one with the highest accuracy on the selection questions, mean over its arms.
    """
    scores: dict[str, list[float]] = {}
    for arm in arms:
        scores.setdefault(arm.condition["loss"], []).append(arm.labelled.score)
    losses = sorted(scores, key=lambda loss: (loss == "ce", loss != "kl", names.rank("loss", loss)))
    best = max(losses, key=lambda loss: float(np.mean(scores[loss])))
    asked = loss_pairs(set(losses))
    told = {frozenset(pair) for pair in asked}
    others = [pair for pair in combinations(losses, 2) if frozenset(pair) not in told]
    chosen = [pair for pair in others if len(losses) <= FEW or best in pair]
    if left := len(others) - len(chosen):
        gaps.append(
            f"{left} pairs of the {len(losses)} losses are not compared: of more than {FEW} only those that have CE, "
            f"or the best on the selection questions, {names.value('loss', best)}. Choose others with --where "
            "loss=A,B."
        )
    return [*asked, *chosen]


def _best_against_best(
    chosen: Collection, pairs: Sequence[tuple[str, str]], how: str, label_free: set[Hashable], gaps: list[str]
) -> tuple[Comparison, ...]:
    """The pairs at the rates that were chosen; without labels those in which that can differ."""
    found: list[Comparison] = []
    for a, b in pairs:
        if how == WITHOUT and not {a, b} & label_free:
            continue
        try:
            comparisons, alone = compare(chosen, "loss", a, b, tuned=(RATE,))
        except AnalysisError as error:
            gaps.append(f"{a} and {b} are not compared: {error}")
            continue
        found += comparisons
        gaps += alone
    return tuple(found)


def _explained(how: str) -> str:
    return f"rates chosen {how}" + ", those of losses that read labels with them" * (how == WITHOUT)


def _told_difference(arm: Arm) -> str:
    mean, interval = arm.difference()
    assert arm.label_free is not None
    if arm.label_free.rate == arm.labelled.rate:
        return "same rate"
    text = names.signed(100 * mean)
    if interval is None:
        return text
    return f"{text} [{names.signed(100 * interval.low)}, {names.signed(100 * interval.high)}]"
