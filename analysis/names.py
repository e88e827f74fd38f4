"""What choices are called in tables and figures."""

from __future__ import annotations

import math

LOSSES = {"none": "none", "ce": "CE", "kl": "KL", "ce_kl": "CE + KL", "pseudo_label": "pseudo-label CE"}
CRITERIA = {"l1": "L1", "l2": "L2", "random": "random"}
SCHEDULES = {"one_shot": "one-shot"}
COLUMNS = {"train_size": "recovery questions"}


def value(column: str, choice: object) -> str:
    """A choice as a reader knows it; one that is not known here keeps its name."""
    known = {"loss": LOSSES, "criterion": CRITERIA, "schedule": SCHEDULES}.get(column, {})
    return known.get(str(choice), str(choice))


def rank(choice: object) -> tuple[float, str]:
    """Key for sorting choices: numbers by size, before names."""
    text = str(choice)
    return (int(text) if text.isdigit() else math.inf), text


def label(columns: list[str], choices: tuple[object, ...]) -> str:
    """The first choice alone, the others with what they are: `KL, recovery questions 500`."""
    first, *others = (
        value(column, choice) if not position else f"{COLUMNS.get(column, column)} {value(column, choice)}"
        for position, (column, choice) in enumerate(zip(columns, choices, strict=True))
        if not position or str(choice)
    )
    return ", ".join([first, *others]).replace(", variant ", ", ")


def units(structures: set[str]) -> str:
    """What sparsity counts: `MLP neurons`; `units` if there are several structures or none is named."""
    if len(structures) != 1 or structures == {""}:
        return "units"
    return next(iter(structures)).replace("_", " ").replace("mlp", "MLP")


def spaced(number: float) -> str:
    """A percentage without needless digits: `50 %`, `12.5 %`."""
    return f"{round(100 * number, 1):g} %"
