"""Every composition of criterion, structure, allocation, schedule and loss: refused with a reason, or it runs."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from combinations import GROUPS, Combination, all_of, base, choices, components, composed, covering, put_together

from regraft.config.compatibility import check_processes
from regraft.config.ranges import ConfigError, Incompatible
from regraft.config.schema import RunConfig, load
from regraft.distillation.teachers.several import Several
from regraft.run import run
from regraft.tasks.union import Union

NEURONS, HEADS, HIDDEN, LAYERS, WEIGHTS, PATTERN = "mlp_neurons", "kv_groups", "hidden", "layers", "weights", "n_m"
EVERY = {NEURONS, HEADS, HIDDEN, LAYERS, WEIGHTS, PATTERN}
SINGLE = {WEIGHTS, PATTERN}
SCORES = {
    # what is known of weights alone, and of gradients, is known of whatever owns weights
    **dict.fromkeys(("random", "l1", "l2", "max_abs", "magnitude", "taylor"), EVERY),
    # what a unit says, as the linear map behind it hears it
    "activation": {NEURONS, HEADS, HIDDEN},
    "wanda": {NEURONS, HEADS, HIDDEN, *SINGLE},
    **dict.fromkeys(("flap", "gates", "kl_taylor"), {NEURONS, HEADS}),
    # how a layer moves the residual stream, or what the model is without it
    **dict.fromkeys(("block_influence", "angular_distance", "sleb", "alternate"), {LAYERS}),
    "sparsegpt": SINGLE,
    **dict.fromkeys(("snip", "grasp", "synflow"), {NEURONS, *SINGLE}),
    **dict.fromkeys(("movement", "soft_movement", "l1_regularised", "group_lasso"), {NEURONS, *SINGLE}),
}
"""Criterion -> structures whose units it can score, as its paper has it."""
ONE_LAYER_AFTER_THE_OTHER = {"wanda": {WEIGHTS, PATTERN}, "sparsegpt": {WEIGHTS, PATTERN}}
NEEDS_NO_SCORES = {"layerwise", "per_layer", "owl", "erk"}
"""Allocations that know how much goes before anything is scored."""
MOVES_MASKS = {"set", "rigl"}
IN_STEPS = {"iterative", "rounds"}
SEVERAL = ("teacher=several", "+teacher@teacher.teachers.a=dense")
BESIDE_EXITS = ("loss=ce_kl", "~loss.terms.ce", "~loss.weights.ce", "+loss@loss.terms.exits=exits")
CHANNEL_BY_CHANNEL = {"hints", "kl_hints", "distilbert"}
"""Losses that compare the hidden states of student and teacher."""
DRAWS_ANEW = {"from_scratch", "generations", "lottery_reinitialised", "lottery_ticket", "prune_at_initialisation"}
"""Pipelines in which weights are drawn that nothing but the recovery trains."""
TRAINS_NOTHING = {"prompt_distillation"}
OWN_BATCHES = {"minillm": "minillm"}
"""Loss -> the batches without which it is refused."""
WORLD = ("world.entities=12", "world.types=4", "world.relations=4", "test_relations=1")
SAME_WORLD = tuple(f"batches.extra.{setting}" for setting in WORLD)
SAME_WORLD_AS_DATA = tuple(f"batches.data.extra.{setting}" for setting in WORLD)
"""The task of these runs, as extra questions."""
NONE = "{_target_: regraft.distillation.losses.none.NoRecovery}"


def goes_together(combination: Combination) -> bool:
    """What the docs say, in other words than the code."""
    criterion, structure, allocation, schedule, loss = combination
    if structure not in SCORES[criterion]:
        return False
    if loss in OWN_BATCHES:
        return False  # it corrects for who wrote a text, and here the questions are read
    if structure in (HIDDEN, LAYERS, PATTERN) and allocation != "layerwise":
        return False  # nothing to share out: one group, or a pattern that says it all
    if allocation == "erk" and structure != WEIGHTS:
        return False  # densities by the shapes of matrices
    if structure == HIDDEN and loss in CHANNEL_BY_CHANNEL:
        return False  # the teacher has channels that the student lost
    if structure in ONE_LAYER_AFTER_THE_OTHER.get(criterion, ()) and allocation not in NEEDS_NO_SCORES:
        return False
    if schedule in MOVES_MASKS and (structure != WEIGHTS or loss == "none"):
        return False  # they move masks while the recovery trains
    return not (structure == PATTERN and schedule in IN_STEPS)


@pytest.fixture(scope="module")
def parts() -> dict[str, dict[str, Any]]:
    return {group: components(group) for group in GROUPS}


@pytest.fixture(scope="module")
def whole() -> RunConfig:
    return base()


def chosen(parts: dict[str, dict[str, Any]], combination: Combination) -> dict[str, Any]:
    return {group: parts[group][choice] for group, choice in zip(GROUPS, combination, strict=True)}


def test_the_table_knows_every_criterion() -> None:
    assert set(SCORES) == set(choices("pruner/criterion"))
    assert set(choices("pruner/structure")) == EVERY


def test_one_function_decides_every_composition(parts: dict[str, dict[str, Any]], whole: RunConfig) -> None:
    wrong: Counter[tuple[str, str]] = Counter()
    refused = 0
    every = all_of()
    for combination in every:
        try:
            put_together(whole, chosen(parts, combination))
        except Incompatible as error:
            refused += 1
            if goes_together(combination):
                wrong["refused", f"{combination[:4]}: {error}"] += 1
            # a reason, and the next step
            assert "Choose " in str(error) and len(str(error)) > 60, error
        else:
            if not goes_together(combination):
                wrong["let through", f"{combination[:4]}"] += 1
    assert not wrong, "\n".join(f"{what} {times} times: {which}" for (what, which), times in wrong.most_common(12))
    assert 0 < refused < len(every)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["pruner/criterion=sleb"], "SLEB knows layers, and the units of mlp_neurons are neurons"),
        (["pruner/structure=layers", "pruner/allocation=global"], "Layers has one group"),
        (["pruner/structure=n_m", "sparsity=0.3"], "sparsity=0.3: must be 0 or 0.5 with NM"),
        (["schedule=rigl"], "RigL moves masks while the model trains, and of mlp_neurons it has none"),
        (["schedule=rigl", "pruner/structure=n_m"], "of n_m its pattern would be lost"),
        (["schedule=set", "pruner=weights", "recovery=small_model_lora"], "lora"),
        (["pipeline=from_scratch", "schedule=iterative"], "Choose schedule=one_shot"),
        (["pruner=wanda", "pruner/allocation=global"], "scores a layer after those before it"),
        (["pruner=weights", "pruner/budget=latency"], "budget"),
        (["pruner/allocation=greedy", "pruner/budget=parameters"], "tries models out"),
        (["pruner/allocation=global", "save_model=true"], "export=padded"),
        *(
            ([f"pruner/criterion={criterion}", f"pruner/structure={structure}", "pruner/budget=parameters"], reason)
            for criterion, structure, reason in (
                ("sleb", "layers", "SLEB scores for a share of units that it must know, but Parameters looks for"),
                ("angular_distance", "layers", "AngularDistance scores for a share"),
                ("movement", "mlp_neurons", "Movement scores for a share"),
                ("synflow", "mlp_neurons", "SynFlow scores for a share"),
            )
        ),
        (["pruner=combined", "pruner/criterion@pruner.parts.depth.criterion=sleb"], "SLEB scores for a share"),
        (["pruner/structure=n_m", "pruner/budget=parameters"], "the pattern of NM knows 0.5 alone"),
        (["pruner/criterion=taylor", "loss@pruner.criterion.loss=none"], "pruner.criterion.loss=NoRecovery: must be"),
        (["pruner/criterion=gates", "loss@pruner.criterion.loss=none"], "pruner.criterion.loss=NoRecovery: must be"),
        (
            ["pruner/criterion=sleb", "pruner/structure=layers", f"pruner.criterion.loss={NONE}"],
            "pruner.criterion.loss=NoRecovery: must be",
        ),
        (
            ["pruner/criterion=taylor", "loss@pruner.criterion.loss=sampled_kl"],
            "pruner.criterion.loss=SampledKL: must be a loss without chance",
        ),
        (
            [
                *("pruner/criterion=kl_taylor", "loss@pruner.criterion.hard=none", "~pruner.criterion.hard.reads"),
                "pruner.criterion.soft.reads=question",
            ],
            "pruner.criterion.hard=NoRecovery: must be",
        ),
        (["pruner/allocation=greedy", "loss@pruner.allocation.loss=none"], "pruner.allocation.loss=NoRecovery: must"),
        (
            [
                *("loss=ce_kl", "~loss.terms.ce", "~loss.weights.ce", "loss.terms.kl.reads=question"),
                f"+loss.terms.none={NONE}",
            ],
            "loss.terms.none=NoRecovery: must be",
        ),
        (
            ["pruner/criterion=taylor", "loss@pruner.criterion.loss=kl", "pruner.criterion.loss.reads=gold"],
            "pruner.criterion.loss.reads=gold: must be question",
        ),
        (
            ["pruner/allocation=greedy", "loss@pruner.allocation.loss=kl", "pruner.allocation.loss.reads=gold"],
            "pruner.allocation.loss.reads=gold: must be question",
        ),
        (["pruner/structure=hidden", "loss=kl_hints"], "loss=WeightedSum compares hidden states channel by channel"),
        (
            ["pruner/criterion=taylor", "loss@pruner.criterion.loss=hints", "pruner.criterion.loss.projection=learned"],
            "pruner.criterion.loss=Hints learns a projection, which the recovery alone trains",
        ),
        (["pruner/criterion=alternate", "pruner/structure=layers", "pruner/budget=parameters"], "Alternate scores for"),
        (["schedule=rigl", "pruner=weights", "loss=none"], "loss=NoRecovery nothing trains"),
        (["schedule=set", "pruner=weights", "pipeline.repeat=[recover,prune,evaluate]"], "has no recover after prune"),
        (["recovery=small_model_lora", "pipeline=from_scratch"], "adapters leave them as they are drawn"),
        (["loss=minillm"], "with alpha=0.2 it must be given texts that are all drawn at temperature 1"),
        (
            ["loss=minillm", "batches=minillm", "batches.share=0.5"],
            "batches.share=0.5, batches.temperature=1.0, batches",
        ),
        (
            ["loss=minillm", "batches=minillm", "batches.share=0.5"],
            "Choose batches=minillm batches.share=1.0 batches.te",
        ),
        (["loss=kl", "batches=minillm"], "batches.teacher_mixed=0.2: must be 0 with loss=KL"),
        (["batches=more_questions", *SAME_WORLD], "batches.extra=facts: must be another task than the run's own while"),
        (
            ["batches=on_policy", "+batches@batches.data=more_questions", *SAME_WORLD_AS_DATA],
            "another task with task@batches.data.extra=CHOICE",
        ),
        (["batches=on_policy", "loss=ce"], "batches=OnPolicy hold no right answers, which loss=CrossEntropy needs"),
        (["pipeline=prompt_distillation"], "Choose loss=none"),
        (["recovery=small_model_lora", "pipeline=generations"], "adapters leave them as they are drawn"),
        (["teacher=ema", "loss=ce_kl", "recovery=small_model_lora"], "teacher=Ema averages the student's weights, and"),
        (["teacher=ema", "loss=ce_kl", "runtime.shard=true"], "shard=true: must be false with teacher=Ema"),
        (["teacher=ema", "teacher.start=dense"], "of whose shapes the student has lost mlp_neurons"),
        ([*SEVERAL, "+teacher@teacher.teachers.b=ema", "runtime.shard=true"], "must be false with teacher=Ema"),
        ([*SEVERAL, "teacher.weighting=by_task"], "answers by task (a), and the tasks are others: task=facts is one"),
        (["recovery.frozen=[embeddings]", "pipeline=from_scratch"], "they would stay as they are drawn"),
        (["recovery.frozen=[head]", "recovery=small_model_lora"], "must be [] with recovery.lora"),
        (["recovery.optimizer=adamw_8bit", "runtime.shard=true"], "recovery.optimizer=adamw_8bit, which works on"),
        (["recovery.gradient_checkpointing=true", "runtime.shard=true"], "which works on whole tensors"),
        (
            ["recovery.tokens=99", "recovery.steps=null", "schedule=rounds"],
            "recovery.tokens=99: must be null with a run",
        ),
        (["recovery.flops=1e9", "recovery.steps=null", "pipeline=lottery_ticket"], "recovers more than once"),
        (["recovery.flops=1e9", "recovery.steps=null", "pipeline=generations"], "recovers more than once"),
        (["teacher=ema"], "loss=KL is at rest where the student says what teacher=Ema says"),
        (["teacher=ema", "loss=ce_kl", "loss.weights.ce=0"], "loss=WeightedSum is at rest where the student says"),
        ([*SEVERAL[:1], "+teacher@teacher.teachers.a=ema"], "loss=KL is at rest where the student says"),
        ([*SEVERAL, "+teacher@teacher.teachers.b=ema", "+teacher.weights.a=0"], "loss=KL is at rest where the student"),
        (
            ["loss=rkd", "recovery.batch_size=4", "recovery.accumulation=4"],
            "batch_size=4 recovery.accumulation=4: a forward pass must have at least 3 questions with loss=Relational",
        ),
        (["loss=rkd", "recovery.batch_size=8", "recovery.accumulation=3"], "which compares them; one has 2"),
        (["loss=rkd", "recovery.batch_size=2"], "recovery.batch_size=2: a forward pass must have at least 3 questions"),
        (
            ["pruner/criterion=taylor", "loss@pruner.criterion.loss=rkd", "calibration.batch_size=1"],
            "calibration.batch_size=1: a forward pass must have at least 3 questions with pruner.criterion.loss=",
        ),
        (
            ["pruner/criterion=taylor", "loss@pruner.criterion.loss=minillm"],
            "pruner.criterion.loss=MiniLLM must be given texts that were drawn for it",
        ),
        (
            ["pruner/criterion=grasp", "+loss@pruner.criterion.loss=exits"],
            "pruner.criterion.loss=Exits asks for hidden_states, and Grasp measures a loss of logits alone",
        ),
        (
            ["pruner/criterion=grasp", "+loss@pruner.criterion.loss=attention_maps"],
            "pruner.criterion.loss=AttentionMaps asks for attentions",
        ),
        (
            ["loss=rkd", "loss.reads=choices", "batches=on_policy"],
            "loss=Relational looks at questions alone, and batches=OnPolicy write",
        ),
        (["teacher=cached", "teacher.keep=top_k", "loss=kl_hints"], "teacher=Cached gives no hidden_states"),
    ],
)
def test_what_is_refused_is_refused_when_composed_with_the_reason(overrides: list[str], reason: str) -> None:
    with pytest.raises(Incompatible) as refused:
        load(composed(*overrides))
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["recovery.tokens=99"], "recovery.steps=2: must be null beside tokens=99, since one of them ends a training."),
        (
            ["teacher=several"],
            "teacher.teachers={}: must be at least one teacher. Give each a name: +teacher@teacher.te",
        ),
        (["recovery.frozen=embeddings"], "Write a list: recovery.frozen=[embeddings]."),
        (["recovery.frozen=[embedding]"], "recovery.frozen=['embedding']: input should be 'embeddings' or 'head'."),
    ],
)
def test_what_is_wrong_is_said_with_what_to_write(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(composed(*overrides))
    assert told in str(refused.value)


def test_what_a_pipeline_needs_trained_is_trained_and_nothing_else(
    parts: dict[str, dict[str, Any]], whole: RunConfig
) -> None:
    pipelines, batches = components("pipeline"), components("batches")
    assert set(pipelines) > DRAWS_ANEW | TRAINS_NOTHING
    for pipeline, loss in itertools.product(pipelines, choices("loss")):
        together = {"pipeline": pipelines[pipeline], "loss": parts["loss"][loss]}
        together["batches"] = batches[OWN_BATCHES.get(loss, "questions")]
        if loss == "none" and pipeline in DRAWS_ANEW:
            with pytest.raises(Incompatible, match=r"loss=NoRecovery trains nothing.*random weights. Choose loss=ce"):
                put_together(whole, together)
        elif loss != "none" and pipeline in TRAINS_NOTHING:
            with pytest.raises(Incompatible, match=r"trains, and the pipeline has no recover.*Choose loss=none"):
                put_together(whole, together)
        else:
            put_together(whole, together)


COVERING = covering([combination for combination in all_of() if goes_together(combination)])
"""All pairs of choices that go together in some composition."""


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("combinations")


@pytest.mark.parametrize("start", range(0, len(COVERING), 8))
def test_what_is_let_through_runs(
    start: int, parts: dict[str, dict[str, Any]], whole: RunConfig, cache: Path, tmp_path: Path
) -> None:
    runtime = dataclasses.replace(whole.runtime, cache=str(cache))
    for number, combination in enumerate(COVERING[start : start + 8]):
        config = dataclasses.replace(put_together(whole, quick(chosen(parts, combination))), runtime=runtime)
        folder = tmp_path / str(number)
        folder.mkdir()
        record = run(config, folder, {"seed": 0, "sparsity": config.sparsity}, {}, "combinations")
        assert record.status == "finished", f"{combination}: {record.error}"
        (pruned, *_) = [stage for stage in record.stages if stage.stage == "prune"][-1:]
        (gone,) = pruned.details["removed"].values()
        (dense,) = pruned.details["dense"].values()
        assert 0.3 < sum(gone) / sum(dense) < 0.7, f"{combination}: {gone} of {dense}"


@pytest.mark.parametrize("loss", sorted(set(choices("loss")) - {combination[-1] for combination in COVERING}))
def test_every_loss_recovers(
    loss: str, parts: dict[str, dict[str, Any]], whole: RunConfig, cache: Path, tmp_path: Path
) -> None:
    """Those that no composition above holds."""
    runtime = dataclasses.replace(whole.runtime, cache=str(cache))
    together = {"loss": parts["loss"][loss], "batches": components("batches")[OWN_BATCHES.get(loss, "questions")]}
    config = dataclasses.replace(put_together(whole, together), runtime=runtime)
    record = run(config, tmp_path, {"seed": 0, "sparsity": config.sparsity}, {}, "combinations")
    assert record.status == "finished", record.error


def quick(component: Any) -> Any:
    """The same components with as little work as they can do."""
    if isinstance(component, dict):
        return {key: quick(value) for key, value in component.items()}
    little = {"evaluations": 7, "rounds": 2, "interval": 1}
    own = {field.name for field in dataclasses.fields(component)}
    if component.__class__.__module__.startswith("regraft.pruning"):
        little |= {"steps": 2}
    return dataclasses.replace(component, **{key: value for key, value in little.items() if key in own})


@pytest.mark.parametrize(
    "overrides",
    [
        ["pruner/criterion=sleb", "pruner/structure=layers"],
        ["pruner/criterion=soft_movement", "pruner/budget=parameters"],
        # hard needs the labels, soft reads the same text
        ["pruner/criterion=kl_taylor", "pruner.criterion.hard.reads=gold", "pruner.criterion.soft.reads=gold"],
        ["pruner/structure=hidden", "loss=kl_hints", "loss.terms.hints.projection=learned"],
        ["pipeline=evaluate_last", "loss=none"],
        ["schedule=rigl", "pruner=weights", "pipeline=lottery_ticket"],
        ["loss=minillm", "batches=minillm"],
        ["batches=on_policy", "+batches@batches.data=in_context"],
        ["batches=more_questions", "task@batches.extra=commonsense_qa"],
        ["batches=more_questions", *SAME_WORLD, "task.train_size=64"],
        ["batches=on_policy", "loss=jsd", "batches.temperature=1.0"],
        # the student's own layers, of which no teacher is asked
        ["teacher=cached", *BESIDE_EXITS],
        [*SEVERAL, *BESIDE_EXITS],
        ["loss=rkd", "loss.angle=0", "recovery.batch_size=4", "recovery.accumulation=2"],
        ["loss=rkd", "recovery.batch_size=9", "recovery.accumulation=3"],
        ["pruner/criterion=grasp", "+loss@pruner.criterion.loss=kl"],
        # something pulls the student away from itself
        ["teacher=ema", "loss=pseudo_label"],
        ["teacher=ema", *BESIDE_EXITS],
        [*SEVERAL, "+teacher@teacher.teachers.b=ema"],
        # a teacher that nobody asks
        ["teacher=ema", "loss=ce", "recovery=small_model_lora"],
        # the dense model's shapes are there
        ["teacher=ema", "teacher.start=dense", "pruner=weights"],
        ["teacher=ema", "teacher.start=dense", "sparsity=0"],
        [*SEVERAL, "+teacher@teacher.teachers.b=cached", "+teacher.weights.b=2", "teacher.mean=geometric"],
    ],
)
def test_what_only_looks_like_it_is_let_through(overrides: list[str]) -> None:
    load(composed(*overrides))


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["loss=rkd"], "loss=Relational compares the questions of a step, of which each of 2 processes"),
        (["loss=hints", "loss.projection=learned"], "loss=Hints learns a projection, which 2 processes do not share"),
        (["loss=kl_hints", "loss.terms.hints.projection=learned"], "loss=WeightedSum learns a projection"),
    ],
)
def test_what_processes_cannot_share_is_refused_before_anything_is_done(
    overrides: list[str], reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = load(composed(*overrides))
    check_processes(config, 1)
    check_processes(load(composed()), 2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError) as refused:
        run(config, tmp_path, {"seed": 0}, {}, "processes")
    assert reason in str(refused.value) and "Start one process" in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_each_task_of_a_union_wants_a_teacher_of_its_name(whole: RunConfig) -> None:
    union = Union(tasks={"a": whole.task, "b": whole.task})

    def by_task(*names: str) -> Several:
        return Several(teachers=dict.fromkeys(names, whole.teacher), weighting="by_task")

    for names in (("a", "b"), ("a", "b", "more")):
        put_together(whole, {"task": union, "teacher": by_task(*names)})
    with pytest.raises(
        Incompatible, match=r"answers by task \(a, c\), and the tasks are others: a, b\. Choose task=union"
    ):
        put_together(whole, {"task": union, "teacher": by_task("a", "c")})
