"""What a run will do, and the key of each stage, from the config alone (no torch).

Each key hashes the key of the model that enters and what decides this stage, nothing else. So stages that two runs
share have one key and are done once; what changes nothing (a sparsity of 0, no recovery) hands the key on unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from regraft.cache import digest
from regraft.config.components import described, identified
from regraft.recovery.sources.asked import Asked
from regraft.stages.pipeline import Pipeline, StageName

if TYPE_CHECKING:
    from regraft.config.schema import RunConfig

TaskSplit = Literal["preparation", "recovery", "evaluation"]
"""Questions that a task has an identity for."""
FORMAT = 1
"""Raise when the meaning of a stage changes, so that nothing made before is taken for the same."""


@dataclass(frozen=True, kw_only=True)
class PlannedStage:
    """One stage of a run."""

    index: int
    name: str
    key: str
    """Names the stage's outcome."""
    model_before: str
    """Key of the model that enters."""
    model_after: str
    """Key of the model that leaves."""
    target_sparsity: float
    """Sparsity asked for so far."""
    first_share: float = 0.0
    """Recover: where in the run's recovery steps this stage begins, as a share."""
    last_share: float = 1.0
    """Recover: where it ends."""
    whole_course: bool = False
    """Recover: whether the learning rate's course is laid over all of the run's recovery steps, of which this stage
    takes its part, and not over the stage's own."""
    earlier_share: float = 0.0
    """Recover: the steps that the run has trained before, as a share; above 1 where it trains again and again."""
    anchor: str = ""
    """Rewind: key of the model whose weights the survivors get back."""
    teacher: str = ""
    """Recover: key of the model that left the recovery before, if it teaches; the dense one's before the first."""
    draw: int = 0
    """Initialise: how many times the run has drawn weights before, so that no draw is made twice."""


def plan(config: RunConfig) -> tuple[PlannedStage, ...]:
    """The stages of a run in order."""
    stages: list[PlannedStage] = []
    model = ""
    dense = ""

    def add(name: str, key: str, **fields: Any) -> None:
        nonlocal model
        after = fields.pop("model_after", model if name == "evaluate" else key)
        fields = {"target_sparsity": 0.0} | fields
        stages.append(
            PlannedStage(index=len(stages), name=name, key=key, model_before=model, model_after=after, **fields)
        )
        model = after

    if config.evaluate is not None:
        if config.evaluate.run is not None:
            add("prepare", _prepare_key(config))
            dense = model
            add("evaluate", dense_evaluate_key(config, dense))
        target = 0.0 if config.evaluate.run is None else config.sparsity
        add("load", digest(config.evaluate.identity()), target_sparsity=target)
        add("evaluate", evaluate_key(config, model, dense), target_sparsity=target)
        return tuple(stages)
    pipeline = config.pipeline
    reached, draws, start, trained = 0.0, 0, 0.0, 0.0
    # of the recovery before
    recovered = ""

    def follow(name: StageName, target: float, share: float) -> None:
        """One stage after the dense model's evaluation; its recovery takes `share` of the steps, from `start`."""
        nonlocal reached, draws, start, trained, recovered
        if name == "prune":
            reached = target
            add(name, _prune_key(config, model, dense, target), target_sparsity=reached)
        elif name == "initialise":
            key = digest({"model": model, "initialise": config.seed, "draw": draws})
            add(name, key, target_sparsity=reached, draw=draws)
            draws, start = draws + 1, 0.0
        elif name == "rewind":
            key = digest({"model": model, "rewind": anchor})
            # nothing is missing: what leaves is the anchor itself
            add(name, key, target_sparsity=reached, anchor=anchor, model_after=key if reached else anchor)
            start = pipeline.rewind_to
        elif name == "recover":
            span = (start, 1.0 if pipeline.rewinds and share == 1 else start + share)
            whole = pipeline.rewinds and span != (0.0, 1.0)
            previous = recovered or dense if _reads_previous(config) else ""
            add(
                name,
                _recover_key(config, model, dense, span, whole, previous),
                target_sparsity=reached,
                first_share=span[0],
                last_share=span[1],
                whole_course=whole,
                earlier_share=trained,
                teacher=previous,
            )
            start, trained = span[1], trained + (span[1] - span[0] if pipeline.rewinds else share)
            recovered = model
        elif name == "instruct":
            add(name, _instruct_key(config, model, dense), target_sparsity=reached)
        else:
            add(name, evaluate_key(config, model, dense), target_sparsity=reached)

    for name in pipeline.before:
        if name == "initialise":
            follow(name, 0.0, 0.0)
            continue
        add(name, _prepare_key(config) if name == "prepare" else dense_evaluate_key(config, model))
        dense = model
    if pipeline.rewind_to > 0:
        follow("recover", 0.0, pipeline.rewind_to)
    anchor = model
    targets = config.schedule.targets(config.sparsity)
    shares = config.schedule.share_of_recovery(config.sparsity)
    for target, share in zip(targets, shares, strict=True):
        for name in pipeline.repeat:
            follow(name, target, 1.0 if pipeline.rewinds else share)
    for name in pipeline.after * pipeline.times:
        follow(name, config.sparsity, 1.0)
    return tuple(stages)


def run_id(config: RunConfig) -> str:
    """Ten hex digits that name a run.

    The last key alone would give two points of a grid one name when they come to the same (random and L2 at sparsity
    0, two seeds of a run without a random part). So sparsity, seed, pruner, schedule, loss and task are hashed with it:
    each point of such a grid has a record, and equal work is still done once. What is left out, such as the learning
    rate of a run that trains nothing, makes no second point.
    """
    asked = {
        "last": plan(config)[-1].key,
        "sparsity": config.sparsity,
        "seed": config.seed,
        "pruner": described(config.pruner),
        "schedule": described(config.schedule),
        "loss": described(config.loss),
        "task": _task(config, "recovery"),
    }
    if config.pipeline != Pipeline():
        asked["pipeline"] = described(config.pipeline)
    return digest(asked, 10)


def _task(config: RunConfig, split: TaskSplit) -> dict[str, Any]:
    return identified(config.task, config.task.identity(split))


def _prepare_key(config: RunConfig) -> str:
    identity: dict[str, Any] = {"format": FORMAT, "model": identified(config.model, config.model.identity())}
    if config.preparation.trains:
        identity |= {"preparation": described(config.preparation), "task": _task(config, "preparation")}
    return digest(identity)


def _prune_key(config: RunConfig, model: str, dense: str, target: float) -> str:
    if target == 0:
        return model
    needs = config.pruner.needs
    identity: dict[str, Any] = {"model": model, "pruner": described(config.pruner), "sparsity": target}
    if config.pruner.uses_seed or "training" in needs:
        identity["seed"] = config.seed
    if needs:
        identity |= {"calibration": described(config.calibration), "task": _task(config, "recovery")}
    if config.pruner.budget.reads_length:
        split = config.evaluation.splits[0]
        read: TaskSplit = split if split in ("preparation", "recovery") else "evaluation"
        identity["length"] = [split, config.evaluation.questions, _task(config, read)]
    if config.pruner.budget.tries and target == config.sparsity:
        identity["last"] = True
    if "teacher_logits" in needs:
        identity["dense"] = dense
    if "training" in needs:
        identity["recovery"] = described(config.recovery)
    return digest(identity)


def _teaches(config: RunConfig) -> bool:
    """Whether a recovery asks the teacher anything."""
    return config.loss.trains and (_answers(config) or config.batches.needs_writer)


def _answers(config: RunConfig) -> bool:
    """Whether the teacher says anything to batches, and does not write alone."""
    return "teacher_logits" in config.loss.needs


def _reads_previous(config: RunConfig) -> bool:
    return _teaches(config) and any(teacher.reads_previous for teacher in config.teacher.members())


def _recover_key(
    config: RunConfig, model: str, dense: str, span: tuple[float, float], whole_course: bool, previous: str
) -> str:
    if not config.loss.trains:
        return model
    identity: dict[str, Any] = {
        "model": model,
        "loss": described(config.loss),
        "recovery": described(config.recovery),
        "task": _task(config, "recovery"),
        "seed": config.seed,
        "span": [round(share, 9) for share in span],
    }
    if _answers(config):
        identity |= {"teacher": described(config.teacher), "dense": dense}
        if previous:
            identity["previous"] = previous
    elif _teaches(config):
        # what is kept of its answers matters to nobody, nor does a dense model that writes nothing
        identity["writer"] = config.teacher.writer_identity(dense, previous)
    if config.batches != Asked():
        identity["batches"] = described(config.batches)
    if whole_course:
        identity["course"] = "whole"
    if config.schedule.during_recovery:
        identity |= {"schedule": described(config.schedule), "structure": described(config.pruner.structures)}
    return digest(identity)


def _instruct_key(config: RunConfig, model: str, dense: str) -> str:
    # texts are compared as the evaluation compares models, whatever else it asks
    measured = replace(config.evaluation, splits=("test",), questions=None, latency=False)
    return digest(
        {
            "model": model,
            "dense": dense,
            "instructions": described(config.pipeline.instructions),
            "evaluation": described(measured),
            "preparation": _task(config, "preparation"),
            "task": _task(config, "recovery"),
            "seed": config.seed,
        }
    )


def dense_evaluate_key(config: RunConfig, dense: str) -> str:
    """The key of evaluating the dense model: on the questions that it and the student learn from as well."""
    learned = [_task(config, "preparation"), _task(config, "recovery")]
    return digest({"evaluate": evaluate_key(config, dense, dense), "learned": learned})


def evaluate_key(config: RunConfig, model: str, dense: str) -> str:
    """The key of evaluating the model named `model`, compared with the dense model named `dense`."""
    identity = {
        "model": model,
        "evaluation": described(config.evaluation),
        "task": _task(config, "evaluation"),
        "dense": dense or model,
    }
    if "recovery" in config.evaluation.splits:
        identity["recovery"] = _task(config, "recovery")
    if "preparation" in config.evaluation.splits:
        identity["preparation"] = _task(config, "preparation")
    return digest(identity)


def questions_key(config: RunConfig) -> str:
    """Names the questions that the run is asked, for people who want to read them."""
    asked: dict[str, Any] = {"task": _task(config, "evaluation"), "splits": config.evaluation.splits}
    if config.evaluation.questions is not None:
        asked["questions"] = config.evaluation.questions
    return digest(asked)
