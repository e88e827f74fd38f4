"""Sweeps made up for tests: records and predictions as runs leave them, without running any."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from regraft.records import PREDICTIONS, TRAINING, Record, Row, StageRecord

CHOICES = 5
WITHOUT_QUESTIONS = (
    "parameters",
    "non_embedding_parameters",
    "bytes",
    "macs_per_token",
    "milliseconds_per_new_token",
    "speedup_of_new_token",
)


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
    task: str = "facts",
    recovery_questions: int | None = None,
    subset: int | None = None,
    teacher_parameters: int | None = None,
    neurons: tuple[Sequence[int], Sequence[int]] | None = None,
    metrics: Mapping[str, float] | None = None,
    dense: Mapping[str, float] | None = None,
    **settings: Any,
) -> Record:
    """A finished run of prepare, evaluate, prune, recover, evaluate.

    Args:
        loss: Choice of its group, as are criterion, schedule and task.
        criterion: See loss.
        sparsity: Requested.
        seed: Of the run.
        accuracy: On test questions, after the last stage; the dense model has 0.97.
        questions: Asked.
        schedule: See loss.
        sweep: Its name.
        task: See loss.
        recovery_questions: That the dense model was asked.
        subset: Draw of recovery questions.
        teacher_parameters: Size of the teacher.
        neurons: Those of each layer that were removed, and that there were.
        metrics: Further ones of the last evaluation; those that know no questions have no split.
        dense: The same of the dense model; `accuracy` replaces 0.97.
        settings: `train_size`, `lr`, `learning_rate`, `steps`, `tracker`, `loss_settings`, `pruner_settings`,
            `selection`, metrics of the last evaluation on as many selection questions, and `costs` of the recovery.
    """
    costs: Mapping[str, float] = settings.pop("costs", {})
    selection: Mapping[str, float] = settings.pop("selection", {})
    metrics, dense = metrics or {}, {"accuracy": 0.97} | dict(dense or {})
    config: dict[str, Any] = {
        "sparsity": sparsity,
        "seed": seed,
        "save_model": False,
        "sweep": sweep,
        "model": {"_target_": "Olmo", "layers": 4},
        "task": {"_target_": task.capitalize(), "train_size": settings.pop("train_size", None)}
        | ({} if subset is None else {"subset": subset}),
        "pruner": {"criterion": {"_target_": criterion}, "structure": {"_target_": "MLP"}}
        | settings.pop("pruner_settings", {}),
        "schedule": {"_target_": schedule},
        "loss": {"_target_": loss} | settings.pop("loss_settings", {}),
        "teacher": {"_target_": "Dense"} | ({} if teacher_parameters is None else {"model": teacher_parameters}),
        "recovery": {"_target_": "Training", "lr": settings.pop("lr", 0.001)},
        "tracker": {"_target_": settings.pop("tracker", "WandB")},
        "runtime": {"threads": 1},
    }
    for name in ("learning_rate", "steps"):
        if name in settings:
            config["recovery"][name] = settings.pop(name)
    assert not settings, settings
    prepared = digest("prepared") if task == "facts" else digest("prepared", task)
    scored = seed if criterion == "random" else None
    units = digest("units", criterion, sparsity, scored, None if schedule == "one_shot" else loss)
    trained = loss != "none"
    varied = (config["task"], config["teacher"]) if trained else task
    after = digest(units, loss, seed if trained else None, config["recovery"], config["loss"], sparsity, varied)
    details: list[dict[str, Any]] = [
        {},
        {},
        {}
        if neurons is None
        else dict(zip(("removed", "dense"), ({"mlp_neurons": list(each)} for each in neurons), strict=True)),
        ({} if teacher_parameters is None or not trained else {"teacher": {"parameters": teacher_parameters}})
        | ({"needs": ["labels"] if "ce" in loss.split("_") else ["teacher_logits"]} if trained else {})
        | dict(costs),
        {},
    ]
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
            details=details[index],
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
            metric=metric,
            value=value,
            **({"split": "test"} | more),
        )

    def further(index: int, found: Mapping[str, float]) -> list[Row]:
        return [
            row(index, name, value, split="") if name in WITHOUT_QUESTIONS else row(index, name, value, n=questions)
            for name, value in found.items()
            if name != "accuracy"
        ]

    right = round(accuracy * questions) / questions
    rows = [
        row(1, "accuracy", round(dense["accuracy"] * questions) / questions, n=questions, ci_low=0.9, ci_high=0.99),
        row(4, "accuracy", right, n=questions, ci_low=0.0, ci_high=1.0),
        *([] if "nll" in metrics else [row(4, "nll", 1.5, n=questions)]),
        row(4, "seconds", 0.1, deterministic=False),
        *further(1, dense),
        *further(4, metrics),
        *(row(4, name, value, n=questions, split="selection") for name, value in selection.items()),
    ]
    if recovery_questions is not None:
        rows.append(row(1, "accuracy", 1.0, n=recovery_questions, split="recovery"))
    return Record(
        run_id=digest(config, sweep if sweep == "other" else "")[:10],
        sweep=sweep,
        status="finished",
        error=None,
        config=config,
        choices={
            "model": "tiny_olmo2",
            "task": task,
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
        if row.metric != "accuracy" or row.split not in ("test", "selection"):
            continue
        assert row.n is not None and row.value is not None
        gold = np.arange(row.n) % CHOICES
        is_right = np.arange(row.n) < round(row.value * row.n)
        if (row.stage_index, row.split) == (4, "test") and right is not None:
            is_right = right
        predicted = np.where(is_right, gold, (gold + 1) % CHOICES)
        scores = np.zeros((row.n, CHOICES))
        scores[np.arange(row.n), predicted] = 0.2 + 5 * (np.arange(row.n) * 0.618 % 1)
        task = made.choices["task"]
        tables.append(
            pandas.DataFrame(
                {
                    "stage_index": row.stage_index,
                    "stage": "evaluate",
                    "split": row.split,
                    "id": [
                        f"{'' if task == 'facts' else task}{'q' if row.split == 'test' else 's'}{number:05}"
                        for number in range(row.n)
                    ],
                    "gold": gold,
                    "predicted": predicted,
                    "scores": list(scores),
                }
            )
        )
    return pandas.concat(tables, ignore_index=True)


def training(losses: Sequence[float], stage: int = 3) -> pandas.DataFrame:
    """What a training of these losses leaves."""
    steps = np.arange(1, len(losses) + 1)
    return pandas.DataFrame(
        {"stage_index": stage, "step": steps, "loss": losses, "lr": 0.001, "grad_norm": 1.0, "examples": 8 * steps}
    )


def save(
    made: Record,
    sweep: Path,
    right: np.ndarray | None = None,
    with_predictions: bool = True,
    losses: Sequence[float] | None = None,
) -> Path:
    """Write a run as the runner does.

    Args:
        made: The record; its accuracy follows `right` if that is given.
        sweep: The folder of the sweep.
        right: Which questions of the last stage are answered rightly.
        with_predictions: Whether they are written.
        losses: Of each training step; None writes no training table.
    """
    folder = sweep / made.run_id
    (folder / ".hydra").mkdir(parents=True)
    if right is not None:
        rows = [
            replace(row, value=float(right.mean()))
            if (row.metric, row.stage_index, row.split) == ("accuracy", 4, "test")
            else row
            for row in made.rows
        ]
        made = replace(made, rows=rows)
    if with_predictions:
        predictions(made, right).to_parquet(folder / PREDICTIONS, index=False)
    if losses is not None:
        training(losses).to_parquet(folder / TRAINING, index=False)
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
