"""What was asked and found, in words: the study's question, the verdict on it, and every comparison."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis import landmarks as marks
from analysis import names, tuning
from analysis.collect import AnalysisError, Collection
from analysis.comparison import Comparison, compare, loss_pairs
from analysis.curves import conditions, differ, main_axis, points, select, summarise
from analysis.metrics import ACCURACY
from analysis.tables import BOLD, Table

CONTROL = "random"
"""The criterion that others are compared with where something was removed; where it was not run, the first by name."""
RANGES = 4
"""Lines whose ranges are told where nothing is compared; of more, the whole range."""
COUNTED = {
    "not told apart": "they are not told apart in",
    "alike": "they answer every question alike in",
}
"""Kind of a verdict that is no claim -> how it is counted."""
UNADJUSTED = "Intervals are not adjusted for the number of comparisons; the verdict follows p."


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
    """Each pair of losses in the order of `loss_pairs`, and each criterion against `CONTROL`.

    The factor with more values comes first, so that a study of criteria begins with them; losses do where both KL and
    CE were run, or where there are as many.
    """
    table = collection.run_table
    present = {factor: set(table[factor]) - {""} for factor in ("loss", "criterion")}
    criteria = sorted(present["criterion"]) if table["sparsity"].max() > 0 else []
    control = CONTROL if CONTROL in criteria else next(iter(criteria), "")
    against = tuple((criterion, control) for criterion in criteria if criterion != control)
    known = {"loss": tuple(loss_pairs(present["loss"])), "criterion": against}
    factors = list(known)
    if not {"kl", "ce"} <= present["loss"]:
        factors.sort(key=lambda factor: -len(present[factor]))
    found = []
    for factor in factors:
        for a, b in known[factor]:
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
        *([["only runs with", collection.filtered[0]]] if collection.filtered else []),
    ]
    return {
        "question": question(collection, compared[0] if compared else None),
        **_answer(collection, compared[0] if compared else None),
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
        units = names.units(set(table["structure"]), set(table["budget"]))
        begun = f"After removing {share} of {units} of {models or 'the model'}"
        begun += f" {_joined(criteria, 'or')}" * bool(criteria)
    else:
        begun = f"With nothing removed from {models or 'the model'}"
    if main_axis(collection) == "recovery_questions":
        begun += f", with {names.span(table['recovery_questions'].dropna())} recovery questions"
    on = f" on {tasks}" * bool(tasks)
    losses = [names.value("loss", each) for each in sorted(set(table["loss"]) - {"none", ""})]
    if pair is None:
        means = f"how much accuracy does recovery by {_joined(losses, 'or')} leave" if losses else "what is left"
        if table["teacher_parameters"].nunique() > 1:
            means += f" with teachers of {names.span(table['teacher_parameters'].dropna())} parameters"
        return f"{begun}, {means}{on}?"
    a, b = pair.sides
    if pair.factor == "criterion":
        a, b = (each.replace("random", "random removal") for each in (a, b))
        return f"{begun}, does {a} keep more accuracy than {b}{on}?"
    if not removed:
        return f"{begun}, does {a} keep more accuracy than {b}{on}?"
    if pair.b == "none":
        return f"{begun}, does {a} bring accuracy back{on}?"
    return f"{begun}, does {a} bring back more accuracy than {b}{on}?"


def _joined(words: Sequence[str], by: str) -> str:
    return f" {by} ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _answer(collection: Collection, pair: Compared | None) -> dict[str, str]:
    """The largest difference that is claimed, or that there is none, with what it rests on."""
    if pair is None or not pair.comparisons:
        return _without_comparison(collection, pair)
    a, b = pair.sides
    different = _different(pair)
    # where nothing is removed there is nothing to bring back: that comparison is a baseline, told apart
    pruned = [each for each in different if each.sparsity > 0] or different
    tested, claimed = ([each for each in pruned if getattr(each, kind)] for kind in ("tested", "claimed"))
    best = max(claimed or tested or pruned, key=lambda each: abs(each.difference))
    if claimed:
        verdict = _sentence(best)
        if len(claimed) > 1:
            verdict = f"Largest of {len(claimed):,} claimed differences: {verdict}"
    elif not tested:
        largest = f"The largest of {len(pruned):,} differences is " * (len(pruned) > 1 and best.kind == "one seed")
        verdict = f"Nothing is claimed. {largest}{_sentence(best)}"
    elif len(tested) > 1:
        verdict = (
            f"{a} and {b} are not told apart. The largest of {len(tested):,} differences, {a} minus {b}, is "
            f"{best.signed}{_place(best)}"
        )
    else:
        verdict = _sentence(best)
    more = [_counted(pair, pruned)] if len(pruned) > 1 and (claimed or len(tested) not in (0, len(pruned))) else []
    more += [
        f"Where nothing is removed, {_sentence(each)}."
        for each in different
        if each.sparsity == 0 and each not in pruned
    ]
    if best.adjusted is not None and best.family[0] > 1:
        more.append(UNADJUSTED)
    rests = f"{best.on}; {best.unclaimed}" if best.unclaimed else best.on
    return {
        "verdict": names.typeset(f"{verdict}."),
        "rests": names.typeset(rests),
        "more": names.typeset(" ".join(dict.fromkeys(more))),
    }


def _without_comparison(collection: Collection, pair: Compared | None) -> dict[str, str]:
    """Why there is no comparison, and what was measured all the same."""
    told = f"Accuracy {', and '.join(_ranges(collection))}"
    if pair is None:
        return {"verdict": f"{told}.", "rests": "no difference is tested", "more": ""}
    a, b = pair.sides
    verdict = f"{a} and {b} could not be compared."
    if pair.gaps:
        folders = [f"{run.folder}: " for run in collection.runs]
        reasons = Counter(
            gap.removeprefix(next((folder for folder in folders if gap.startswith(folder)), "")) for gap in pair.gaps
        )
        reason, number = reasons.most_common(1)[0]
        of = f", given for {number:,} runs" * (number > 1)
        verdict += f" The {'commonest ' * (len(reasons) > 1)}reason{of}: {reason.rstrip('.')}."
    return {"verdict": verdict, "rests": "", "more": f"{told}."}


def _ranges(collection: Collection) -> Iterator[str]:
    """The lowest and the highest mean with their intervals: of each line, or of all where there are many lines."""
    sizes = differ(collection.run_table.dropna(subset="teacher_parameters"), "teacher_parameters")
    found = points(collection, x="teacher_parameters" if sizes else main_axis(collection))
    summary, columns, swept = summarise(found), [*found.facets, *found.lines], found.axis.swept
    told = [column for column in columns if differ(summary, column) and column != "variant"]
    lines = conditions(summary, told)
    for line in lines if len(lines) <= RANGES else [()]:
        chosen = select(summary, told, line) if line else summary
        ordered = chosen.sort_values("mean", kind="stable").to_dict("records")
        of = f" for {names.title(told, line)}" if line else ""
        also = [] if line else told
        places = [
            ", ".join(
                [
                    f"{names.COLUMNS.get(swept, swept)} {names.point(swept, row[swept])}",
                    *filter(None, [names.title(also, [row[column] for column in also])]),
                ]
            )
            for row in ordered
        ]
        if len(ordered) == 1:
            yield f"is {_mean(ordered[0])}{of}"
        else:
            low, high = (f"{_mean(ordered[end])} ({places[end]})" for end in (0, -1))
            yield f"lies between {low} and {high}{of}"


def _mean(row: Mapping[Hashable, Any]) -> str:
    """A mean with its interval."""
    if row["over"] == "nothing":
        return f"{ACCURACY.number(row['mean'])} %"
    low, high = ACCURACY.number(row["low"]), ACCURACY.number(row["high"])
    return f"{ACCURACY.number(row['mean'])} % [{low}, {high} over {row['over']}]"


def _different(pair: Compared) -> list[Comparison]:
    """The comparisons, each measurement once: where nothing is removed all criteria come to the same models."""
    return list({each.works: each for each in reversed(pair.comparisons)}.values())[::-1]


def _sentence(each: Comparison) -> str:
    """The verdict without what it rests on."""
    return f"{each.claim}{_place(each)}{each.reservation}"


def _place(each: Comparison) -> str:
    """Where; of what removes nothing it is not told by which criterion nor how much."""
    return f" {each.where}" if each.sparsity > 0 or each.factor == "sparsity" else each.besides


def _counted(pair: Compared, comparisons: Sequence[Comparison]) -> str:
    """How many of the comparisons say what."""
    a, b = pair.sides
    kinds = Counter(
        (a if each.difference > 0 else b) if each.claimed else each.kind if each.kind in COUNTED else ""
        for each in comparisons
    )
    counts = {
        f"{a} is better in": kinds[a],
        f"{b} is better in": kinds[b],
        **{said: kinds[kind] for kind, said in COUNTED.items()},
        "nothing can be claimed in": kinds[""],
    }
    told = ", ".join(f"{what} {count:,}" for what, count in counts.items() if count)
    return f"Of {len(comparisons):,} comparison{'s' * (len(comparisons) > 1)}: {told}."


def plain(pair: Compared) -> dict[str, Any]:
    """A pair with its comparisons, for the page."""
    a, b = pair.sides
    tested = [each for each in pair.comparisons if each.adjusted is not None]
    family = max((each.family[0] for each in tested), default=0)
    told = []
    if pair.comparisons:
        told.append(_counted(pair, _different(pair)))
    if overs := list(dict.fromkeys(each.estimate.over for each in pair.comparisons if each.estimate)):
        told.append(f"Intervals over {' or '.join(overs)}.")
    if family > 1:
        told += [f"p is adjusted by Holm over {family:,} comparisons.", UNADJUSTED]
    if any(not each.tested for each in pair.comparisons):
        told.append("Where the sides answer alike, differ by the same everywhere or have one seed, nothing is claimed.")
    firsts: dict[frozenset[tuple[str, str]], Comparison] = {}
    return {
        "a": a,
        "b": b,
        "units": f"{pair.comparisons[0].units} removed" if pair.comparisons else "",
        "finding": told[0] if pair.comparisons else "",
        "summary": " ".join(told),
        "rows": [_row(each, firsts.setdefault(each.works, each)) for each in pair.comparisons],
        "gaps": list(pair.gaps),
    }


def _row(each: Comparison, first: Comparison) -> dict[str, Any]:
    """A comparison; `first` is the first one of the same measurement."""
    a, b = each.sides
    better = a if each.difference > 0 else b
    notes = [f"different {name}" for name in each.grade.surroundings]
    if first is not each:
        notes.append(f"the same measurement as {_short(first)}, counted once")
    return {
        "where": _short(each),
        "difference": each.difference,
        "low": each.estimate.low if each.estimate else None,
        "high": each.estimate.high if each.estimate else None,
        "p": names.p_value(each.adjusted).removeprefix("p ").removeprefix("= ") if each.adjusted is not None else "",
        "seeds": each.seeds,
        "claimed": each.claimed,
        "better": names.value(each.factor, each.a if each.difference > 0 else each.b) if each.claimed else "",
        "said": f"{better} is better" if each.claimed else each.kind,
        "notes": notes,
        "grade": each.grade.name,
        "verdict": names.typeset(each.verdict),
    }


def _short(each: Comparison) -> str:
    """Where, under a heading that says what is removed."""
    return each.where.removeprefix("at ").replace(f" of {each.units} removed", "", 1)


def table(found: Table) -> dict[str, Any]:
    """The table of accuracies, cell by cell."""
    return {
        "title": found.title,
        "header": list(found.header),
        "body": [[[names.typeset(cell.text), cell.best] for cell in line] for line in found.body],
        "left": found.left,
        "rules": sorted(found.rules),
        # what bold says is of no use where nothing is bold
        "notes": [
            note for note in found.notes if note != BOLD or any(cell.best for line in found.body for cell in line)
        ],
    }


def tuned(collection: Collection) -> dict[str, Any] | None:
    """Each loss at its best learning rate; None where no rate was varied or no selection question was asked."""
    try:
        found = tuning.tune(collection)
    except AnalysisError:
        return None
    told = table(tuning.table(found))
    lines = [*told["notes"], *(names.typeset(line) for line in found.verdicts)]
    return {"table": told | {"notes": []}, "lines": lines}


def landmarks(collection: Collection) -> list[str]:
    """Area under each curve, the sparsity that keeps most accuracy, and the cliff; empty if there is no curve."""
    try:
        return [names.typeset(line) for line in marks.told(points(collection, x="target"))]
    except AnalysisError:
        return []
