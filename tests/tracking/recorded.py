"""Runs made up for the tests of trackers: a record with its files in a folder, as a run leaves them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pandas

from regraft.records import (
    CHECKPOINT,
    PREDICTIONS,
    QUESTIONS,
    SCORES,
    TRAINING,
    Record,
    Row,
    StageRecord,
)
from regraft.tracking.replay import info, replay
from regraft.tracking.wandb import keys
from regraft.tracking.wandb.log import Wandb

ENTITY = "tester"
"""Who the key of the stand-in server belongs to."""
PROJECT = "study"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CHOICES = ["a barn", "honey", "<b>night</b>"]
ASKED = 5
LAYERS = 2
UNITS = 8


def recorded(
    root: Path,
    *,
    sweep: str = "study",
    seed: int = 0,
    loss: str = "kl",
    sparsities: Sequence[float] = (0.5,),
    steps: int = 4,
    error: str | None = None,
    asked: bool = True,
    checkpoint: bool = False,
    value: float | None = 1.25,
    **tracker: Any,
) -> Path:
    """The folder `root/SWEEP/RUN_ID` of a run that is through.

    Args:
        root: Where sweeps are.
        sweep: Name of the sweep.
        seed: Of the run; it moves every number a little.
        loss: Choice of its group.
        sparsities: One prune, evaluate, recover, evaluate each.
        steps: Optimizer steps of each recovery.
        error: Of a failed run: it failed in the last evaluation.
        asked: Whether the questions are kept.
        checkpoint: Whether the model was saved.
        value: The last loss of each recovery, and the last negative log likelihood.
        **tracker: Settings of the run's own tracker.
    """
    run_id = f"{'iterative' if len(sparsities) > 1 else 'oneshot'}{loss}{seed:02}"
    folder = root / sweep / run_id
    folder.mkdir(parents=True)
    stages: list[StageRecord] = []
    rows: list[Row] = []
    tables: dict[str, list[pandas.DataFrame]] = {PREDICTIONS: [], TRAINING: [], SCORES: []}

    def stage(name: str, target: float, **details: Any) -> int:
        index = len(stages)
        stages.append(
            StageRecord(
                index=index,
                stage=name,
                key=f"{seed}{index}{name}",
                target_sparsity=target,
                fingerprints={"units": f"u{target}", "model_in": "dense"} if name == "prune" else {},
                seconds=1.5,
                details=details,
            )
        )
        return index

    def evaluate(target: float) -> None:
        index = stage("evaluate", target, questions="abcd1234")
        about = {"stage_index": index, "stage": "evaluate", "target_sparsity": target, "block_sparsity": target}
        about |= {"model_sparsity": target / 2, "bits": 32}
        splits = ["test", "selection"] + ([] if target else ["preparation", "recovery"])
        for number, split in enumerate(splits):
            gold = numpy.arange(ASKED) % len(CHOICES)
            predicted = (gold + (numpy.arange(ASKED) < round(target * ASKED))) % len(CHOICES)
            right = float((gold == predicted).mean())
            rows.append(Row(**about, split=split, metric="accuracy", value=right, n=ASKED, ci_low=0.0, ci_high=1.0))
            tables[PREDICTIONS].append(
                pandas.DataFrame(
                    {
                        "split": split,
                        "id": [f"{split}{each}" for each in range(ASKED)],
                        "gold": gold,
                        "predicted": predicted,
                        "scores": [[0.1 * seed, 0.2, 0.3 + number]] * ASKED,
                        "stage_index": index,
                        "stage": "evaluate",
                    }
                )
            )
        likelihood = value if target == sparsities[-1] else 0.5
        rows.append(Row(**about, split="test", metric="nll", value=likelihood, n=ASKED))
        rows.append(Row(**about, split="", metric="parameters", value=1000.0 * (1 - target / 2)))
        rows.append(Row(**about, split="", metric="tokens_per_second", value=2500.0, deterministic=False))

    stage("prepare", 0.0)
    evaluate(0.0)
    for number, target in enumerate(sparsities):
        gone = round(target * UNITS)
        removed = {"mlp_neurons": [gone, gone - 1]}
        index = stage("prune", target, removed=removed, dense={"mlp_neurons": [UNITS] * LAYERS})
        tables[SCORES] += [
            pandas.DataFrame(
                {
                    "stage_index": index,
                    "stage": "prune",
                    "layer": layer,
                    "low": [0.0, 1.0],
                    "high": [1.0, 2.5],
                    "units": [gone, UNITS - gone],
                    "removed": [gone, 0],
                }
            )
            for layer in range(LAYERS)
        ]
        evaluate(target)
        index = stage("recover", target, **({"first_step": number * steps} if loss != "none" else {}))
        if loss != "none":
            course = [2.0 / step + 0.01 * seed for step in range(1, steps)] + [value]
            tables[TRAINING].append(
                pandas.DataFrame(
                    {
                        "step": range(1, steps + 1),
                        "loss": numpy.array(course, dtype=float),
                        "lr": 0.001,
                        "grad_norm": 1.0,
                        "examples": range(8, 8 * steps + 1, 8),
                        "stage_index": index,
                        "stage": "recover",
                    }
                )
            )
        if error is None or target != sparsities[-1]:
            evaluate(target)
    for name, parts in tables.items():
        if parts:
            pandas.concat(parts, ignore_index=True).to_parquet(folder / name, index=False)
    if asked:
        path = folder.parent / QUESTIONS / "abcd1234.parquet"
        path.parent.mkdir(exist_ok=True)
        pandas.DataFrame(
            [
                {"split": split, "id": f"{split}{each}", "question": f"Is it {each}?", "choices": CHOICES}
                for split in ("test", "selection", "preparation", "recovery")
                for each in range(ASKED)
            ]
        ).to_parquet(path, index=False)
    if checkpoint:
        (folder / CHECKPOINT).mkdir()
        (folder / CHECKPOINT / "config.json").write_text('{"model_type": "olmo2"}')
        (folder / CHECKPOINT / "model.safetensors").write_bytes(bytes(range(256)))
    Record(
        run_id=run_id,
        sweep=sweep,
        status="finished" if error is None else "failed",
        error=None if error is None else f"{error}\n\nTraceback (most recent call last):\n  ...\n",
        config={
            "sparsity": sparsities[-1],
            "seed": seed,
            "save_model": checkpoint,
            "model": {"_target_": "Olmo", "layers": LAYERS},
            "task": {"_target_": "Facts", "train_size": 64},
            "pruner": {"criterion": {"_target_": "L2"}, "structure": {"_target_": "MLP"}},
            "schedule": {"_target_": "Schedule", "steps": len(sparsities)},
            "pipeline": {"repeat": ["prune", "evaluate", "recover", "evaluate"]},
            "loss": {"_target_": loss, "temperature": 2.0},
            "recovery": {"_target_": "Training", "steps": steps, "betas": [0.9, 0.95]},
            "tracker": {"_target_": "regraft.tracking.wandb.log.Wandb", "project": PROJECT, **tracker},
            "runtime": {"threads": 1},
        },
        choices={
            "model": "tiny_olmo2",
            "task": "facts",
            "pruner": "mlp",
            "pruner/criterion": "l2",
            "schedule": "one_shot" if len(sparsities) == 1 else "iterative",
            "loss": loss,
            "tracker": "wandb",
        },
        environment={"commit": f"{COMMIT}+", "peak_memory_bytes": 123456, "device": "cpu"},
        stages=stages,
        rows=rows,
    ).save(folder)
    return folder


def begun(record: Record) -> Record:
    """The record as it is when the run starts."""
    bare = {key: value for key, value in record.environment.items() if key != "peak_memory_bytes"}
    return replace(record, stages=[], rows=[], environment=bare, status="failed", error=None)


def mirror(folder: Path, tracker: Wandb, stop_after: int | None = None) -> None:
    """Tell `tracker` the run in `folder`; stopped after so many calls if that is given."""
    record = Record.load(folder)
    log = tracker.start(info(record, folder))
    if stop_after is None:
        replay(record, folder, log)
        return
    for number, call in enumerate(calls(record, folder)):
        if number == stop_after:
            log.finish(None)
            return
        call(log)
    raise AssertionError(f"the run has only {number + 1} calls")


def calls(record: Record, folder: Path) -> Iterator[Callable[[Any], None]]:
    """The calls of a log that tell the run, in order, but for the last."""
    told: list[Callable[[Any], None]] = []

    class Taken:
        def step(self, *arguments: Any) -> None:
            told.append(lambda log: log.step(*arguments))

        def stage(self, *arguments: Any) -> None:
            told.append(lambda log: log.stage(*arguments))

        def finish(self, _: Any) -> None: ...

    replay(record, folder, Taken())  # type: ignore[arg-type]
    yield from told


def wandb_path(folder: Path, project: str = PROJECT) -> str:
    """Of the W&B run that mirrors the run in `folder`."""
    return f"{ENTITY}/{project}/{keys.wandb_id(folder.name, folder.parent.name)}"


def on_disk(folder: Path) -> dict[str, bytes]:
    """What the record artifact of the run in `folder` has to hold."""
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".json", ".parquet")}
    for path in (folder.parent / QUESTIONS).glob("*.parquet"):
        found["questions.parquet"] = path.read_bytes()
    return found


def expected_history(folder: Path, log_every: int = 1) -> dict[int, dict[str, float]]:
    """The numbers of each step of the history, worked out from record.json and training.parquet alone."""
    plain = json.loads((folder / "record.json").read_text())
    training = pandas.read_parquet(folder / TRAINING) if (folder / TRAINING).is_file() else None
    history: dict[int, dict[str, float]] = {}
    taken = 0
    for stage in plain["stages"]:
        index = stage["index"]
        if stage["stage"] == "recover" and training is not None:
            for line in training[training["stage_index"] == index].to_dict("records"):
                taken += 1
                if taken % log_every == 0:
                    history[taken + index] = {"recover/step": taken} | {
                        f"recover/{name}": line[name] for name in ("loss", "lr", "grad_norm", "examples")
                    }
        if stage["stage"] == "prune":
            gone, there = stage["details"]["removed"]["mlp_neurons"], stage["details"]["dense"]["mlp_neurons"]
            history[taken + index] = {"stage": index} | {
                f"layers/mlp_neurons_{layer:02}": gone[layer] / there[layer] for layer in range(len(there))
            }
        rows = [row for row in plain["rows"] if row["stage_index"] == index]
        if rows:
            history[taken + index] = {
                "stage": index,
                "recover/step": taken,
                "sparsity/target": rows[0]["target_sparsity"],
                "sparsity/block": rows[0]["block_sparsity"],
                "sparsity/model": rows[0]["model_sparsity"],
            } | {
                f"{row['split']}/{row['metric']}".strip("/"): row["value"]
                for row in rows
                if row["split"] in ("", "test", "selection") and row["value"] is not None
            }
    return history
