"""The W&B dashboard: what it holds, and that it is saved; the keys it shows are those that runs log."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas
import pytest
from wandb_server import WandbServer

from analysis import report
from analysis.__main__ import main
from regraft.records import PREDICTIONS, SCORES, TRAINING, Record, Row, StageRecord
from regraft.tracking.replay import info, replay
from regraft.tracking.wandb import access, draft, keys, panels, workspace
from regraft.tracking.wandb.log import Wandb

PROJECT = "tester/regraft"
LAYERS = (keys.layer("mlp_neurons", 0), keys.layer("mlp_neurons", 1))
HISTOGRAMS = (keys.scores(0), keys.scores(1))


def spec(built: workspace.Workspace) -> dict[str, Any]:
    """The workspace as it is sent."""
    section: dict[str, Any] = json.loads(built._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))
    return section["section"]


def shown(of: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Name of a section -> the settings of its panels."""
    return {
        section["name"]: [panel["config"] | {"type": panel["viewType"]} for panel in section["panels"]]
        for section in of["panelBankConfig"]["sections"]
    }


@pytest.fixture(scope="module")
def built() -> dict[str, Any]:
    return spec(
        workspace.build(PROJECT, ["quickstart"], {"a": "kl", "b": "mine"}, (*LAYERS, *HISTOGRAMS), {"kl": "#0072B2"})
    )


# ------------------------------------------------------------------------------------------- what it holds


def test_accuracy_is_shown_against_each_sparsity_and_each_size(built: dict[str, Any]) -> None:
    of_sparsity = [panel["xAxis"] for panel in shown(built)["Accuracy vs sparsity by loss"]]
    assert of_sparsity == ["summary:sparsity/block", "summary:sparsity/target", "summary:sparsity/model"]
    of_size = [panel["xAxis"] for panel in shown(built)["Accuracy vs size"]]
    assert of_size == ["summary:parameters", "summary:bytes", "summary:macs_per_token"]
    both = shown(built)["Accuracy vs sparsity by loss"] + shown(built)["Accuracy vs size"]
    assert {(panel["type"], panel["yAxis"]) for panel in both} == {("Scatter Plot", "summary:test/accuracy")}


def test_choices_are_shown_beside_the_accuracy(built: dict[str, Any]) -> None:
    (panel,) = shown(built)["Choices and accuracy"]
    assert {column["displayName"]: column["accessor"] for column in panel["columns"]} == {
        "criterion": "config:choices.value.pruner_criterion",
        "sparsity": "config:sparsity.value",
        "loss": "config:choices.value.loss",
        "seed": "config:seed.value",
        "test accuracy": "summary:test/accuracy",
    }


def test_training_curves_are_grouped_by_loss(built: dict[str, Any]) -> None:
    curves = shown(built)["Training curves"]
    assert [panel["metrics"] for panel in curves] == [["recover/loss"], ["recover/lr"], ["recover/grad_norm"]]
    assert {(panel["xAxis"], panel["groupBy"], panel["groupAgg"]) for panel in curves} == {
        ("recover/step", "choices.value.loss", "mean")
    }


def test_accuracy_is_shown_after_each_stage_of_a_run(built: dict[str, Any]) -> None:
    stages = shown(built)["Accuracy per stage"]
    assert [panel["xAxis"] for panel in stages] == ["stage", "sparsity/target", "sparsity/block"]
    assert {(panel["metrics"][0], panel.get("groupBy")) for panel in stages} == {("test/accuracy", None)}


def test_predictions_are_a_table(built: dict[str, Any]) -> None:
    (panel,) = shown(built)["Predictions"]
    assert panel["panel2Config"]["exp"]["fromOp"]["inputs"]["key"]["val"] == "predictions"


def test_layers_are_those_that_were_logged(built: dict[str, Any]) -> None:
    removed, *scores = shown(built)["Layers"]
    assert (removed["type"], removed["metrics"]) == ("Bar Chart", list(LAYERS))
    assert [panel["metrics"] for panel in scores] == [[key] for key in HISTOGRAMS]
    assert "Layers" not in shown(spec(workspace.build(PROJECT)))


def test_the_table_is_grouped_and_the_panels_are_not(built: dict[str, Any]) -> None:
    (run_set,) = built["runSets"]
    assert [(key["section"], key["name"]) for key in run_set["grouping"]] == [
        ("run", "group"),
        ("config", "choices.value.loss"),
    ]
    assert built["settings"]["useRunsTableGroupingInPanels"] is False
    assert built["settings"]["maxRuns"] >= 500


def test_runs_have_columns_and_the_colours_of_their_losses(built: dict[str, Any]) -> None:
    (run_set,) = built["runSets"]
    columns = run_set["runFeed"]["columnOrder"]
    assert columns[0] == "run:displayName"
    assert {"config:choices.value.loss", "config:seed.value", "summary:test/accuracy"} <= set(columns)
    assert built["customRunColors"] == {"a": "#0072B2"}


def filters(built: workspace.Workspace) -> list[tuple[str, str, Any]]:
    (run_set,) = spec(built)["runSets"]
    return [(each["key"]["name"], each["op"], each["value"]) for each in run_set["filters"]["filters"]]


def test_runs_that_hold_figures_are_left_out() -> None:
    assert filters(workspace.build(PROJECT)) == [("jobType", "!=", "figures")]


@pytest.mark.parametrize(
    "sweep", ["quickstart", "it's", 'a"b', "back\\slash", "lr=0.1", "a<b>c", "x != y", "Prüfung", "a and b", "😀"]
)
def test_a_sweep_of_any_name_is_the_one_that_is_shown(sweep: str) -> None:
    found = filters(workspace.build(PROJECT, [sweep, "other"]))
    assert found == [("group", "IN", [sweep, "other"]), ("jobType", "!=", "figures")]


@pytest.fixture
def study(tmp_path: Path) -> draft.Study:
    path = tmp_path / "curve.png"
    path.write_bytes(PIXEL)
    figure = draft.Figure(name="training_curves", path=path, caption="Loss by step.")
    return draft.Study(
        sweeps=["it's"], verdicts=["KL wins.", "CE does not."], table="| a |\n|---|\n| 1 |", figures=[figure]
    )


PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c636000000002000148afa4710000000049454e44ae426082"
)
"""A picture of one pixel, as PNG."""


def test_the_draft_says_the_verdicts_and_holds_table_panels_and_figures(study: draft.Study) -> None:
    made = draft.build(PROJECT, study, {"a": "#0072B2"}, HISTOGRAMS)
    kinds = [type(block).__name__ for block in made.blocks]
    (verdicts,) = [block for block in made.blocks if type(block).__name__ == "UnorderedList"]
    assert [str(item) for item in verdicts.items] == study.verdicts
    assert study.table in [getattr(block, "text", None) for block in made.blocks]
    grids = [block for block in made.blocks if type(block).__name__ == "PanelGrid"]
    assert len(grids) == len(panels.sections(HISTOGRAMS)) + len(study.figures)
    assert all("it's" in grid.runsets[0].filters.replace("\\", "") for grid in grids[:-1])
    assert {run: settings.color for run, settings in grids[0].runsets[0].run_settings.items()} == {"a": "#0072B2"}
    (browser,) = grids[-1].panels
    assert browser.media_keys == ["figures/training_curves"]
    assert study.figures_id in grids[-1].runsets[0].filters
    assert kinds[-1] == "P"
    assert made.title == "Regraft: it's"


def test_panels_of_the_draft_do_not_cover_one_another(study: draft.Study) -> None:
    made = draft.build(PROJECT, study, {}, HISTOGRAMS)
    for grid in (block for block in made.blocks if type(block).__name__ == "PanelGrid"):
        taken = [
            (x, y)
            for panel in grid.panels
            for x in range(panel.layout.x, panel.layout.x + panel.layout.w)
            for y in range(panel.layout.y, panel.layout.y + panel.layout.h)
        ]
        assert len(set(taken)) == len(taken)
        assert max(x for x, _ in taken) < draft.WIDTH


# --------------------------------------------------------------------------------------------- that it is saved


def stage(index: int, name: str, target: float, **details: Any) -> StageRecord:
    return StageRecord(
        index=index, stage=name, key=str(index), target_sparsity=target, fingerprints={}, seconds=1.0, details=details
    )


def rows(of: StageRecord, accuracy: float) -> list[Row]:
    shares = {"block_sparsity": of.target_sparsity, "model_sparsity": of.target_sparsity / 2}
    measured = {("accuracy", "test"): accuracy, ("tokens_per_second", "test"): 1e4, ("parameters", ""): 1e6}
    measured |= {("bytes", ""): 4e6, ("macs_per_token", ""): 1e6}
    return [
        Row(
            stage_index=of.index,
            stage=of.stage,
            target_sparsity=of.target_sparsity,
            bits=32,
            split=split,
            metric=name,
            value=value,
            n=2 if (name, split) == ("accuracy", "test") else None,
            **shares,
        )
        for (name, split), value in measured.items()
    ]


def save(root: Path, loss: str, run_id: str) -> Path:
    """A run on disk."""
    removed = {"dense": {"mlp_neurons": [4, 4]}, "removed": {"mlp_neurons": [2, 2]}}
    stages = [
        stage(0, "prepare", 0.0),
        stage(1, "evaluate", 0.0),
        stage(2, "prune", 0.5, **removed),
        stage(3, "recover", 0.5, first_step=0),
        stage(4, "evaluate", 0.5),
    ]
    accuracy = {1: 1.0, 4: 0.5}
    made = Record(
        run_id=run_id,
        sweep=root.name,
        status="finished",
        error=None,
        config={"sparsity": 0.5, "seed": 0, "loss": {"_target_": "a.B"}},
        choices={"loss": loss, "pruner/criterion": "l2", "model": "tiny_olmo2", "task": "facts"},
        environment={},
        stages=stages,
        rows=[row for each in stages if each.index in accuracy for row in rows(each, accuracy[each.index])],
    )
    folder = root / run_id
    folder.mkdir(parents=True)
    made.save(folder)
    asked = pandas.DataFrame({"split": "test", "id": ["a", "b"], "gold": [0, 1], "scores": [[1.0, 0.0], [0.0, 1.0]]})
    answers = [
        asked.assign(predicted=predicted, stage_index=index, stage="evaluate")
        for index, predicted in ((1, [0, 1]), (4, [0, 0]))
    ]
    pandas.concat(answers).to_parquet(folder / PREDICTIONS, index=False)
    steps = pandas.DataFrame({"step": [1, 2], "loss": [2.0, 1.0], "lr": 0.1, "grad_norm": 1.0, "examples": [8, 16]})
    steps.assign(stage_index=3, stage="recover").to_parquet(folder / TRAINING, index=False)
    scores = pandas.DataFrame(
        {"layer": [0, 0, 1, 1], "low": [0.0, 1.0] * 2, "high": [1.0, 2.0] * 2, "units": 2, "removed": [2, 0] * 2}
    )
    scores.assign(stage_index=2, stage="prune").to_parquet(folder / SCORES, index=False)
    return folder


@pytest.fixture
def logged(wandb_server: WandbServer, tmp_path: Path) -> Iterator[tuple[WandbServer, Path]]:
    """A server that knows a sweep, and the sweep's folder."""
    root = tmp_path / "multirun" / "it's=mine"
    for loss, run_id in (("kl", "0123456789"), ("ce", "abcdef0123")):
        folder = save(root, loss, run_id)
        record = Record.load(folder)
        tracker = Wandb(mode="online", project="regraft", entity="tester")
        replay(record, folder, tracker.open(info(record, folder)))
    yield wandb_server, root


def named(node: Any) -> Iterator[str]:
    """Every string in plain data."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from named(value)
    elif isinstance(node, list):
        for value in node:
            yield from named(value)


def has(tree: Any, path: str) -> bool:
    for part in path.split("."):
        if not isinstance(tree, dict) or part not in tree:
            return False
        tree = tree[part]
    return True


def test_all_that_panels_show_is_logged_and_the_workspace_is_saved(
    logged: tuple[WandbServer, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    server, root = logged
    assert main(["dashboard", PROJECT, "--sweep", root.name]) == 0
    said = capsys.readouterr()
    (view,) = server.views
    assert said.out == f"workspace: {server.url}/{PROJECT}?nw={view.name.removeprefix('nw-').removesuffix('-v')}\n"
    assert said.err == ""
    assert re.fullmatch("nw-[0-9a-f]+-v", view.name)
    run = server.run(f"{PROJECT}/0123456789-{keys.wandb_id('', root.name)[1:]}")
    summary, config = run.summary(), json.loads(run.config)
    history = {key for line in run.rows() for key in line}
    content = view.content()["section"]
    assert set(shown(content)) == {section.name for section in panels.sections(HISTOGRAMS)}
    for text in (*named(shown(content)), *content["runSets"][0]["runFeed"]["columnOrder"]):
        if text.startswith("summary:"):
            assert text.removeprefix("summary:") in summary, text
        if text.startswith("config:"):
            assert has(config, text.removeprefix("config:")), text
    for panel in (panel for section in shown(content).values() for panel in section):
        if panel["type"] == "Run History Line Plot":
            assert {panel["xAxis"], *panel["metrics"]} <= history
    assert len(shown(content)["Layers"]) == 1 + len(HISTOGRAMS)
    assert keys.PREDICTIONS in summary
    assert content["runSets"][0]["filters"]["filters"][0]["value"] == [root.name]
    assert len(content["customRunColors"]) == 2


def test_a_workspace_is_overwritten_only_when_it_is_named(
    logged: tuple[WandbServer, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    server, _ = logged
    assert main(["dashboard", PROJECT]) == 0
    address = capsys.readouterr().out.split()[-1]
    assert main(["dashboard", PROJECT]) == 0
    first, second = server.views
    assert main(["dashboard", PROJECT, "--update", address, "--sweep", "it's=mine"]) == 0
    assert capsys.readouterr().out.split()[-1] == address
    assert len(server.views) == 2
    filtered = [len(view.content()["section"]["runSets"][0]["filters"]["filters"]) for view in (first, second)]
    assert filtered == [2, 1]
    assert first.content()["section"]["settings"]["useRunsTableGroupingInPanels"] is False


def test_the_draft_is_saved_with_its_figures_in_a_run_of_their_own(
    logged: tuple[WandbServer, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server, root = logged
    few = ("training_curves", "criteria")  # the second is not possible
    monkeypatch.setattr(report, "FIGURES", {name: report.FIGURES[name] for name in few})
    for _ in range(2):
        assert main(["dashboard", PROJECT, "--draft-report", str(root)]) == 0
    said = capsys.readouterr().out
    drafts = [view for view in server.views if view.type == "runs/draft"]
    assert len(drafts) == 2
    assert re.search(rf"report draft: {re.escape(server.url)}/{PROJECT}/reports/\S+--{drafts[0].id}\n", said)
    (run,) = [run for run in server.runs if run.name.startswith("figures-")]
    assert run.state == "finished"
    pictures = {key for line in run.rows() for key in line if key.startswith("figures/")}
    browsed = {text for text in named(drafts[0].content()) if text.startswith("figures/")}
    assert browsed == pictures == {"figures/training_curves"}
    assert "not drawn: criteria: " in said
    assert sum("media/images/figures" in name for name in run.uploads()) == 2 * len(pictures)
    texts = " ".join(named(drafts[0].content()))
    assert "KL minus CE: not controlled at 50 % of units" in texts
    # the run of figures is no run of the sweep
    assert main(["dashboard", PROJECT]) == 0
    assert f"{run.name}" not in server.views[-1].content()["section"]["customRunColors"]


def test_what_is_not_there_is_said_with_what_to_do(
    logged: tuple[WandbServer, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {
        ("regraft",): "regraft: must be ENTITY/PROJECT",
        ("tester/none",): "tester/none: W&B has no such project",
        (PROJECT, "--sweep", "none"): "has no runs of none yet. Run a sweep with tracker.mode=online",
        (PROJECT, "--update", "nowhere"): "ends with ?nw=NAME",
        (PROJECT, "--update", "https://wandb.ai/tester/regraft?nw=none"): "is no saved workspace of tester/regraft",
    }
    for arguments, message in wrong.items():
        assert main(["dashboard", *arguments]) == 2
        assert message in capsys.readouterr().err


def test_a_refusal_is_said(logged: tuple[WandbServer, Path], capsys: pytest.CaptureFixture[str]) -> None:
    server, _ = logged
    server.fail_with(403, only="UpsertView")
    assert main(["dashboard", PROJECT]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: W&B did not do what was asked for {PROJECT} (")
    assert server.api_key not in told


def test_without_a_key_it_says_how_to_log_in(
    wandb_server: WandbServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    assert main(["dashboard", PROJECT]) == 2
    assert "`wandb login`" in capsys.readouterr().err


def test_a_wrong_address_is_said(
    wandb_server: WandbServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "nonsense")
    assert main(["dashboard", PROJECT]) == 2
    assert "set up wrongly" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_said(
    wandb_server: WandbServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb_server.close()
    monkeypatch.setattr(access, "CONTACT", 2)
    assert main(["dashboard", PROJECT]) == 2
    assert "See that the server can be reached" in capsys.readouterr().err


def test_other_commands_do_not_wait_for_wandb() -> None:
    program = "import sys, analysis.__main__; sys.exit('wandb' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2], timeout=60)
    assert done.returncode == 0
