"""Sweeps made up for tests: records and predictions as runs leave them, without running any."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from regraft.records import PREDICTIONS, Record, Row, StageRecord

CHOICES = 5


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def record(
    *,
    loss: str = "kl",
    criterion: str = "l2",
    sparsity: float = 0.5,
    seed: int = 0,
    accuracy: float = 0.5,
    questions: int = 200,
    schedule: str = "one_shot",
    sweep: str = "study",
    **settings: Any,
) -> Record:
    """A finished run of prepare, evaluate, prune, recover, evaluate."""
    config: dict[str, Any] = {
        "sparsity": sparsity,
        "seed": seed,
        "save_model": False,
        "sweep": sweep,
        "model": {"_target_": "Olmo", "layers": 4},
        "task": {"_target_": "Facts", "train_size": settings.pop("train_size", None)},
        "pruner": {"criterion": {"_target_": criterion}, "structure": {"_target_": "MLP"}},
        "schedule": {"_target_": schedule},
        "loss": {"_target_": loss} | settings.pop("loss_settings", {}),
        "teacher": {"_target_": "Dense"},
        "recovery": {"_target_": "Training", "lr": settings.pop("lr", 0.001)},
        "tracker": {"_target_": settings.pop("tracker", "WandB")},
        "runtime": {"threads": 1},
    }
    assert not settings, settings
    prepared = digest("prepared")
    scored = seed if criterion == "random" else None
    units = digest("units", criterion, sparsity, scored, None if schedule == "one_shot" else loss)
    trained = loss != "none"
    after = digest(units, loss, seed if trained else None, config["recovery"], config["loss"], sparsity)
    fingerprints: list[dict[str, str]] = [
        {},
        {},
        {"model_in": digest("weights"), "units": units} if sparsity else {"units": digest({})},
        {"model_in": digest(units, "cut"), "batches": digest("batches", seed)} if trained else {},
        {},
    ]
    names = ["prepare", "evaluate", "prune", "recover", "evaluate"]
    keys = [prepared, digest(prepared, "evaluate"), digest(units, "key"), digest(after, "key"), digest(after)]
    stages = [
        StageRecord(
            index=index,
            stage=name,
            key=keys[index],
            target_sparsity=sparsity if index > 1 else 0.0,
            fingerprints=fingerprints[index],
            seconds=1.0,
        )
        for index, name in enumerate(names)
    ]

    def row(index: int, metric: str, value: float | None, **more: Any) -> Row:
        share = sparsity if index > 1 else 0.0
        return Row(
            stage_index=index,
            stage="evaluate",
            target_sparsity=share,
            block_sparsity=share,
            model_sparsity=0.6 * share,
            bits=32,
            split="test",
            metric=metric,
            value=value,
            **more,
        )

    right = round(accuracy * questions) / questions
    rows = [
        row(1, "accuracy", round(0.97 * questions) / questions, n=questions, ci_low=0.9, ci_high=0.99),
        row(4, "accuracy", right, n=questions, ci_low=0.0, ci_high=1.0),
        row(4, "nll", 1.5, n=questions),
        row(4, "seconds", 0.1, deterministic=False),
    ]
    return Record(
        run_id=digest(config, sweep if sweep == "other" else "")[:10],
        sweep=sweep,
        status="finished",
        error=None,
        config=config,
        choices={
            "model": "tiny_olmo2",
            "task": "facts",
            "preparation": "none",
            "pruner": "mlp",
            "pruner/criterion": criterion,
            "pruner/structure": "mlp_neurons",
            "pruner/allocation": "layerwise",
            "schedule": schedule,
            "loss": loss,
            "teacher": "dense",
            "recovery": "small_model",
            "pipeline": "prune_recover",
            "tracker": "wandb",
        },
        environment={},
        stages=stages,
        rows=rows,
    )


def predictions(made: Record, right: np.ndarray | None = None) -> pandas.DataFrame:
    """Answers that agree with the record's accuracy; `right` says which questions of the last stage are answered."""
    tables = []
    for row in made.rows:
        if row.metric != "accuracy":
            continue
        assert row.n is not None and row.value is not None
        gold = np.arange(row.n) % CHOICES
        is_right = np.arange(row.n) < round(row.value * row.n)
        if row.stage_index == 4 and right is not None:
            is_right = right
        tables.append(
            pandas.DataFrame(
                {
                    "stage_index": row.stage_index,
                    "stage": "evaluate",
                    "split": "test",
                    "id": [f"q{number:05}" for number in range(row.n)],
                    "gold": gold,
                    "predicted": np.where(is_right, gold, (gold + 1) % CHOICES),
                    "scores": [[0.0] * CHOICES] * row.n,
                }
            )
        )
    return pandas.concat(tables, ignore_index=True)


def save(made: Record, sweep: Path, right: np.ndarray | None = None, with_predictions: bool = True) -> Path:
    """Write a run as the runner does; the record's accuracy follows `right` if that is given."""
    folder = sweep / made.run_id
    (folder / ".hydra").mkdir(parents=True)
    if right is not None:
        rows = [
            replace(row, value=float(right.mean())) if (row.metric, row.stage_index) == ("accuracy", 4) else row
            for row in made.rows
        ]
        made = replace(made, rows=rows)
    if with_predictions:
        predictions(made, right).to_parquet(folder / PREDICTIONS, index=False)
    made.save(folder)
    return folder


def grid(
    sweep: Path,
    *,
    losses: tuple[str, ...] = ("none", "ce", "kl"),
    criteria: tuple[str, ...] = ("l2", "random"),
    sparsities: tuple[float, ...] = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9),
    seeds: tuple[int, ...] = (0, 1, 2),
    questions: int = 400,
) -> Path:
    """A sweep that looks like a real one: accuracy falls with sparsity, recovery brings some of it back."""
    gain = {"none": 0.0, "ce": 0.16, "kl": 0.24, "ce_kl": 0.22, "pseudo_label": 0.13}
    for criterion in criteria:
        for sparsity in sparsities:
            for loss in losses:
                for seed in seeds:
                    noise = np.random.default_rng([seed, round(100 * sparsity), *map(ord, loss + criterion)])
                    middle = 0.62 - (0.12 if criterion == "random" else 0.0) + gain[loss]
                    accuracy = 0.2 + 0.77 / (1 + np.exp((sparsity - middle) / 0.08))
                    if loss != "none" or (criterion == "random" and sparsity):
                        accuracy += noise.normal(0, 0.015)
                    accuracy = float(np.clip(accuracy, 0, 1))
                    save(
                        record(
                            loss=loss,
                            criterion=criterion,
                            sparsity=sparsity,
                            seed=seed,
                            accuracy=accuracy,
                            questions=questions,
                        ),
                        sweep,
                    )
    return sweep
