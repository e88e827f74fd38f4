"""Which choices go together: one pure function of the typed config."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from regraft.config.ranges import ConfigError
from regraft.interfaces import Loss

if TYPE_CHECKING:
    from regraft.config.schema import RunConfig
    from regraft.interfaces import Component, Criterion, Structure
    from regraft.pruning.calibration import CalibrationQuestions
    from regraft.pruning.pruner import Pruner

SAME = 1e-4
"""Sparsities nearer than this are one: 0.6667 is what 1:3 leaves out."""


def check(config: RunConfig) -> None:
    """Refuse choices that cannot work together.

    Raises:
        ConfigError: Naming both choices and what to choose instead.
    """
    _check_labels(config)
    _check_terms("loss", config.loss)
    _check_teaching(config)
    for pruner in config.pruner.pruners:
        _check_losses("pruner.criterion", pruner.criterion, config.calibration)
        _check_losses("pruner.allocation", pruner.allocation, config.calibration)
        _check_pruner(pruner, config)
    _check_budget(config)
    _check_training(config)
    _check_instructing(config)
    _check_memory(config)
    _check_spending(config)
    _check_export(config)
    if "recover" in config.pipeline.repeat and "prune" not in config.pipeline.repeat and config.sparsity > 0:
        raise ConfigError(
            f"sparsity={config.sparsity}: must be 0 with a pipeline that prunes nothing. Choose pipeline=prune_recover."
        )


def _check_labels(config: RunConfig) -> None:
    task = config.task
    if not task.labelled:
        if "labels" in config.loss.needs:
            raise ConfigError(
                f"loss needs labels, but the recovery questions of task {task.name} have none. "
                "Choose a label-free loss, such as loss=kl."
            )
        if config.preparation.trains:
            raise ConfigError(
                f"preparation fine-tunes on labels, but the questions of task {task.name} have none. "
                "Choose preparation=none."
            )
        if "labels" in config.pruner.needs:
            raise ConfigError(
                f"pruner needs labels, but the recovery questions of task {task.name} have none. "
                "Choose a label-free criterion, such as pruner/criterion=l2."
            )
    if config.preparation.trains and getattr(task, "preparation_size", None) == 0:
        raise ConfigError(
            "task.preparation_size=0: must be null or at least 1 with preparation=fine_tune, which trains on them."
        )
    if config.loss.reads == "gold" and "labels" not in config.loss.needs:
        raise ConfigError(
            "loss.reads=gold: must be question, choices or drawn_choice for a loss that declares no need of labels."
        )


def _check_teaching(config: RunConfig) -> None:
    """Teacher, batches and loss have what each asks of the others."""
    teacher, batches, loss = config.teacher, config.batches, config.loss
    if not loss.trains:
        return
    chosen = type(teacher).__name__
    if missing := loss.asks_teacher - teacher.gives:
        raise ConfigError(
            f"teacher={chosen} gives no {' or '.join(sorted(missing))}, which loss={type(loss).__name__} needs. "
            "Choose teacher=dense."
        )
    before = [member for member in teacher.members() if member.asks_before]
    if "teacher_logits" in loss.needs and before and not batches.known:
        raise ConfigError(
            f"teacher={type(before[0]).__name__} is asked before the training, and batches={type(batches).__name__} "
            "are written while it goes. Choose teacher=dense."
        )
    if batches.needs_writer and not teacher.writes:
        raise ConfigError(
            f"batches={type(batches).__name__} are written by the teacher, and teacher={chosen} is not one model. "
            "Choose teacher=dense."
        )
    _check_following(config)
    if "teacher_logits" in loss.needs and loss.rests and teacher.starts_as_student:
        raise ConfigError(
            f"loss={type(loss).__name__} is at rest where the student says what teacher={chosen} says, which starts as "
            "the student: nothing would train. Choose loss=ce_kl, or a teacher that starts elsewhere, such as "
            "teacher=dense."
        )
    recovery = config.recovery
    _check_parts("loss", loss, recovery.batch_size, recovery.accumulation)
    narrower = config.sparsity > 0 and any(one.structure.kind == "hidden" for one in config.pruner.pruners)
    if loss.same_width and narrower and "prune" in config.pipeline.repeat:
        raise ConfigError(
            f"loss={type(loss).__name__} compares hidden states channel by channel, and pruner/structure=hidden takes "
            "channels out of the student alone. Choose projection=learned for its hints, or another loss."
        )
    if "labels" in loss.needs and not batches.labelled:
        raise ConfigError(
            f"batches={type(batches).__name__} hold no right answers, which loss={type(loss).__name__} needs. Choose a "
            "loss without labels, such as loss=kl."
        )
    _check_more(config)
    _check_written(config)
    _check_shown(config)


def _check_more(config: RunConfig) -> None:
    """Extra questions are others than the recovery's."""
    task = config.task
    wide = {"train_size": None, "subset": None, "selection_size": 0}
    for key, batches in (("batches", config.batches), ("batches.data", getattr(config.batches, "data", None))):
        extra: Any = getattr(batches, "extra", None)
        known = wide.keys() <= {field.name for field in dataclasses.fields(task)}  # type: ignore[arg-type]
        if type(extra) is not type(task) or not known or getattr(task, "train_size", 0) is not None:
            continue
        if dataclasses.replace(extra, **wide) == dataclasses.replace(task, **wide):  # type: ignore[type-var]
            raise ConfigError(
                f"{key}.extra={task.name}: must be another task than the run's own while task.train_size is null: "
                f"the recovery reads all of its questions already. Choose task.train_size=64, which leaves some, or "
                f"another task with task@{key}.extra=CHOICE."
            )


def _check_written(config: RunConfig) -> None:
    """What somebody wrote is read, by a loss that can use it."""
    batches, loss = config.batches, config.loss
    chosen = type(batches).__name__
    losses = [("loss", loss), *_every_loss("loss", loss)]
    mixed = getattr(batches, "teacher_mixed", 0.0)
    if mixed > 0 and all(each.drawn_with is None for _, each in losses):
        raise ConfigError(
            f"batches.teacher_mixed={mixed}: must be 0 with loss={type(loss).__name__}, which takes the texts for the "
            "student's own and does not correct for the teacher's share. Choose loss=minillm, or batches=on_policy "
            "for the student's texts alone."
        )
    for name, each in losses:
        if each.drawn_with is not None and each.drawn_with != batches.drawn_with:
            wanted = {"share": 1.0, "temperature": 1.0, "teacher_mixed": each.drawn_with}
            given = [f"batches.{key}={getattr(batches, key)}" for key in wanted if hasattr(batches, key)]
            raise ConfigError(
                f"{name}={type(each).__name__}: with alpha={each.drawn_with} it must be given texts that are all drawn "
                f"at temperature 1 with batches.teacher_mixed={each.drawn_with}, and here are "
                f"{', '.join(given) or f'batches={chosen}'}. Choose batches=minillm "
                f"{' '.join(f'batches.{key}={value}' for key, value in wanted.items())}."
            )
        if not batches.written:
            continue
        if each.reads == "question":
            raise ConfigError(
                f"{name}.reads=question: must be choices with batches={chosen}: nothing that is written would be "
                f"read. Choose {name}.reads=choices."
            )
        if each.compares_choices:
            raise ConfigError(
                f"{name}={type(each).__name__} compares the choices of a question, and batches={chosen} hold one text "
                "behind it. Choose loss=kl or batches=questions."
            )
    if batches.written and loss.ends_with_question:
        raise ConfigError(
            f"loss={type(loss).__name__} looks at questions alone, and batches={chosen} write behind them: nothing "
            "that is written would count. Choose batches=questions or another loss, such as kl."
        )
    if batches.follows and config.runtime.shard:
        raise ConfigError(
            f"runtime.shard=true: must be false with batches={chosen}, which the whole student writes. Choose "
            "runtime.shard=false."
        )


def _check_shown(config: RunConfig) -> None:
    """There are examples for a teacher that is shown some, and the teacher is asked."""
    batches, loss, task = config.batches, config.loss, config.task
    if not batches.shows:
        return
    chosen = type(batches).__name__
    if "teacher_logits" not in loss.needs:
        raise ConfigError(
            f"batches={chosen} show the teacher examples, and loss={type(loss).__name__} asks no teacher. "
            "Choose loss=kl."
        )
    if "attentions" in loss.asks_teacher:
        raise ConfigError(
            f"batches={chosen} show the teacher examples that it can look at and the student cannot, and "
            f"loss={type(loss).__name__} compares where they look. Choose loss=kl or batches=questions."
        )
    size = getattr(task, "preparation_size", None)
    if not task.labelled or (size is not None and size < batches.shows):
        there = 0 if not task.labelled else size
        raise ConfigError(
            f"batches={chosen} take {batches.shows} examples from the preparation questions, of which task {task.name} "
            f"keeps {there}. Choose batches=questions, or raise task.preparation_size of a task with answers."
        )
    if not all(getattr(each, "disjoint", True) for each in getattr(task, "tasks", {"": task}).values()):
        raise ConfigError(
            f"task.disjoint=false: must be true with batches={chosen}: the examples come from the preparation "
            "questions, and the recovery would ask them behind their own answers. Choose task.disjoint=true."
        )


def _every_loss(key: str, component: Component) -> Iterator[tuple[str, Loss]]:
    """The losses that a component holds, at any depth."""
    for name, loss in _losses(key, component):
        yield name, loss
        yield from _every_loss(name, loss)


def _check_following(config: RunConfig) -> None:
    """Teachers that follow the student, go back to the dense model's weights, or answer some tasks alone can do so."""
    if "teacher_logits" not in config.loss.needs:
        return
    tasks = frozenset(getattr(config.task, "tasks", ()))
    for teacher in config.teacher.members():
        chosen = type(teacher).__name__
        if teacher.follows and config.recovery.lora is not None:
            raise ConfigError(
                f"teacher={chosen} averages the student's weights, and with recovery.lora those that train are "
                "adapters, whose average is not that of the weights. Choose recovery.lora=null."
            )
        if teacher.follows and config.runtime.shard:
            raise ConfigError(
                f"runtime.shard=true: must be false with teacher={chosen}, which averages whole weights. Choose "
                "runtime.shard=false."
            )
        cut = [pruner.structure.name for pruner in config.pruner.pruners if pruner.structure.kind != "weights"]
        if teacher.shaped_as_dense and config.sparsity > 0 and cut:
            raise ConfigError(
                f"teacher={chosen} starts as the dense model, of whose shapes the student has lost {cut[0]}: no "
                "average of both is a model. Choose teacher.start=student or pruner/structure=weights."
            )
        if teacher.tasks is not None and (not tasks or tasks - teacher.tasks):
            found = ", ".join(sorted(tasks)) or f"task={config.task.name} is one"
            raise ConfigError(
                f"teacher={chosen} answers by task ({', '.join(sorted(teacher.tasks))}), and the tasks are others: "
                f"{found}. Choose task=union with a teacher named as each of its tasks, or "
                "teacher.weighting=confidence."
            )
        if teacher.tasks is not None and not config.batches.of_task:
            raise ConfigError(
                f"teacher={chosen} answers by task, and batches={type(config.batches).__name__} hold texts of none of "
                "them. Choose batches=questions or teacher.weighting=confidence."
            )


def _check_parts(name: str, loss: Loss, batch_size: int, accumulation: int = 1, *, key: str = "recovery") -> None:
    """A loss that compares questions finds enough of them in each forward pass."""
    size = -(-batch_size // accumulation)
    least = batch_size % size or size
    if least < loss.compares_questions:
        cut = "" if accumulation == 1 else f" {key}.accumulation={accumulation}"
        raise ConfigError(
            f"{key}.batch_size={batch_size}{cut}: a forward pass must have at least {loss.compares_questions} "
            f"questions with {name}={type(loss).__name__}, which compares them; one has {least}. Choose a larger "
            f"{key}.batch_size{' or a smaller accumulation' if cut else ''}."
        )


def check_processes(config: RunConfig, count: int) -> None:
    """Refuse what several processes cannot do together: they are started apart from the config.

    Args:
        config: Of the run.
        count: How many do it.

    Raises:
        ConfigError: Naming the choice and what to do instead.
    """
    loss = config.loss
    if count == 1 or config.evaluate is not None or not loss.trains:
        return
    chosen = type(loss).__name__
    if loss.compares_questions > 1:
        raise ConfigError(
            f"loss={chosen} compares the questions of a step, of which each of {count} processes sees its own alone. "
            "Start one process, or choose another loss, such as loss=kl."
        )
    if loss.learning:
        raise ConfigError(
            f"loss={chosen} learns a projection, which {count} processes do not share. Start one process, or choose a "
            "loss that learns nothing."
        )


def _check_losses(key: str, component: Component, calibration: CalibrationQuestions) -> None:
    """What a criterion or an allocation measures must be something, and what it reads must be there."""
    held = dict(_losses(key, component))
    _check_terms(key, component)
    _check_chance(key, component)
    for name, loss in _every_loss(key, component):
        _check_parts(name, loss, calibration.batch_size, key="calibration")
        if loss.drawn_with is not None:
            raise ConfigError(
                f"{name}={type(loss).__name__} must be given texts that were drawn for it, and calibration reads the "
                "questions. Choose reverse_kl there."
            )
    # losses of one component read one text, with the answers that any of them needs
    labelled = any("labels" in loss.needs for loss in held.values())
    for name, loss in held.items():
        if loss.reads == "gold" and not labelled:
            raise ConfigError(
                f"{name}.reads=gold: must be question, choices or drawn_choice for a loss that declares no need of "
                "labels. Choose choices."
            )


def _check_terms(key: str, component: Component) -> None:
    """Losses inside a component are there to be computed."""
    for name, loss in _losses(key, component):
        if not loss.trains:
            raise ConfigError(
                f"{name}={type(loss).__name__}: must be a loss that measures something. Choose ce or kl there: "
                "loss=none is for a recovery that trains nothing."
            )
        if loss.learning and not key.startswith("loss"):
            raise ConfigError(
                f"{name}={type(loss).__name__} learns a projection, which the recovery alone trains. Choose "
                "projection=identity, or another loss."
            )
        _check_terms(name, loss)


def _check_chance(key: str, component: Component) -> None:
    """Scores do not depend on what a loss draws."""
    for name, loss in _losses(key, component):
        if loss.uses_seed:
            raise ConfigError(
                f"{name}={type(loss).__name__}: must be a loss without chance: it draws tokens anew whenever it is "
                "asked, and units would be compared by what it drew. Choose kl there."
            )
        _check_chance(name, loss)


def _losses(key: str, component: Component) -> Iterator[tuple[str, Loss]]:
    """The key of each loss that a component holds, and the loss."""
    for field in dataclasses.fields(component):  # type: ignore[arg-type]
        value: Any = getattr(component, field.name)
        name = f"{key}.{field.name}"
        held = {f"{name}.{own}": item for own, item in value.items()} if isinstance(value, Mapping) else {name: value}
        for own, item in held.items():
            if isinstance(item, Loss):
                yield own, item


def _check_pruner(pruner: Pruner, config: RunConfig) -> None:
    criterion, structure, allocation = pruner.criterion, pruner.structure, pruner.allocation
    if structure.kind not in criterion.kinds:
        fits = ", ".join(sorted(criterion.kinds))
        raise ConfigError(
            f"pruner: {type(criterion).__name__} knows {fits}, and the units of {structure.name} are "
            f"{structure.kind}. Choose another pruner/criterion or pruner/structure."
        )
    _check_projections(criterion, structure)
    for name, loss in _every_loss("pruner.criterion", criterion):
        if asked := loss.needs - criterion.takes:
            raise ConfigError(
                f"{name}={type(loss).__name__} asks for {' and '.join(sorted(asked))}, and "
                f"{type(criterion).__name__} measures a loss of logits alone. Choose ce or kl there."
            )
    if structure.kind not in allocation.kinds:
        raise ConfigError(
            f"pruner: {type(allocation).__name__} shares out {', '.join(sorted(allocation.kinds))}, and the units of "
            f"{structure.name} are {structure.kind}. Choose another pruner/allocation or pruner/structure."
        )
    if not allocation.fits(structure):
        raise ConfigError(
            f"pruner.allocation={type(allocation).__name__}: shares units out among groups, but "
            f"{type(structure).__name__} has one group, or a pattern that fixes the share of each. "
            "Choose pruner/allocation=layerwise."
        )
    only = structure.only_sparsity
    targets = config.schedule.targets(config.sparsity)
    if only is not None and any(target != 0 and abs(target - only) > SAME for target in targets):
        steps = "" if len(targets) == 1 else f", in steps of {', '.join(f'{target:g}' for target in targets)}"
        raise ConfigError(
            f"sparsity={config.sparsity}{steps}: must be 0 or {round(only, 4):g} with "
            f"{type(structure).__name__}, whose pattern says how many weights stay. "
            f"Choose sparsity={round(only, 4):g} and schedule=one_shot."
        )
    budget = config.pruner.budget
    if only is not None and budget.tries:
        raise ConfigError(
            f"pruner: {type(budget).__name__} looks for the share of units that meets it, but the pattern of "
            f"{type(structure).__name__} knows {round(only, 4):g} alone. Choose pruner/budget=units."
        )
    if criterion.reads_sparsity and budget.tries:
        raise ConfigError(
            f"pruner: {type(criterion).__name__} scores for a share of units that it must know, but "
            f"{type(budget).__name__} looks for that share by the scores. Choose pruner/budget=units or another "
            "pruner/criterion."
        )
    if pruner.in_turn and (allocation.compares_scores or budget.tries):
        chosen = type(allocation if allocation.compares_scores else budget)
        raise ConfigError(
            f"pruner: {chosen.__name__} compares the scores of all groups, but {type(criterion).__name__} scores a "
            "layer after those before it are pruned. Choose pruner/allocation=layerwise and pruner/budget=units, or "
            "pruner.criterion.sequential=false."
        )
    if pruner.shuffled and criterion.chooses:
        raise ConfigError(
            f"pruner.shuffled=true: must be false with {type(criterion).__name__}, which chooses weights while it "
            "changes them. Shuffle another criterion, such as pruner/criterion=magnitude."
        )


def _check_training(config: RunConfig) -> None:
    pipeline, schedule = config.pipeline, config.schedule
    if len(schedule.targets(config.sparsity)) > 1 and "initialise" in pipeline.repeat:
        raise ConfigError(
            "pipeline draws the weights anew at each step of the schedule, so that all but the last recovery would be "
            "lost. Choose schedule=one_shot."
        )
    draws = "initialise" in (*pipeline.before, *pipeline.repeat, *pipeline.after)
    if draws and not config.loss.trains:
        raise ConfigError(
            f"loss={type(config.loss).__name__} trains nothing, and the pipeline draws the weights anew: what is "
            "measured would be random weights. Choose loss=ce or pipeline=prune_recover."
        )
    if config.recovery.lora is not None and draws:
        raise ConfigError(
            "recovery.lora: must be null with a pipeline that draws the weights anew: adapters leave them as they are "
            "drawn. Choose recovery.lora=null."
        )
    if not schedule.during_recovery:
        return
    stages = (*pipeline.repeat, *pipeline.after)
    if not config.loss.trains:
        raise ConfigError(
            f"schedule={type(schedule).__name__} moves masks while the model trains, and with "
            f"loss={type(config.loss).__name__} nothing trains. Choose loss=ce or schedule=one_shot."
        )
    if "prune" not in stages or "recover" not in stages[stages.index("prune") :]:
        raise ConfigError(
            f"schedule={type(schedule).__name__} moves masks while the model trains, and the pipeline has no recover "
            "after prune. Choose pipeline=prune_recover or schedule=one_shot."
        )
    if config.recovery.lora is not None:
        raise ConfigError(
            f"schedule={type(schedule).__name__} grows weights while the model trains, and with recovery.lora they are "
            "frozen. Choose recovery.lora=null."
        )
    for pruner in config.pruner.pruners:
        masked = pruner.structure.kind == "weights"
        if not masked or pruner.structure.even:
            why = "its pattern would be lost" if masked else "it has none: its units are cut out"
            raise ConfigError(
                f"schedule={type(schedule).__name__} moves masks while the model trains, and of "
                f"{pruner.structure.name} {why}. Choose pruner/structure=weights."
            )
    if config.runtime.shard:
        raise ConfigError(
            f"runtime.shard=true: must be false with schedule={type(schedule).__name__}, which ranks whole matrices."
        )


def _check_instructing(config: RunConfig) -> None:
    """Nobody takes a run that only looks for a prompt for one that trained."""
    pipeline, loss = config.pipeline, config.loss
    if "instruct" in pipeline.after and "recover" not in (*pipeline.repeat, *pipeline.after) and loss.trains:
        raise ConfigError(
            f"loss={type(loss).__name__} trains, and the pipeline has no recover: it looks for a prompt. Choose "
            "loss=none, or pipeline.repeat=[prune,evaluate,recover,evaluate] to do both."
        )


def _check_memory(config: RunConfig) -> None:
    """What saves memory in the recovery fits what is trained there."""
    recovery, pipeline = config.recovery, config.pipeline
    if not config.loss.trains:
        return
    frozen = list(recovery.frozen)
    if frozen and recovery.lora is not None:
        raise ConfigError(
            f"recovery.frozen={frozen}: must be [] with recovery.lora, which leaves embeddings and head as they are. "
            "Choose recovery.frozen=[]."
        )
    if frozen and "initialise" in (*pipeline.before, *pipeline.repeat, *pipeline.after):
        raise ConfigError(
            f"recovery.frozen={frozen}: must be [] with a pipeline that draws the weights anew: they would stay as "
            "they are drawn. Choose recovery.frozen=[]."
        )
    if recovery.gradient_checkpointing and "attentions" in config.loss.needs:
        raise ConfigError(
            f"recovery.gradient_checkpointing=true: must be false with loss={type(config.loss).__name__}, which looks "
            "at attention inside the layers. Choose recovery.accumulation to save memory."
        )
    for key, chosen in (
        ("optimizer=adamw_8bit", recovery.optimizer == "adamw_8bit"),
        ("gradient_checkpointing=true", recovery.gradient_checkpointing),
    ):
        if chosen and config.runtime.shard:
            raise ConfigError(
                f"runtime.shard=true: must be false with recovery.{key}, which works on whole tensors. Choose "
                "runtime.shard=false, or the recovery's default."
            )


def _check_spending(config: RunConfig) -> None:
    """A budget ends a training whose texts are known."""
    recovery, pipeline, batches = config.recovery, config.pipeline, config.batches
    if not (config.loss.trains and recovery.has_budget):
        return
    key, budget = recovery.budget
    if not batches.known:
        raise ConfigError(
            f"recovery.{key}={budget:g}: must be null with batches={type(batches).__name__}, whose texts are written "
            "while the training goes: what a step costs is not known before. Choose recovery.steps."
        )
    rounds = pipeline.repeat * len(config.schedule.targets(config.sparsity))
    if (pipeline.rewind_to > 0) + (rounds + pipeline.after * pipeline.times).count("recover") > 1:
        raise ConfigError(
            f"recovery.{key}={budget:g}: must be null with a run that recovers more than once: what it pays for is one "
            "recovery of one model. Choose recovery.steps, or schedule=one_shot with a pipeline that recovers once."
        )


def _check_budget(config: RunConfig) -> None:
    budget = config.pruner.budget
    chosen = f"pruner/budget={type(budget).__name__.lower()}"
    for pruner in config.pruner.pruners:
        structure, allocation = pruner.structure, pruner.allocation
        if structure.kind not in budget.kinds:
            raise ConfigError(
                f"{chosen}: must be a budget of which pruner/structure={structure.name} saves some: a model computes "
                f"as much without its {structure.kind}. Choose pruner/budget=units or parameters."
            )
        if budget.tries and allocation.searches:
            raise ConfigError(
                f"{chosen}: must be units with pruner.allocation={type(allocation).__name__}, which tries models out "
                "for one sparsity and cannot be asked about many. Choose pruner/budget=units or "
                "pruner/allocation=layerwise."
            )


def _check_export(config: RunConfig) -> None:
    prunes = config.evaluate is None and config.sparsity > 0 and "prune" in config.pipeline.repeat
    uneven = any(
        pruner.structure.kind in ("neurons", "heads") and not pruner.allocation.even for pruner in config.pruner.pruners
    )
    if config.save_model and prunes and uneven and not config.export.uneven:
        raise ConfigError(
            "save_model=true export=plain: must be export=padded (zeros up to the widest layer, loads anywhere) or "
            "export=remote_code (as small as the model, loads with trust_remote_code=True) with a pruner/allocation "
            "whose layers come to have different widths; pruner/allocation=layerwise gives them one."
        )
    needed = {
        "export": config.export.library if config.save_model else None,
        "recovery.lora": config.recovery.lora and config.recovery.lora.library,
    }
    for key, library in needed.items():
        if library and importlib.util.find_spec(library[0]) is None:
            raise ConfigError(f"{key}: needs the package {library[0]}: pip install 'regraft[{library[1]}]'")


def _check_projections(criterion: Criterion, structure: Structure) -> None:
    """Matrices that the criterion is told to look at are named as the structure names them."""
    given = list(getattr(criterion, "projections", None) or ())
    if unknown := [name for name in given if name not in structure.matrices]:
        raise ConfigError(
            f"pruner.criterion.projections={given}: must be among {', '.join(structure.matrices)}, which the units of "
            f"{structure.name} are made of, or null for all; not {', '.join(unknown)}."
        )
