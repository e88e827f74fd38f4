"""Pages of made-up sweeps for tests, and what is in a page."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import sweeps

from regraft.records import Record

EVIL = '"><img src=x onerror=alert(1)>'
SCRIPT = "<script>alert(1)</script>"
DIGEST = "0123abcd"
QUESTIONS = 40


def data(page: Path) -> dict[str, Any]:
    """What the page shows."""
    return json.loads(script(page.read_text(encoding="utf-8"), "data"))


def pictures(page: Path) -> list[dict[str, Any]]:
    """Its figures."""
    return json.loads(script(page.read_text(encoding="utf-8"), "pictures"))


def script(text: str, name: str) -> str:
    """The JSON in the script element called `name`."""
    (found,) = re.findall(rf'<script type="application/json" id="{name}">(.*?)</script>', text, re.DOTALL)
    return str(found)


def told(made: Record, **changed: Any) -> Record:
    """The same run by a model of an evil name, which tells which questions it was asked."""
    stages = [replace(each, details={**each.details, "questions": DIGEST}) for each in made.stages]
    config = {**made.config, "recovery": {**made.config["recovery"], "note": EVIL}}
    return replace(made, **({"stages": stages, "config": config, "choices": {**made.choices, "model": EVIL}} | changed))


def texts(sweep: Path, ids: Sequence[str], digest: str = DIGEST) -> None:
    """Write the texts of questions: the first question is a script, and its first choice evil."""
    table = pandas.DataFrame({"split": "test", "id": list(ids)})
    table["question"] = [SCRIPT, *(f"What is thing {number}?" for number in range(1, len(ids)))]
    table["choices"] = [[EVIL if not number else "red", "blue", "green", "grey", "pink"] for number in range(len(ids))]
    (sweep / "questions").mkdir(exist_ok=True)
    table.to_parquet(sweep / "questions" / f"{digest}.parquet", index=False)


def right(loss: str, seed: int) -> np.ndarray:
    """Which questions are answered rightly at 80 %: without recovery 0 to 9.

    CE loses 3 and brings back 10 to 19; KL brings back 10 to 14 and 20 to 29, but 20 not with seed 2.
    """
    found = np.arange(QUESTIONS) < 10
    if loss == "ce":
        found[10:20], found[3] = True, False
    if loss == "kl":
        found[10:15] = found[20:30] = True
        found[20] = seed != 2
    return found


def evil(root: Path) -> Path:
    """A sweep with every kind of run and text: names that are HTML, a failure, a run that was stopped."""
    sweep = root / EVIL.replace("/", "")
    for criterion in ("l2", "random"):
        for sparsity in (0.0, 0.8):
            for loss in ("none", "ce", "kl", EVIL):
                for seed in (0, 1, 2):
                    made = sweeps.record(
                        criterion=criterion,
                        sparsity=sparsity,
                        loss=loss,
                        seed=seed,
                        questions=QUESTIONS,
                        sweep=sweep.name,
                        metrics={
                            "parameters": 1e6 * (1 - 0.6 * sparsity) + 10 * seed,
                            "tokens_per_second": 2e4 + seed,
                            "nll": 0.5 + sparsity + 0.01 * seed,
                        },
                        dense={"parameters": 1e6, "tokens_per_second": 2e4},
                    )
                    answered = right(loss, seed)
                    if not sparsity:
                        answered = np.arange(QUESTIONS) < 38 - (loss == "ce") * (seed + 1)
                    losses = None if loss == "none" else list(2 / np.arange(1, 20) + 0.01 * seed)
                    sweeps.save(told(made), sweep, right=answered, losses=losses)
    error = f"{EVIL} went wrong\nTraceback: the whole of it"
    failed = sweeps.record(loss="kl", sparsity=0.95, sweep=sweep.name)
    sweeps.save(told(failed, status="failed", error=error, rows=[]), sweep, with_predictions=False)
    (sweep / "ffffffffff" / ".hydra").mkdir(parents=True)
    texts(sweep, [f"q{number:05}" for number in range(QUESTIONS)])
    return sweep
