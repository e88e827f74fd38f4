"""The MongoDB-like filters and the orders of `wandb.Api().runs(...)`, on what the stand-in server keeps of runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wandb_backend import Run

MISSING = object()


class UnknownFilter(ValueError):
    """A filter or an order that the stand-in does not know."""


def _walk(tree: Any, path: Sequence[str]) -> Any:
    """`tree` at `path`; a key that has dots itself is found too."""
    if not path:
        return tree
    if isinstance(tree, Mapping):
        for length in range(len(path), 0, -1):
            key = ".".join(path[:length])
            if key in tree and (found := _walk(tree[key], path[length:])) is not MISSING:
                return found
    return MISSING


def value_of(run: Run, key: str) -> Any:
    """What `run` has under a key of a filter or an order, or `MISSING`."""
    first, *path = key.split(".")
    if first == "config":
        settings = run.settings()
        found = _walk(settings, path)
        # W&B keeps {"key": {"value": ...}} and accepts both `config.key` and `config.key.value[.nested]`.
        if found is MISSING and "value" in path:
            at = path.index("value")
            return _walk(settings, path[:at] + path[at + 1 :])
        return found
    if first in ("summary_metrics", "summary", "summaryMetrics"):
        return _walk(run.summary(), path)
    attributes = {
        "name": run.name,
        "display_name": run.displayName,
        "displayName": run.displayName,
        "state": run.state,
        "group": run.group,
        "job_type": run.jobType,
        "jobType": run.jobType,
        "tags": run.tags,
        "created_at": run.createdAt,
        "createdAt": run.createdAt,
        "heartbeat_at": run.heartbeatAt,
        "heartbeatAt": run.heartbeatAt,
    }
    if path or first not in attributes:
        raise UnknownFilter(f"no run has {key!r}")
    return attributes[first]


def _compared(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compare(value: Any, operand: Any) -> bool:
        try:
            return test(value, operand)
        except TypeError:
            return False

    return compare


def _equal(value: Any, operand: Any) -> bool:
    """Lists (tags) match if they are the operand or hold it, as in MongoDB."""
    if value is MISSING or value is None:
        return operand is None
    return bool(value == operand) or (isinstance(value, list) and operand in value)


COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": _equal,
    "$ne": lambda value, operand: not _equal(value, operand),
    "$in": lambda value, operand: any(_equal(value, item) for item in operand),
    "$nin": lambda value, operand: not any(_equal(value, item) for item in operand),
    "$gt": _compared(lambda value, operand: value > operand),
    "$gte": _compared(lambda value, operand: value >= operand),
    "$lt": _compared(lambda value, operand: value < operand),
    "$lte": _compared(lambda value, operand: value <= operand),
    "$exists": lambda value, operand: (value is not MISSING) == bool(operand),
    "$regex": lambda value, operand: isinstance(value, str) and re.search(operand, value) is not None,
}


def matches(run: Run, wanted: Mapping[str, Any]) -> bool:
    """Whether `run` passes the filter.

    Raises:
        UnknownFilter: it uses a key or an operator that the stand-in does not know.
    """
    for key, condition in wanted.items():
        if key == "$and":
            passed = all([matches(run, part) for part in condition])
        elif key == "$or":
            passed = any([matches(run, part) for part in condition])
        elif key == "$not":
            passed = not matches(run, condition)
        elif key.startswith("$"):
            raise UnknownFilter(f"filters know $and, $or, $not, not {key}")
        else:
            operators = condition if isinstance(condition, Mapping) else {"$eq": condition}
            if unknown := set(operators) - set(COMPARISONS):
                raise UnknownFilter(f"filters know {', '.join(COMPARISONS)}, not {', '.join(sorted(unknown))}")
            value = value_of(run, key)
            passed = all(COMPARISONS[name](value, operand) for name, operand in operators.items())
        if not passed:
            return False
    return True


def ordered(runs: Sequence[Run], order: str) -> list[Run]:
    """`runs` by an order such as `+created_at` or `-summary_metrics.accuracy`; who has no value comes last."""
    key = order.lstrip("+-")

    def present(run: Run) -> Any:
        return value_of(run, key)

    known = [run for run in runs if present(run) not in (MISSING, None)]
    rest = [run for run in runs if present(run) in (MISSING, None)]
    try:
        return sorted(known, key=present, reverse=order.startswith("-")) + rest
    except TypeError:  # values of several types have no order of their own
        return sorted(known, key=lambda run: str(present(run)), reverse=order.startswith("-")) + rest
