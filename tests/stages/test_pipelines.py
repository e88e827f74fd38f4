"""Pipelines that initialise and rewind: the order of the stages, and what moves their keys."""

from __future__ import annotations

import pytest
from test_plan import Composed, composed, keys, stages

from regraft.config.ranges import ConfigError
from regraft.stages.plan import plan, run_id

__all__ = ["composed"]
WEIGHTS = ("pruner/structure=weights", "loss=ce")


def test_from_scratch_prunes_as_the_default_does_and_draws_anew(composed: Composed) -> None:
    scratch, default = keys(composed("pipeline=from_scratch")), keys(composed())
    assert list(scratch) == ["0 prepare", "1 evaluate", "2 prune", "3 initialise", "4 recover", "5 evaluate"]
    assert [scratch[key] for key in list(scratch)[:3]] == [default[key] for key in list(default)[:3]]
    other = keys(composed("pipeline=from_scratch", "seed=1"))
    assert [scratch[key] == other[key] for key in scratch] == [True, True, True, False, False, False]
    assert scratch["4 recover"] != default["4 recover"]
    assert run_id(composed("pipeline=from_scratch", "recovery.steps=99")) != run_id(composed("pipeline=from_scratch"))


def test_from_scratch_takes_one_step(composed: Composed) -> None:
    with pytest.raises(ConfigError, match="draws the weights anew at each step.*schedule=one_shot"):
        composed("pipeline=from_scratch", "schedule=iterative")
    composed("pipeline=prune_at_initialisation", "schedule=iterative")


def test_pruning_at_initialisation_prunes_what_was_drawn_and_the_teacher_stays_dense(composed: Composed) -> None:
    config = composed("pipeline=prune_at_initialisation", "sparsity=0.5")
    assert list(keys(config)) == ["0 prepare", "1 evaluate", "2 initialise", "3 prune", "4 recover", "5 evaluate"]
    initialised, pruned = stages(config, "initialise")[0], stages(config, "prune")[0]
    assert pruned.model_before == initialised.model_after != initialised.model_before
    one, other = (keys(composed("pipeline=prune_at_initialisation", f"seed={seed}")) for seed in (0, 1))
    assert [one[key] == other[key] for key in one] == [True, True, False, False, False, False]


def test_a_ticket_trains_prunes_and_rewinds_in_rounds(composed: Composed) -> None:
    config = composed("pipeline=lottery_ticket", "schedule=rounds", "sparsity=0.488", *WEIGHTS)
    names = [stage.name for stage in plan(config)]
    rounds = 3 * ["recover", "evaluate", "prune", "rewind"]
    assert names == ["prepare", "evaluate", "initialise", *rounds, "recover", "evaluate"]
    (initialised,), rewinds = stages(config, "initialise"), stages(config, "rewind")
    assert {stage.anchor for stage in rewinds} == {initialised.model_after}
    recovers = stages(config, "recover")
    assert [(stage.first_share, stage.last_share, stage.earlier_share) for stage in recovers] == [
        (0.0, 1.0, float(number)) for number in range(4)
    ]
    measured = [stage.target_sparsity for stage in stages(config, "evaluate")[1:]]
    assert measured == pytest.approx([0, 0.2, 0.36, 0.488])
    # the first training is that of the dense model at initialisation, and runs of other sparsities share the rounds
    other = composed("pipeline=lottery_ticket", "schedule=rounds", "sparsity=0.7", *WEIGHTS)
    shared = [one.key == two.key for one, two in zip(plan(config)[:13], plan(other)[:13], strict=True)]
    assert shared == [True] * 13


def test_a_late_rewind_trains_to_there_once(composed: Composed) -> None:
    late = ("pipeline=lottery_ticket", "schedule=rounds", "sparsity=0.36", "pipeline.rewind_to=0.1", *WEIGHTS)
    config = composed(*late)
    recovers, rewinds = stages(config, "recover"), stages(config, "rewind")
    assert [(stage.first_share, stage.last_share) for stage in recovers] == [(0.0, 0.1)] + 3 * [(0.1, 1.0)]
    assert all(stage.whole_course for stage in recovers)
    assert {stage.anchor for stage in rewinds} == {recovers[0].model_after}
    assert recovers[2].key != recovers[1].key
    early = stages(composed(*(each for each in late if "rewind_to" not in each)), "recover")
    assert not {stage.key for stage in early} & {stage.key for stage in recovers}


def test_a_ticket_of_nothing_is_the_first_training(composed: Composed) -> None:
    config = composed("pipeline=lottery_ticket", "schedule=rounds", "sparsity=0", *WEIGHTS)
    first, last = stages(config, "recover")
    assert first.key == last.key


def test_the_reinitialised_control_draws_other_weights_on_the_same_masks(composed: Composed) -> None:
    ticket, control = (
        composed(f"pipeline={name}", "schedule=rounds", "sparsity=0.36", *WEIGHTS)
        for name in ("lottery_ticket", "lottery_reinitialised")
    )
    assert [s.key for s in stages(ticket, "prune")] == [s.key for s in stages(control, "prune")]
    assert [stage.draw for stage in stages(control, "initialise")] == [0, 1]
    late = composed("pipeline=lottery_reinitialised", "pipeline.rewind_to=0.1", "sparsity=0.36", *WEIGHTS)
    assert stages(late, "recover")[-1].first_share == 0, "what is drawn anew trains from the beginning"


PREVIOUS = ("teacher=previous", "loss=kl")


def test_the_previous_step_teaches_the_next(composed: Composed) -> None:
    steps = ("schedule=iterative", "schedule.steps=3")
    config = composed(*steps, *PREVIOUS)
    (dense, *_), recovers = plan(config), stages(config, "recover")
    assert [stage.teacher for stage in recovers] == [dense.key, recovers[0].model_after, recovers[1].model_after]
    plain = stages(composed(*steps), "recover")
    assert [stage.teacher for stage in plain] == [""] * 3
    assert not {stage.key for stage in plain} & {stage.key for stage in recovers}
    # who asks no teacher has none
    own, other = (composed(*steps, "loss=ce", *teacher) for teacher in ([], ["teacher=previous"]))
    assert keys(own) == keys(other) and not any(stage.teacher for stage in plan(other))


@pytest.mark.parametrize(
    "teacher",
    [
        ["teacher=cached", "teacher@teacher.teacher=previous"],
        ["teacher=several", "+teacher@teacher.teachers.a=dense", "+teacher@teacher.teachers.b=previous"],
    ],
)
def test_who_asks_the_previous_model_depends_on_it(composed: Composed, teacher: list[str]) -> None:
    steps = ("schedule=iterative", "schedule.steps=2")
    config = composed(*steps, *teacher)
    first, second = stages(config, "recover")
    assert second.teacher == first.model_after


def test_generations_are_drawn_anew_and_each_teaches_the_next(composed: Composed) -> None:
    config = composed("pipeline=generations", "sparsity=0", *PREVIOUS)
    names = [stage.name for stage in plan(config)]
    assert names == ["prepare", "evaluate", "prune", "evaluate", *3 * ["initialise", "recover", "evaluate"]]
    draws, recovers = stages(config, "initialise"), stages(config, "recover")
    assert [stage.draw for stage in draws] == [0, 1, 2]
    assert [stage.teacher for stage in recovers] == [plan(config)[0].key, *(s.model_after for s in recovers[:2])]
    assert [(s.first_share, s.last_share, s.earlier_share) for s in recovers] == [(0.0, 1.0, n) for n in (0, 1, 2)]
    # fewer generations are the first of more
    fewer = stages(composed("pipeline=generations", "pipeline.times=2", "sparsity=0", *PREVIOUS), "recover")
    assert [stage.key for stage in fewer] == [stage.key for stage in recovers[:2]]
    # pruned once, drawn in that shape
    pruned = composed("pipeline=generations", "sparsity=0.5", *PREVIOUS)
    assert keys(pruned)["2 prune"] == keys(composed())["2 prune"]
    assert {stage.target_sparsity for stage in stages(pruned, "recover")} == {0.5}
    control = stages(composed("pipeline=generations", "sparsity=0", "loss=kl"), "recover")
    assert len({stage.key for stage in (*control, *recovers)}) == 6


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("pipeline.before=[prepare]", r"pipeline\.before=\['prepare'\]: must be \[prepare, evaluate\] or"),
        ("pipeline.after=[prune,evaluate]", "a list without prepare and prune"),
        ("pipeline.after=[recover,evaluate]", "one recover at most, and initialise before it, unless repeat rewinds"),
        ("pipeline.after=[recover,initialise,evaluate]", "initialise before it"),
        ("pipeline.after=[initialise,recover,recover,evaluate]", r"one recover at most.*pipeline\.times"),
        ("pipeline.times=0", r"times=0: must be at least 1"),
        ("pipeline.times=2", "1 for a pipeline with nothing in after"),
        ("pipeline.after=[recover]", "empty, or a list that ends with evaluate"),
        ("pipeline.rewind_to=0.2", "0 for a pipeline that does not rewind"),
        ("pipeline.rewind_to=1", r"must be in \[0, 1\)"),
    ],
)
def test_what_no_pipeline_can_be_is_refused(composed: Composed, override: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        composed(f"++{override}")


def test_a_shuffled_pruner_is_another_run_and_an_unshuffled_one_leaves_no_trace(composed: Composed) -> None:
    assert run_id(composed("pruner.shuffled=false")) == run_id(composed()) != run_id(composed("pruner.shuffled=true"))
    one, other = (keys(composed("pruner.shuffled=true", f"seed={seed}"))["2 prune"] for seed in (0, 1))
    assert one != other


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["schedule=rigl"], "RigL moves masks while the model trains.*Choose pruner/structure=weights"),
        (
            ["schedule=set", "pruner/structure=weights", "runtime.shard=true"],
            "runtime.shard=true: must be false with schedule=SparseEvolution",
        ),
        (["pruner/allocation=erk"], "Erk shares out weights, and the units of mlp_neurons are neurons"),
    ],
)
def test_what_does_not_go_together_is_refused(composed: Composed, overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        composed(*overrides)


def test_a_schedule_that_trains_masks_moves_the_recovery_and_no_other_does(composed: Composed) -> None:
    ones = ("pruner/structure=weights", "pruner/criterion=random", "pipeline=evaluate_last")
    found = {name: keys(composed(*ones, f"schedule={name}")) for name in ("one_shot", "set", "rigl")}
    assert len({each["2 prune"] for each in found.values()}) == 1
    assert len({each["3 recover"] for each in found.values()}) == 3
    other = keys(composed(*ones, "schedule=rigl", "schedule.interval=7"))
    assert other["3 recover"] != found["rigl"]["3 recover"]


def test_criteria_that_train_depend_on_seed_and_recovery(composed: Composed) -> None:
    ones = ("pruner/structure=weights", "pruner/criterion=movement")
    base = keys(composed(*ones))["2 prune"]
    for change in ("seed=1", "recovery.batch_size=8", "task.train_size=64", "pruner.criterion.steps=9"):
        assert keys(composed(*ones, change))["2 prune"] != base, change
    assert keys(composed(*ones, "loss=ce"))["2 prune"] == base
