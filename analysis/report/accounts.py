"""The runs of a page: what they were, what became of them, their configs, and where and by which code they ran."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis import names
from analysis.collect import CHOICES, DIGITS, NEUTRAL, Collection, Run
from analysis.curves import shown
from analysis.metrics import KNOWN
from regraft.records import Record

ALWAYS = ("loss", "sparsity", "seed")
"""Columns that are told even if all runs agree."""
ERROR = 20_000
"""Letters of an error; the end of a longer one says most."""
GAPS = 20
"""Lines that say what is missing; further ones are counted."""
VOLATILE = ("peak_memory_bytes",)
"""What differs from run to run in one environment."""


def columns(collection: Collection) -> list[dict[str, Any]]:
    """The columns in which runs differ: label, values as they are called, and which of them each run has."""
    table = collection.conditions()
    found = []
    for column in ("sweep", *CHOICES, "train_size", "subset", "variant", "sparsity", "seed"):
        if column in ALWAYS or shown(table, column):
            # none is a value that can be chosen
            raw = ["" if names.is_gap(value) else value for value in table[column]]
            found.append(_coded(column, raw))
    return found


def _coded(column: str, raw: Sequence[Any]) -> dict[str, Any]:
    values, codes = _codes(column, raw)
    return {
        "key": column,
        "label": names.COLUMNS.get(column, column).replace("_", " "),
        "values": [names.value(column, value) for value in values],
        "codes": codes,
    }


def _codes(column: str, raw: Sequence[Any]) -> tuple[list[Any], list[int | None]]:
    """The different values in their order, and which of them each is; None where there is none."""
    values = sorted({value for value in raw if value is not None}, key=lambda value: names.rank(column, value))
    place = {value: number for number, value in enumerate(values)}
    return values, [None if value is None else place[value] for value in raw]


def accounts(collection: Collection, told: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The table of runs, configs, environments and what is missing.

    Args:
        collection: The runs.
        told: What `columns` gave; runs that failed are added to it.
    """
    failed = [(folder, _record(folder)) for folder, _ in collection.failed]
    recorded = [run.record for run in collection.runs] + [record for _, record in failed if record is not None]
    _add_failed(told, [record for _, record in failed if record is not None])
    left_out = [(folder, "failed") for folder, record in failed if record is None]
    for kind in ("unfinished", "missing", "unreadable"):
        left_out += [(folder, kind) for folder, _ in getattr(collection, kind)]
    ids = [record.run_id for record in recorded] + [folder.name for folder, _ in left_out]
    return {
        "runs": {
            "id": ids,
            "status": [record.status for record in recorded] + [kind for _, kind in left_out],
            "finished": len(collection.runs),
            "recorded": len(recorded),
            "numbers": _numbers(collection),
        },
        "configs": _configs(recorded),
        "environments": _environments(recorded),
        "commits": Counter(str(record.environment.get("commit") or "unknown") for record in recorded).most_common(),
        "failures": [
            {"run": folder.name, "first": first, "whole": ((record.error if record else "") or first)[-ERROR:]}
            for (folder, first), (_, record) in zip(collection.failed, failed, strict=True)
        ],
        "left_out": [
            [title, [[folder.name, reason] for folder, reason in getattr(collection, kind)]]
            for kind, title in (
                ("unfinished", "unfinished"),
                ("missing", "asked for and not begun"),
                ("unreadable", "unreadable"),
                ("repeated", "repeated, counted once"),
            )
            if getattr(collection, kind)
        ],
        "account": [line.removesuffix(":") for line in collection.account() if not line.startswith("  ")],
    }


def few(lines: Iterable[str]) -> list[str]:
    """The first of the different lines, and how many more there are."""
    told = list(dict.fromkeys(lines))
    return told if len(told) <= GAPS else [*told[:GAPS], f"and {len(told) - GAPS:,} more like these"]


def _record(folder: Path) -> Record | None:
    try:
        return Record.load(folder)
    except (OSError, ValueError):
        return None


def _add_failed(told: Sequence[dict[str, Any]], failed: Sequence[Record]) -> None:
    """What is known of runs that failed, in the columns of those that finished; None where it is not."""
    for column in told:
        for record in failed:
            raw = _known(record, column["key"])
            text = "" if raw is None else names.value(column["key"], raw)
            if raw is not None and text not in column["values"]:
                column["values"].append(text)
            column["codes"].append(None if raw is None else column["values"].index(text))


def _known(record: Record, column: str) -> Any:
    if column in CHOICES:
        return record.choices.get(CHOICES[column])
    if column == "sweep":
        return record.sweep
    value = record.config.get(column)
    return round(float(value), DIGITS) if column == "sparsity" and isinstance(value, int | float) else value


def _numbers(collection: Collection) -> list[dict[str, Any]]:
    """The columns of numbers, of runs that finished."""
    runs = collection.runs
    last = [run.row(run.last_evaluation) for run in runs]
    dense = [run.row(run.dense_evaluation) for run in runs]

    def share(part: float | None, whole: float | None) -> float | None:
        return None if part is None or not whole else part / whole

    accuracy = [row.value if row else None for row in last]
    told: list[tuple[str, str, str, float, int, list[float | None]]] = [
        ("accuracy", "accuracy", "%", 100, 1, accuracy),
        (
            "retained",
            "of dense",
            "%",
            100,
            1,
            [share(value, row.value if row else None) for value, row in zip(accuracy, dense, strict=True)],
        ),
        ("block", "units removed", "%", 100, 1, [row.block_sparsity if row else None for row in last]),
        ("model", "model removed", "%", 100, 1, [row.model_sparsity if row else None for row in last]),
        ("parameters", "parameters", "", 1, 0, [_value(run, "parameters") for run in runs]),
        (
            "seconds",
            "seconds of own stages, by clock",
            "s",
            1,
            1,
            [_seconds(run) for run in runs],
        ),
    ]
    return [
        {
            "key": key,
            "label": label,
            "unit": unit,
            "scale": scale,
            "digits": digits,
            "values": [None if value is None or value != value else float(f"{value:.9g}") for value in values],
        }
        for key, label, unit, scale, digits, values in told
        if any(value is not None for value in values)
    ]


def _seconds(run: Run) -> float | None:
    """Of the stages that this run did itself; None where its training was taken from another run's."""
    stages = run.record.stages
    if any(stage.reused and stage.stage == "recover" for stage in stages):
        return None
    return sum(stage.seconds for stage in stages if not stage.reused)


def _value(run: Run, name: str) -> float | None:
    row = run.row(run.last_evaluation, KNOWN[name].name)
    return row.value if row else None


def _configs(recorded: Sequence[Record]) -> dict[str, Any]:
    """What all runs have in common, once, and what differs: values, and which of them each run has."""
    every = [_settings(record) for record in recorded]
    keys = sorted({key for settings in every for key in settings})
    common, differing = [], []
    for key in keys:
        told = [settings.get(key) for settings in every]
        if len(set(told)) == 1:
            common.append([key, told[0]])
            continue
        values, codes = _codes("", told)
        differing.append({"key": key, "values": values, "codes": codes})
    return {"common": common, "differing": differing}


def _settings(record: Record) -> dict[str, str]:
    """Chosen YAML by group (`pruner/criterion`) and the leaves of the resolved config, as text."""
    run = Run(record, Path())
    chosen = {group: name for group, name in record.choices.items() if group.split("/")[0] not in NEUTRAL}
    return {f"{group} (choice)": str(name) for group, name in chosen.items()} | {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        for key, value in run.settings.items()
    }


def _environments(recorded: Iterable[Record]) -> list[dict[str, Any]]:
    """The different environments, the most frequent first."""
    counted = Counter(tuple(_flat(record.environment)) for record in recorded)
    return [{"count": count, "values": [list(pair) for pair in pairs]} for pairs, count in counted.most_common()]


def _flat(environment: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for key, value in environment.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{name}", str(each)) for name, each in value.items())
        elif key not in VOLATILE:
            yield key, str(value)
