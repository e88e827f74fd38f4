"""How far two runs are controlled: do they differ in one factor, or in more?

A difference belongs to the factor only if nothing else differs. The grade says so, from the configs and from the
fingerprints of what the runs had in hand:

* `same-units`: all else equal, the units removed included (one-shot pruning).
* `same-rule`: the same procedure, but it removed other units: its scores depend on the recovery before, as in iterative
  pruning, or the factor is the pruning itself.
* `not controlled`: more differs, and nothing is said about the factor.

What a step costs may depend on the factor. So where one budget of tokens or FLOPs ended both recoveries, their numbers
of steps may differ; the shorter must then be the beginning of the longer, and the grade says how many steps there were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from analysis.collect import CHOICES, fingerprints, settings, under
from regraft.records import BATCHES_BY_STEP, Record

GradeName = Literal["same-units", "same-rule", "not controlled"]
ORDER: tuple[GradeName, ...] = ("same-units", "same-rule", "not controlled")
"""From the strongest to the weakest."""

MOVES = {
    "model": ("model_in", "batches"),
    "preparation": ("model_in",),
    "task": ("model_in", "batches"),
    "task.train_size": ("batches",),
    "recovery": ("batches",),
    "recovery.epochs": ("batches",),
    "recovery.steps": ("batches",),
    "recovery.tokens": ("batches",),
    "recovery.flops": ("batches",),
    "recovery.batch_size": ("batches",),
    "recovery.accumulation": ("batches",),
    "schedule": ("batches",),
    "batches": ("batches",),
    "pipeline": ("batches",),
    "sparsity": ("batches",),
}
"""Key of a factor -> fingerprints that it decides, so that they may differ with it."""
BUDGETS = ("recovery.tokens", "recovery.flops")
"""Keys of what may end a recovery in place of a number of steps."""
WHOLE = ("model", "preparation", "task", "schedule", "batches", "pipeline")
"""Keys that stand for all below them, where `MOVES` does not say otherwise."""


@dataclass(frozen=True)
class Grade:
    """How far a pair of runs is controlled."""

    name: GradeName
    differing: tuple[str, ...] = ()
    """What differs besides the factor."""
    surroundings: tuple[str, ...] = ()
    """What was different around the runs: code version, libraries, device. It should not matter, and is told."""
    steps: tuple[tuple[int, int], ...] = ()
    """Recovery steps of both sides of each pair to which one budget gave more of the same batches on one side."""


def grade(a: Record, b: Record, factor: str, tuned: Sequence[str] = ()) -> Grade:
    """The grade of two runs that are to differ in `factor` alone.

    Args:
        a: A finished run.
        b: Another.
        factor: A column of the tidy table (`loss`, `criterion`), or a config key (`loss`, `recovery.epochs`).
        tuned: Config keys that each side has chosen for itself, so that they may differ with the factor.

    Returns:
        `same-units` if the configs differ in nothing else, the same weights entered pruning, the same units went at
        each prune stage and each recover stage saw the same batches (with `loss=none` there are none; within one budget
        one side may have read on); `same-rule` if only the units differ; else `not controlled`. What a record should
        tell and does not counts as different.
    """
    key = config_key(factor)
    mine, theirs = settings(a), settings(b)
    steps: tuple[tuple[int, int], ...] = ()
    differing = [
        name
        for name in sorted(mine.keys() | theirs.keys())
        if not any(under(name, each) for each in (key, *tuned))
        and (name not in mine or name not in theirs or mine[name] != theirs[name])
    ]
    moved = MOVES.get(key, MOVES[key.split(".")[0]] if key.split(".")[0] in WHOLE else ())
    if "model_in" not in moved and _entered(a) != _entered(b):
        differing.append("the model that entered pruning")
    batches = fingerprints(a, "recover", "batches"), fingerprints(b, "recover", "batches")
    if any(_trained(each) and not seen for each, seen in zip((a, b), batches, strict=True)):
        differing.append("the recovery batches (they are not recorded)")
    elif "batches" not in moved and all(batches) and batches[0] != batches[1]:
        steps = _paid_for(a, b) if any(mine.get(each) == theirs.get(each) is not None for each in BUDGETS) else ()
        if not steps:
            differing.append("the recovery batches")
    units = fingerprints(a, "prune", "units"), fingerprints(b, "prune", "units")
    if not all(units):
        differing.append("the units removed (they are not recorded)")
    surroundings = tuple(name for name, told in SURROUNDINGS.items() if told(a.environment) != told(b.environment))
    if differing:
        return Grade("not controlled", tuple(differing), surroundings)
    return Grade("same-units" if units[0] == units[1] else "same-rule", (), surroundings, steps)


SURROUNDINGS: dict[str, Callable[[Mapping[str, Any]], object]] = {
    "code version": lambda environment: environment.get("commit"),
    "libraries": lambda environment: environment.get("libraries"),
    "device": lambda environment: environment.get("device"),
}
"""What is told of the surroundings -> how an environment tells it."""


def _paid_for(a: Record, b: Record) -> tuple[tuple[int, int], ...]:
    """Recovery steps of both, if one of them read the first batches of the other and no more; else nothing."""
    mine, theirs = (
        [each for stage in record.stages if stage.stage == "recover" for each in stage.details.get(BATCHES_BY_STEP, ())]
        for record in (a, b)
    )
    shorter, longer = sorted((mine, theirs), key=len)
    begins = 0 < len(shorter) < len(longer) and shorter[-1] == longer[len(shorter) - 1]
    return ((len(mine), len(theirs)),) if begins else ()


def _trained(record: Record) -> bool:
    return record.choices.get("loss") != "none"


def config_key(factor: str) -> str:
    """The dotted config key of a column or key."""
    if factor in ("train_size", "subset"):
        return f"task.{factor}"
    return CHOICES.get(factor, factor).replace("/", ".")


def _entered(record: Record) -> str:
    """What entered pruning; where nothing was removed no weights were hashed, and the key of their making stands in."""
    for stage in record.stages:
        if stage.stage == "prune":
            if entered := stage.fingerprints.get("model_in"):
                return entered
            break
    return record.stages[0].key if record.stages else ""
