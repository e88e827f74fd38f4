"""The study behind a search, on runs that are made up."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from regraft.config.ranges import ConfigError
from regraft.interfaces import RunInfo, RunLog, Tracker
from regraft.records import STOPPED_BY_SEARCH, Record, Row, StageRecord
from regraft.sweeps.journal import Unmeasured, find, measured
from regraft.sweeps.search import Definition, Settings, Study, Trial
from regraft.sweeps.space import Choice, Interval, Space, Value, dimension, written
from regraft.sweeps.watch import TRIAL, Hopeless, watched
from regraft.tracking.none import NoTracker

SPACE: Space = {"x": Interval(low=0.0, high=1.0), "+y": Interval(low=0.0, high=1.0), "loss": Choice(options=("a", "b"))}
TWO = {"selection/accuracy": "maximize", "parameters": "minimize"}
ONE = {"selection/accuracy": "maximize"}


def settings(**changed: Any) -> Settings:
    plain: dict[str, Any] = {
        "objectives": TWO,
        "n_trials": 24,
        "batch": 3,
        "seed": 0,
        "sampler": "tpe",
        "population": 4,
        "pruner": None,
        "watch": None,
        "warmup": 2,
        "every": 1,
    }
    return Settings(**(plain | changed))


def study(folder: Path, space: Space = SPACE, identity: str = "r", knobs: Any = None, **changed: Any) -> Study:
    how = settings(**changed)
    definition = Definition(space=space, objectives=how.objectives, identity=identity, settings=knobs or {"steps": 4})
    return Study(folder, definition, how)


def record(point: dict[str, Value]) -> Record:
    """What a run at `point` would leave."""
    x, y = (float(point.get(name, 0.5)) for name in ("x", "+y"))
    numbers = {("selection", "accuracy"): round(x * (1 - y**2), 2), ("", "parameters"): round(100 * x + 20 * y)}
    numbers |= {("test", "accuracy"): 0.5, ("selection", "odd"): None}
    common: dict[str, Any] = {"target_sparsity": 0.5, "block_sparsity": 0.5, "model_sparsity": 0.4, "bits": 32}
    dense = Row(stage_index=1, stage="evaluate", split="selection", metric="accuracy", value=1.0, **common)
    last = [
        Row(stage_index=4, stage="evaluate", split=split, metric=metric, value=value, **common)
        for (split, metric), value in numbers.items()
    ]
    return Record(
        run_id=f"{hash(tuple(point.items())):x}",
        sweep="s",
        status="finished",
        error=None,
        config={},
        choices={},
        environment={},
        stages=[],
        rows=[dense, *last],
    )


def run_on(searching: Study, until: Callable[[Trial], bool] = lambda trial: True) -> list[Trial]:
    """Answers trials until one that `until` refuses: there the process dies."""
    done = []
    while trials := searching.ask():
        for trial in trials:
            if not until(trial):
                searching.close()
                return done
            searching.tell(trial, record(trial.point))
            done.append(trial)
    searching.close()
    return done


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_killed_again_and_again_is_as_never_killed(tmp_path: Path, sampler: str) -> None:
    undisturbed = run_on(study(tmp_path / "a", sampler=sampler))
    assert [trial.number for trial in undisturbed] == list(range(24))
    if sampler != "nsga2":  # whose children may be copies of their parents
        assert len({tuple(trial.point.items()) for trial in undisturbed}) == 24, "a point was drawn twice"
    dice = random.Random(1)
    pieces: list[Trial] = []
    deaths = 0
    while len(pieces) < 24:
        pieces += run_on(study(tmp_path / "b", sampler=sampler), lambda trial: dice.random() > 0.2)
        deaths += 1
    assert deaths > 3
    assert pieces == undisturbed
    assert run_on(study(tmp_path / "b", sampler=sampler)) == []
    more = run_on(study(tmp_path / "b", sampler=sampler, n_trials=27))
    assert [trial.number for trial in more] == [24, 25, 26]


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_killed_while_a_point_is_drawn_it_is_drawn_on_as_it_would_have_been(
    tmp_path: Path, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import optuna

    undisturbed = run_on(study(tmp_path / "a", sampler=sampler, n_trials=3))
    suggest = optuna.trial.Trial.suggest_float

    def die(trial: optuna.trial.Trial, name: str, *arguments: Any, **keywords: Any) -> float:
        if name == "y":
            raise KeyboardInterrupt
        return suggest(trial, name, *arguments, **keywords)

    monkeypatch.setattr(optuna.trial.Trial, "suggest_float", die)
    killed = study(tmp_path / "b", sampler=sampler, n_trials=3)
    with pytest.raises(KeyboardInterrupt):
        killed.ask()
    killed.close()
    monkeypatch.undo()
    assert run_on(study(tmp_path / "b", sampler=sampler, n_trials=3)) == undisturbed


def test_the_front_is_that_of_brute_force(tmp_path: Path) -> None:
    searching = study(tmp_path, n_trials=40)
    tried = [(trial.point, measured(record(trial.point))) for trial in run_on(searching)]
    values = [(float(found["selection/accuracy"] or 0), float(found["parameters"] or 0)) for _, found in tried]
    front = sorted(
        (a, p) for a, p in values if not any(other != (a, p) and other[0] >= a and other[1] <= p for other in values)
    )
    assert 1 < len(front) < 40
    assert [tuple(best.values.values()) for best in searching.best()] == front
    told = "\n".join(searching.account())
    assert (
        "40 trials: 40 finished" in told and "Pareto front (maximize selection/accuracy, minimize parameters)" in told
    )


def test_tpe_finds_more_than_chance(tmp_path: Path) -> None:
    best = {}
    for sampler in ("tpe", "random"):
        searching = study(tmp_path / sampler, sampler=sampler, objectives=ONE, n_trials=60, batch=1)
        run_on(searching)
        ((best[sampler],),) = [each.values.values() for each in searching.best()]
    assert best["tpe"] >= best["random"] and best["tpe"] > 0.9


def test_two_processes_share_the_trials(tmp_path: Path) -> None:
    first, second = study(tmp_path), study(tmp_path)
    trials: list[Trial] = []
    while (one := first.ask()) + (other := second.ask()):
        for searching, asked in ((first, one), (second, other)):
            for trial in asked:
                searching.tell(trial, record(trial.point))
            trials += asked
    assert sorted(trial.number for trial in trials) == list(range(24))
    assert len({tuple(trial.point.items()) for trial in trials}) == 24
    first.close()
    second.close()


def test_what_failed_is_tried_again_by_the_next_command_only(tmp_path: Path) -> None:
    def go(is_broken: bool) -> list[Trial]:
        searching = study(tmp_path, space={"loss": Choice(options=("a", "b", "c"))}, n_trials=8, batch=1)
        asked = []
        while trials := searching.ask():
            for trial in trials:
                asked.append(trial)
                if is_broken and trial.point["loss"] == "b":
                    searching.fail(trial, "diverged")
                else:
                    searching.tell(trial, record(trial.point))
        searching.close()
        return asked

    points = [trial.point["loss"] for trial in go(is_broken=True)]
    assert points.count("b") == 1
    assert set(points) == {"a", "b", "c"}, "a small space is searched through, and then it is enough"
    assert [trial.point["loss"] for trial in go(is_broken=True)] == ["b"]
    assert [trial.point["loss"] for trial in go(is_broken=False)] == ["b"]
    assert go(is_broken=False) == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"space": {"x": Interval(low=0.0, high=2.0), **{k: SPACE[k] for k in ("+y", "loss")}}},
            "x was 0 to 1, is 0 to 2",
        ),
        ({"space": {k: SPACE[k] for k in ("x", "+y")}}, "loss was a,b, is not there"),
        ({"objectives": ONE}, "parameters was minimize, is not there"),
        ({"identity": "other", "knobs": {"steps": 8}}, "steps was 4, is 8"),
        ({"identity": "other"}, "in the code"),
    ],
)
def test_another_search_in_the_same_folder_is_refused_and_nothing_lost(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    run_on(study(tmp_path, n_trials=3))
    journal = tmp_path / "search" / "journal.log"
    before = journal.read_bytes()
    with pytest.raises(ConfigError, match=message) as refused:
        study(tmp_path, **changed)
    assert "sweep=NAME" in str(refused.value)
    assert journal.read_bytes() == before
    assert len(run_on(study(tmp_path, n_trials=6))) == 3


def test_a_first_try_with_a_mistake_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    first = study(tmp_path, objectives={"selection/acuracy": "maximize"})
    (trial, *_) = first.ask()
    with pytest.raises(Unmeasured, match=r"selection/acuracy: is not in the record, which has .*selection/accuracy"):
        first.tell(trial, record(trial.point))
    first.close()
    assert len(run_on(study(tmp_path, n_trials=3))) == 3


def test_the_order_of_the_objectives_is_free(tmp_path: Path) -> None:
    run_on(study(tmp_path, n_trials=6))
    turned = study(tmp_path, n_trials=9, objectives=dict(reversed(TWO.items())))
    run_on(turned)
    assert all(best.values["parameters"] == round(best.values["parameters"]) for best in turned.best())


def test_a_torn_or_broken_journal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_on(study(tmp_path, n_trials=6))
    journal = tmp_path / "search" / "journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code":5,"wor')
    assert [trial.number for trial in run_on(study(tmp_path, n_trials=9))] == [6, 7, 8]
    assert "not written whole" in caplog.text
    journal.write_bytes(whole[:200] + b"\0\0\0\n" + whole[200:])
    with pytest.raises(ConfigError, match="is no journal of a search"):
        study(tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"objectives": {}}, "objectives={}: must be at least one metric"),
        ({"objectives": {"a": "up"}}, "objectives.a=up: must be maximize or minimize"),
        ({"n_trials": 0}, "n_trials=0"),
        ({"batch": 1.5}, "batch=1.5"),
        ({"sampler": "grid"}, "sampler=grid: must be tpe, nsga2 or random"),
        ({"objectives": ONE, "pruner": "mean"}, "pruner=mean"),
        ({"pruner": "median"}, "pruner=median: must be null with 2 objectives"),
        ({"watch": {"a": "maximize", "b": "maximize"}}, "watch="),
    ],
)
def test_settings_are_checked(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        settings(**changed)
    assert f"hydra.sweeper.{message}" in str(refused.value)


def test_metrics_by_name() -> None:
    numbers = measured(record({}))
    assert numbers["selection/accuracy"] == 0.38  # of the last evaluation, not of the dense model
    assert find(numbers, "parameters") == 60
    with pytest.raises(Unmeasured, match="several splits.*selection/accuracy, test/accuracy"):
        find(numbers, "accuracy")
    with pytest.raises(Unmeasured, match="selection/odd: is no finite number"):
        find(numbers, "odd")


def start(tracker: Tracker) -> RunLog:
    config = {"sparsity": 0.5, "seed": 0, "pipeline": {"repeat": ["prune", "evaluate", "recover", "evaluate"]}}
    return tracker.start(
        RunInfo(run_id="r", sweep="s", config=config, choices={}, environment={}, folder=Path("nowhere"))
    )


def evaluated(open_run: RunLog, accuracy: float, test: float = 0.0) -> None:
    """Tell of an evaluate stage."""
    stage = StageRecord(index=0, stage="evaluate", key="", target_sparsity=0.0, fingerprints={}, seconds=0.0)
    common = {"stage_index": 0, "stage": "evaluate", "target_sparsity": 0.0, "block_sparsity": 0.0, "bits": 32}
    rows = [
        Row(split=split, metric="accuracy", value=value, model_sparsity=0.0, **common)
        for split, value in (("selection", accuracy), ("test", test))
    ]
    open_run.stage(stage, rows, {})


def iterative(searching: Study, trial: Trial, accuracies: list[float], monkeypatch: pytest.MonkeyPatch) -> str:
    """A run that is pruned step by step, up to the error that stops it."""
    monkeypatch.setenv(TRIAL, f"{searching.journal}:{trial.number}")
    open_run = start(watched(NoTracker()))
    try:
        evaluated(open_run, 0.9)
        for number, accuracy in enumerate(accuracies):
            evaluated(open_run, 0.0)  # pruned and not yet recovered: no run is judged by that
            open_run.step(number + 1, {"loss": 1.0})
            evaluated(open_run, accuracy)
    except Hopeless as hopeless:
        searching.stop(trial, str(hopeless))
        return str(hopeless)
    searching.tell(trial, record({"x": accuracies[-1], "+y": 0.0}))
    return ""


@pytest.mark.parametrize("rule", ["median", "halving"])
def test_hopeless_runs_are_stopped_when_they_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    searching = study(tmp_path, objectives=ONE, pruner=rule, warmup=3, n_trials=9, batch=9)
    trials = iter(searching.ask())
    for last in (0.2, 0.5, 0.6):
        assert not iterative(searching, next(trials), [0.8, 0.7, last], monkeypatch)
    assert not iterative(searching, next(trials), [0.8, 0.7, 0.7], monkeypatch), "as good as the others"
    error = iterative(searching, next(trials), [0.3, 0.7, 0.9], monkeypatch)
    assert error.startswith(f"{STOPPED_BY_SEARCH}selection/accuracy=0.3 after pruning step 1 is ")
    if rule == "median":
        error = iterative(searching, next(trials), [0.9, 0.1, 0.9], monkeypatch)
        assert error.startswith(f"{STOPPED_BY_SEARCH}selection/accuracy=0.1 after pruning step 2 is worse than 0.7")
        # nothing is left to save after the last step
        assert not iterative(searching, next(trials), [0.8, 0.7, 0.1], monkeypatch)
    searching.close()
    states = searching.account()[0]
    assert ("5 finished, 2 stopped early" if rule == "median" else "4 finished, 1 stopped early") in states


def test_a_metric_of_training_is_watched_in_its_own_direction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = {"recover/loss": "minimize"}
    searching = study(tmp_path, objectives=ONE, pruner="median", watch=watch, warmup=1, every=2, n_trials=3, batch=3)
    good, bad, better = searching.ask()

    def train(trial: Trial, losses: list[float]) -> str:
        monkeypatch.setenv(TRIAL, f"{searching.journal}:{trial.number}")
        open_run = start(watched(NoTracker()))
        try:
            for step, loss in enumerate(losses, start=1):
                open_run.step(step, {"loss": loss})
        except Hopeless as hopeless:
            return str(hopeless)
        searching.tell(trial, record({}))
        return ""

    assert not train(good, [9.0, 1.0, 9.0, 1.0])
    assert not train(better, [9.0, 0.5, 9.0, 0.5])
    assert train(bad, [0.0, 3.0, 0.0]).startswith(
        f"{STOPPED_BY_SEARCH}recover/loss=3 in training step 2 is worse than 0.75"
    )
    stopped = f"{STOPPED_BY_SEARCH}recover/loss=3 in training step 2"
    # killed, and begun again: what was said before is said again
    assert train(bad, [0.0, 3.0, 0.0]).startswith(stopped)
    searching.close()


def test_a_run_that_no_search_watches_keeps_its_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TRIAL, raising=False)
    tracker = NoTracker()
    assert watched(tracker) is tracker


def test_a_stopped_point_is_not_run_again(tmp_path: Path) -> None:
    searching = study(tmp_path, space={"loss": Choice(options=("a", "b"))}, objectives=ONE, n_trials=6, batch=1)
    asked = []
    while trials := searching.ask():
        for trial in trials:
            asked.append(trial.point["loss"])
            searching.stop(trial, f"{STOPPED_BY_SEARCH}too bad")
    searching.close()
    assert sorted(asked) == ["a", "b"]
    assert run_on(study(tmp_path, space={"loss": Choice(options=("a", "b"))}, objectives=ONE, batch=1)) == []


def test_steps_are_written_as_they_are_meant(tmp_path: Path) -> None:
    tenths = dimension(OverridesParser.create().parse_override("x=range(0.1,0.6,0.1)"))
    steps = dimension(OverridesParser.create().parse_override("steps=tag(int,log,interval(1,64))"))
    searching = study(tmp_path, space={"x": tenths, "steps": steps}, sampler="random", n_trials=60, batch=60)
    points = [trial.point for trial in searching.ask()]
    assert {point["x"] for point in points} == {0.1, 0.2, 0.3, 0.4, 0.5}
    assert all(isinstance(point["steps"], int) and 1 <= point["steps"] <= 64 for point in points)
    assert written({"x": 0.3, "rate": 1e-5, "loss": "kl"}) == ["x=0.3", "rate=1e-05", "loss=kl"]
    searching.close()
