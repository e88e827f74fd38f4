"""What each run answered to each test question, small enough for a page: one letter an answer."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas

from analysis.collect import AnalysisError, Collection, Run
from analysis.curves import FACETS, LINES
from analysis.report.accounts import few
from regraft.records import StageRecord, questions_file

FIRST = ord("0")
"""The letter of the first choice; those of further ones follow it."""
NO_ANSWER = "-"
ANSWERS = 5_000_000
"""Answers of a page; where there are more, the first questions are shown."""
TEXT = 2_000_000
"""Letters of the questions of a page; likewise."""


@dataclass
class _Asked:
    """Questions that some runs were all asked."""

    ids: list[str]
    gold: list[int]
    runs: dict[int, dict[str, int]] = field(default_factory=dict)
    """Run -> `final`, `dense` and, where it was measured, `pruned` -> which of the different answers."""
    read: dict[str, int] = field(default_factory=dict)
    """Key of an evaluation -> which of the different answers."""
    files: dict[Path, None] = field(default_factory=dict)
    """Where the texts are, in order."""


def answers(collection: Collection) -> dict[str, Any]:
    """The questions with their texts, and what dense, pruned and recovered models answered.

    What the pruned model answered is that of the evaluation after the last pruning and before its recovery; where there
    was none, of the run without recovery that is alike in all else.
    """
    distinct: dict[str, int] = {}
    asked: dict[tuple[Hashable, ...], _Asked] = {}
    gaps: list[str] = []
    for place, run in enumerate(collection.runs):
        try:
            last = run.predictions().sort_index()
        except AnalysisError as error:
            gaps.append(str(error))
            continue
        key = (*last.index, *last["gold"])
        mine = asked.setdefault(key, _Asked(list(map(str, last.index)), last["gold"].astype(int).tolist()))
        found = {"final": distinct.setdefault(_letters(last, last.index), len(distinct))}
        for name, stage in (("dense", run.dense_evaluation), ("pruned", _after_pruning(run))):
            if stage is None:
                continue
            # runs that came to one model share its evaluation
            if stage.key not in mine.read:
                try:
                    letters = _letters(run.predictions(after=stage), last.index)
                except AnalysisError as error:
                    gaps.append(str(error))
                    continue
                mine.read[stage.key] = distinct.setdefault(letters, len(distinct))
            found[name] = mine.read[stage.key]
        mine.runs[place] = found
        if (path := questions_file(run.folder, run.record)) is not None:
            mine.files[path] = None
    _borrow_pruned(collection, asked.values())
    sets = []
    kept: dict[str, int] = {}
    different = list(distinct)
    room = ANSWERS // max(1, len(different))
    for each in asked.values():
        texts, told = _texts(each)
        gaps += told
        shown = _shown(each, texts, room)
        if shown < len(each.ids):
            gaps.append(f"the first {shown:,} of {len(each.ids):,} questions are shown, so that the page stays small")

        def cut(number: int | None, shown: int = shown) -> int | None:
            return None if number is None else kept.setdefault(different[number][:shown], len(kept))

        sets.append(
            {
                "ids": each.ids[:shown],
                "gold": each.gold[:shown],
                "texts": [texts.get(name) for name in each.ids[:shown]] if texts else [],
                "runs": [
                    [place, *(cut(models.get(name)) for name in ("dense", "pruned", "final"))]
                    for place, models in each.runs.items()
                ],
            }
        )
    return {"sets": sets, "letters": list(kept), "gaps": few(gaps)}


def _after_pruning(run: Run) -> StageRecord | None:
    """The evaluation between the last pruning and the recovery or prompt after it; without either the last one."""
    found, recovered = None, False
    for stage in run.record.stages:
        if stage.stage == "prune":
            found, recovered = None, False
        elif stage.stage == "recover":
            recovered = run.choice("loss") != "none"
        elif stage.stage == "instruct":
            recovered = True
        elif stage.stage == "evaluate" and stage != run.dense_evaluation and not recovered:
            found = stage
    return found


def _letters(table: pandas.DataFrame, ids: pandas.Index) -> str:
    predicted = table["predicted"].reindex(ids)
    return "".join(NO_ANSWER if value != value else chr(FIRST + int(value)) for value in predicted)


def _borrow_pruned(collection: Collection, asked: Iterable[_Asked]) -> None:
    """Give runs that were not asked after pruning the answers of the run without recovery that is alike in all else."""
    columns = [column for column in (*FACETS, *LINES) if column != "loss"]
    table = collection.conditions()[[*columns, "sparsity", "seed"]].astype(str)
    keys = list(table.itertuples(index=False, name=None))
    for each in asked:
        without = {
            keys[place]: told["final"]
            for place, told in each.runs.items()
            if collection.runs[place].choice("loss") == "none"
        }
        for place, told in each.runs.items():
            if "pruned" not in told and keys[place] in without:
                told["pruned"] = without[keys[place]]


def _texts(asked: _Asked) -> tuple[dict[str, list[Any]], list[str]]:
    """Question -> its text and its choices; and why some are not known."""
    texts: dict[str, list[Any]] = {}
    gaps = []
    for path in asked.files:
        try:
            table = pandas.read_parquet(path)
            table = table[table["split"] == "test"]
            texts |= {
                str(name): [str(question), [str(choice) for choice in choices]]
                for name, question, choices in zip(table["id"], table["question"], table["choices"], strict=True)
            }
        except FileNotFoundError:
            gaps.append(f"{path}: is missing, so these questions are shown by their ids")
        except (OSError, ValueError, KeyError, TypeError) as error:
            gaps.append(f"{path}: cannot be read ({error}), so these questions are shown by their ids")
    if not asked.files:
        gaps.append(f"{len(asked.runs):,} runs do not tell the texts of their questions, which are shown by their ids")
    elif texts and (unknown := sum(name not in texts for name in asked.ids)):
        gaps.append(f"{unknown:,} of {len(asked.ids):,} questions have no text and are shown by their ids")
    return texts, gaps


def _shown(asked: _Asked, texts: dict[str, list[Any]], room: int) -> int:
    """How many of the questions fit."""
    letters = 0
    for number, name in enumerate(asked.ids[:room]):
        question, choices = texts.get(name, ("", ()))
        letters += len(question) + sum(map(len, choices))
        if letters > TEXT:
            return number
    return min(room, len(asked.ids))
