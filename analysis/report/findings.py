"""What was asked and found, in words: the study's question, the verdict on it, and every comparison."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis import landmarks as marks
from analysis import names
from analysis.collect import AnalysisError, Collection
from analysis.comparison import LOSSES, Comparison, as_table, compare
from analysis.curves import main_axis, points
from analysis.tables import Table

CRITERIA = (("l2", "random"), ("l1", "random"), ("l2", "l1"))
"""Criteria that are compared without being asked, where all runs have one loss."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Two values of a factor, and all comparisons of them; they are one family."""

    factor: str
    a: str
    b: str
    comparisons: tuple[Comparison, ...]
    gaps: tuple[str, ...]
    """A line for each thing that is not compared."""

    @property
    def lines(self) -> list[str]:
        """The verdicts, and what is not compared."""
        return [*(each.verdict for each in self.comparisons), *self.gaps]

    @property
    def sides(self) -> tuple[str, str]:
        """What the two values are called."""
        return names.side(self.factor, self.a), names.side(self.factor, self.b)


def pairs(collection: Collection) -> list[Compared]:
    """Each pair of losses that were both run, in the order of `LOSSES`; where there is one loss, pairs of criteria."""
    factor = "loss" if collection.run_table["loss"].nunique() > 1 else "criterion"
    present = set(collection.run_table[factor])
    found = []
    for a, b in LOSSES if factor == "loss" else CRITERIA:
        if {a, b} <= present:
            try:
                comparisons, gaps = compare(collection, factor, a, b)
            except AnalysisError as error:
                comparisons, gaps = [], [str(error)]
            found.append(Compared(factor=factor, a=a, b=b, comparisons=tuple(comparisons), gaps=tuple(gaps)))
    return found


def study(collection: Collection, compared: Sequence[Compared]) -> dict[str, Any]:
    """The question, the answer, what the answer rests on, and the size of the study."""
    table = collection.run_table
    rows = [run.row(run.last_evaluation) for run in collection.runs]
    asked = [row.n for row in rows if row is not None and row.n]
    facts = [
        ["runs", f"{len(table):,}"],
        ["seeds", str(table["seed"].nunique())],
        *([["test questions", names.span(asked)]] if asked else []),
        ["model", ", ".join(sorted(set(table["model"])))],
        ["task", ", ".join(sorted(set(table["task"])))],
    ]
    return {
        "question": question(collection, compared[0] if compared else None),
        **_answer(compared[0] if compared else None),
        "facts": [[name, value] for name, value in facts if value],
    }


def question(collection: Collection, pair: Compared | None) -> str:
    """What the study asks, in a sentence built from what was varied."""
    table = collection.run_table
    removed = sorted(value for value in set(table["sparsity"]) if value > 0)
    models, tasks = (_joined(sorted(set(table[column]) - {""}), "and") for column in ("model", "task"))
    criteria = [f"by {names.value('criterion', each)}" for each in sorted(set(table["criterion"]) - {"", "random"})]
    if "random" in set(table["criterion"]):
        criteria.append("at random")
    if removed:
        share = names.spaced(removed[0])
        if len(removed) > 1:
            share = f"{share.removesuffix(' %')} to {names.spaced(removed[-1])}"
        begun = f"After removing {share} of {names.units(set(table['structure']))} of {models or 'the model'}"
        begun += f" {_joined(criteria, 'or')}" * bool(criteria)
    else:
        begun = f"With nothing removed from {models or 'the model'}"
    if main_axis(collection) == "recovery_questions":
        begun += f", with {names.span(table['recovery_questions'].dropna())} recovery questions"
    on = f" on {tasks}" * bool(tasks)
    losses = [names.value("loss", each) for each in sorted(set(table["loss"]) - {"none", ""})]
    if pair is None:
        means = f"how much accuracy does recovery by {_joined(losses, 'or')} leave" if losses else "what is left"
        return f"{begun}, {means}{on}?"
    a, b = pair.sides
    if pair.factor == "criterion":
        a, b = (each.replace("random", "random removal") for each in (a, b))
        return f"{begun}, does {a} keep more accuracy than {b}{on}?"
    if pair.b == "none":
        return f"{begun}, does {a} bring accuracy back{on}?"
    return f"{begun}, does {a} bring back more accuracy than {b}{on}?"


def _joined(words: Sequence[str], by: str) -> str:
    return f" {by} ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _answer(pair: Compared | None) -> dict[str, str]:
    """The strongest claim that is covered by the tests, or that there is none, with what it rests on."""
    if pair is None:
        return {"verdict": "Nothing is compared: these runs have one loss and one criterion.", "rests": "", "more": ""}
    if not pair.comparisons:
        a, b = pair.sides
        return {"verdict": f"{a} and {b} could not be compared; the reasons stand below.", "rests": "", "more": ""}
    different = list({each.works: each for each in pair.comparisons}.values())
    # where nothing is removed there is nothing to bring back: that comparison is a baseline, told apart
    pruned = [each for each in different if each.sparsity > 0] or different
    claimed = [each for each in pruned if each.claimed]
    if claimed:
        best = max(claimed, key=_least)
        verdict, rests = _split(best)
    else:
        best = max(pruned, key=lambda each: abs(each.difference))
        verdict, rests = _split(best)
        if not any(each.tested for each in pruned):
            verdict = f"Nothing is claimed. {verdict}"
        elif len(pruned) > 1:
            a, b = pair.sides
            verdict = (
                f"{a} and {b} are not told apart. The largest of {len(pruned):,} differences, {a} minus {b}, is "
                f"{verdict.rpartition(': ')[2]}"
            )
    more = [_counted(pair, pruned)] if claimed and len(pruned) > 1 else []
    for each in different:
        if each not in pruned:
            more.append(f"Where nothing is removed, {_split(each)[0].replace(f' {each.where}', '')}.")
    return {"verdict": f"{verdict}.", "rests": rests, "more": " ".join(dict.fromkeys(more))}


def _least(each: Comparison) -> float:
    """The end of the interval that is nearer to no difference: what is claimed at the least."""
    return min(abs(each.estimate.low), abs(each.estimate.high)) if each.estimate else 0.0


def _split(each: Comparison) -> tuple[str, str]:
    """The sentence, and what stands behind it in brackets."""
    sentence, _, rests = each.verdict.partition(f" ({each.questions:,} questions x ")
    return sentence, f"{each.questions:,} questions x {rests}".replace(")", "", 1) if rests else ""


def _counted(pair: Compared, comparisons: Sequence[Comparison]) -> str:
    """How many of the comparisons say what."""
    a, b = pair.sides
    claimed = [each for each in comparisons if each.claimed]
    counts = {
        f"{a} is better in": sum(each.difference > 0 for each in claimed),
        f"{b} is better in": sum(each.difference < 0 for each in claimed),
        "they are not told apart in": sum(each.tested and not each.claimed for each in comparisons),
        "nothing can be claimed in": sum(not each.tested for each in comparisons),
    }
    told = ", ".join(f"{what} {count:,}" for what, count in counts.items() if count)
    return f"Of {len(comparisons):,} comparisons: {told}."


def plain(pair: Compared) -> dict[str, Any]:
    """A pair with its comparisons, for the page."""
    a, b = pair.sides
    numbers = as_table(pair.comparisons).to_dict("records") if pair.comparisons else []
    return {
        "a": a,
        "b": b,
        "units": f"{pair.comparisons[0].units} removed" if pair.comparisons else "",
        "family": max((each.family[0] for each in pair.comparisons), default=0),
        "summary": _counted(pair, pair.comparisons) if pair.comparisons else "",
        "rows": [
            _row(each, number, a if each.difference > 0 else b)
            for each, number in zip(pair.comparisons, numbers, strict=True)
        ],
        "gaps": list(pair.gaps),
    }


def _row(each: Comparison, number: Mapping[Hashable, Any], better: str) -> dict[str, Any]:
    if each.claimed:
        said = f"{better} is better"
    elif each.grade.name == "not controlled":
        said = "not controlled"
    elif each.alone:
        said = "one seed"
    else:
        said = "not told apart"
    return {
        "where": each.where.removeprefix("at ").replace(f" of {each.units} removed", ""),
        "difference": number["difference"],
        "low": number["low"],
        "high": number["high"],
        "over": number["over"] or "",
        "p": names.p_value(each.adjusted).removeprefix("p ").removeprefix("= ") if each.adjusted is not None else "",
        "seeds": each.seeds,
        "claimed": each.claimed,
        "better": names.value(each.factor, each.a if each.difference > 0 else each.b) if each.claimed else "",
        "said": said,
        "grade": each.grade.name,
        "verdict": each.verdict,
    }


def table(found: Table) -> dict[str, Any]:
    """The table of accuracies, cell by cell."""
    return {
        "title": found.title,
        "header": list(found.header),
        "body": [[[cell.text, cell.best] for cell in line] for line in found.body],
        "left": found.left,
        "rules": sorted(found.rules),
        "notes": list(found.notes),
    }


def landmarks(collection: Collection) -> list[str]:
    """Area under each curve, the sparsity that keeps most accuracy, and the cliff; empty if there is no curve."""
    try:
        return marks.told(points(collection, x="target"))
    except AnalysisError:
        return []
