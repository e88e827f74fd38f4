from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import sweeps

from analysis.__main__ import main
from regraft.records import PREDICTIONS, RECORD

Captured = pytest.CaptureFixture[str]
SIZE = 4_000_000


def make(folder: Path) -> Path:
    """Two criteria, two sparsities, three losses, two seeds, with the number of parameters, and a stopped run."""
    sweeps.grid(folder, sparsities=(0.0, 0.5), seeds=(0, 1), questions=100)
    for path in folder.glob(f"*/{RECORD}"):
        plain = json.loads(path.read_text())
        row = next(each for each in plain["rows"] if each["stage_index"] == 4)
        size = SIZE * (1 - row["model_sparsity"])
        plain["rows"].append(row | {"metric": "parameters", "split": "", "value": size, "n": None})
        path.write_text(json.dumps(plain))
    (folder / "stopped" / ".hydra").mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("command") / "study")


@pytest.fixture
def study(made: Path, tmp_path: Path) -> Path:
    """For tests that write into the sweep."""
    return Path(shutil.copytree(made, tmp_path / "study"))


def output(capsys: Captured, *arguments: object) -> str:
    """What a command that succeeds prints."""
    assert main([str(each) for each in arguments]) == 0
    return capsys.readouterr().out


def refusal(capsys: Captured, *arguments: object) -> str:
    """What a command says that the user must mend."""
    assert main([str(each) for each in arguments]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and said.err.endswith("\n") and not said.out
    assert "Traceback" not in said.err
    return said.err.removeprefix("error: ").rstrip("\n")


@pytest.mark.parametrize(
    "command",
    [
        ["collect"],
        ["table"],
        ["landmarks"],
        ["values"],
        ["pareto"],
        ["curve", "--x", "parameters"],
        ["figures", "--only", "accuracy_vs_block_sparsity"],
        ["compare", "--factor", "loss", "--a", "kl", "--b", "ce"],
    ],
    ids=lambda command: command[0],
)
def test_every_command_accounts_for_all_runs(made: Path, tmp_path: Path, capsys: Captured, command: list[str]) -> None:
    name, *options = command
    where = [] if name in ("table", "landmarks", "compare") else ["--output", tmp_path]
    told = output(capsys, name, made, *options, *where)
    assert bool(where) == any(tmp_path.iterdir())
    assert f"24 finished runs in {made}" in told
    assert f"1 unfinished:\n  {made / 'stopped'}" in told
    if name not in ("values", "pareto", "curve", "figures"):
        told = output(capsys, name, made, *options, *where, "--where", "criterion=l2")
        assert f"12 finished runs in {made}\n12 more that --where criterion=l2 leaves out" in told


def test_files_go_into_the_sweep_unless_told_otherwise(study: Path, capsys: Captured) -> None:
    compared = ("compare", study, "--factor", "loss", "--a", "kl", "--b", "ce", "--draw")
    only = ("figures", study, "--only", "criteria")
    for arguments, folder, name in (
        (("collect", study), study, "results.csv"),
        (("values", study), study, "values.tex"),
        (("curve", study), study / "figures", "accuracy_vs_block_sparsity.pdf"),
        (("pareto", study), study / "figures", "pareto_accuracy_vs_parameters.pdf"),
        (only, study / "figures", "criteria.pdf"),
        (compared, study / "figures", "loss_kl_minus_ce.pdf"),
    ):
        told = output(capsys, *arguments)
        assert (folder / name).exists() and str(folder / name) in told, arguments


def test_venue_sets_the_width_of_a_figure(made: Path, tmp_path: Path, capsys: Captured) -> None:
    widths = {}
    for venue in ("plain", "jmlr"):
        output(capsys, "curve", made, "--facet", "--venue", venue, "--output", tmp_path / venue)
        svg = next((tmp_path / venue).glob("*.svg")).read_text()
        widths[venue] = re.search(r'<svg[^>]* width="([\d.]+)pt"', svg)
    assert widths["plain"] and widths["jmlr"]
    assert widths["plain"][1] != widths["jmlr"][1]


def test_only_the_figures_that_were_asked_for(made: Path, tmp_path: Path, capsys: Captured) -> None:
    output(capsys, "figures", made, "--only", "criteria", "--output", tmp_path)
    assert {path.stem for path in tmp_path.glob("*.pdf")} == {"criteria"}
    # a figure that was asked for by name and cannot be drawn is an error, not a gap
    refusal(capsys, "figures", made, "--only", "capacity_gap", "criteria", "--output", tmp_path)


def test_all_figures_tell_which_are_not_drawn_and_why(made: Path, tmp_path: Path, capsys: Captured) -> None:
    told = output(capsys, "figures", made, "--where", "criterion=l2", "sparsity=0.5", "--output", tmp_path)
    drawn, _, left_out = told.partition("not drawn:\n")
    assert f"figure: {tmp_path / 'loss_kl_minus_ce.pdf'}\n" in drawn
    assert re.search(r"^  capacity_gap: .{20,}", left_out, re.MULTILINE)


def test_formats_of_a_table(made: Path, capsys: Captured) -> None:
    starts = {"markdown": "Accuracy", "latex": "% Accuracy", "html": "<table>"}
    for form, start in starts.items():
        assert main(["table", str(made), "--format", form]) == 0
        said = capsys.readouterr()
        assert said.out.startswith(start)
        # a file that stdout is sent to holds the table alone; what is left out is said beside it
        assert "finished runs" not in said.out
        assert "24 finished runs" in said.err and "1 unfinished:" in said.err


def test_roles_of_a_table(made: Path, capsys: Captured) -> None:
    told = output(capsys, "table", made, "--y", "nll", "--facet", "loss", "--colour", "criterion")
    assert told.startswith("Negative log-likelihood of the answer (nats)")
    assert re.search(r"^loss +criterion +0 % +50 %$", told, re.MULTILINE)
    told = output(capsys, "table", made, "--y", "seconds", "--y-better", "lower", "--line", "loss", "schedule")
    assert told.startswith("seconds on test questions") and re.search(
        r"^criterion +loss +schedule ", told, re.MULTILINE
    )


def test_landmarks_of_another_share(made: Path, capsys: Captured) -> None:
    assert "50 % kept at" in output(capsys, "landmarks", made, "--kept", "0.5")


def test_values_are_those_of_the_records(study: Path, capsys: Captured) -> None:
    told = output(capsys, "values", study)
    number = re.match(r"(\d+) values\n", told)
    assert number is not None
    lines = (study / "values.csv").read_text().splitlines()
    assert len(lines) == int(number[1]) + 1
    assert 'study/parameters/l2/kl/50,"2,800,000"' in lines


def test_compare_declares_its_family_and_its_power(made: Path, capsys: Captured) -> None:
    compared = ("compare", made, "--factor", "loss", "--a", "kl", "--b", "ce")
    told = output(capsys, *compared)
    verdicts = [line for line in told.splitlines() if "100 questions x 2 seeds" in line]
    assert len(verdicts) == 4 and all("same units" in line for line in verdicts)
    # two seeds say too little of their spread to plan from
    assert "to see 2 points" not in told
    smaller = output(capsys, *compared, "--where", "criterion=l2", "sparsity=0.5")
    assert smaller.count("100 questions x 2 seeds") == 1 and "after Holm" not in smaller


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["collect", "--where", "colour=red"],
            ["--where colour=red", "no run has it", "criterion, ", "dotted config key"],
        ),
        (["collect", "--where", "loss"], ["--where loss: must be COLUMN=VALUE[,VALUE], such as loss=ce,kl."]),
        (["collect", "--where", "loss=mse"], ["--where loss=mse", "there are ce, kl, none"]),
        (["collect", "--where", "loss=ce", "loss=kl"], ["--where loss=kl", "given twice", "loss=VALUE,VALUE"]),
        (["table", "--facet", "colour"], ["colour: no run has it", "criterion, ", "dotted config key"]),
        (["table", "--colour", "colour"], ["colour: no run has it"]),
        (["table", "--facet", "loss", "--colour", "loss"], ["loss: is given two roles", "--facet, --colour"]),
        (["table", "--colour", "sparsity"], ["sparsity: is varied along the x-axis target"]),
        (["table", "--x", "colour"], ["colour: no run has it", "for an axis, a metric or a kind of sparsity"]),
        (["table", "--x", "loss"], ["--x loss: is no number", "target, block, model", "dotted config key"]),
        (["table", "--x", "bytes"], ["No run has accuracy on test questions against bytes", "analysis collect"]),
        (["table", "--y", "acuracy"], ["acuracy: is no metric", "accuracy, ", "--y-better lower"]),
        (["curve", "--y", "bytes"], ["No run has bytes on test questions", "analysis collect"]),
        (["landmarks", "--kept", "95"], ["--kept 95: must be a share", "such as 0.95"]),
        (["pareto", "--x", "size"], ["size: is no metric", "parameters, ", "--x-better"]),
        (["compare", "--factor", "colour", "--a", "x", "--b", "y"], ["--factor colour: no run has it", "criterion, "]),
        (["compare", "--factor", "loss", "--a", "kl", "--b", "mse"], ["loss=mse: no finished run", "ce, kl, none"]),
        (["compare", "--factor", "loss", "--a", "kl", "--b", "kl"], ["--a kl --b kl: give two different values"]),
        (["compare", "--factor", "seed", "--a", "0", "--b", "1"], ["--factor seed", "paired by it"]),
        (["compare", "--factor", "loss", "--a", "kl", "--b", "ce", "--see", "0"], ["--see 0: must be", "such as 2"]),
    ],
    ids=" ".join,
)
def test_what_the_user_can_mend(made: Path, capsys: Captured, arguments: list[str], said: list[str]) -> None:
    name, *options = arguments
    told = refusal(capsys, name, made, *options)
    for each in said:
        assert each in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize("command", ["collect", "table", "figures", "curve", "landmarks", "pareto", "values"])
def test_folders_without_a_finished_run(tmp_path: Path, capsys: Captured, command: str) -> None:
    nowhere = tmp_path / "nowhere"
    assert refusal(capsys, command, nowhere).startswith(f"{nowhere}: is no folder. Give the folder of a sweep")
    study = tmp_path / "study"
    failed = replace(sweeps.record(), status="failed", error="CUDA out of memory")
    folder = sweeps.save(failed, study, with_predictions=False)
    told = refusal(capsys, command, study)
    assert f"1 failed:\n  {folder}: CUDA out of memory" in told
    assert told.endswith("Nothing to analyse. Run the sweep first.")
    assert f"Give the sweep's, {study}" in refusal(capsys, command, folder)


def test_mixed_schema_versions(study: Path, capsys: Captured) -> None:
    old = next(study.glob(f"*/{RECORD}"))
    old.write_text(json.dumps(json.loads(old.read_text()) | {"schema_version": 0}))
    told = output(capsys, "collect", study)
    assert "23 finished runs" in told
    assert f"1 unreadable:\n  {old.parent}: schema_version=0" in told


def test_one_seed(tmp_path: Path, capsys: Captured) -> None:
    study = sweeps.grid(tmp_path / "study", sparsities=(0.0, 0.5), seeds=(0,), questions=100)
    told = output(capsys, "table", study)
    assert "1 seed unless" in told and "Wilson" in told and "t quantiles" not in told
    assert "±" not in "\n".join(output(capsys, "landmarks", study).splitlines()[:8])
    told = output(capsys, "compare", study, "--factor", "loss", "--a", "kl", "--b", "ce")
    assert told.count("other seeds are not known, so nothing is claimed") == 3 and "better" not in told
    assert "answer every question alike" in told


def test_missing_predictions(study: Path, capsys: Captured) -> None:
    for path in study.glob(f"*/{PREDICTIONS}"):
        path.unlink()
    told = refusal(capsys, "compare", study, "--factor", "loss", "--a", "kl", "--b", "ce")
    assert f"{PREDICTIONS}: is missing" in told and "Run the sweep again" in told
    # what needs no predictions is still told, and what does is named
    assert "not tested at 0 %, 50 %" in output(capsys, "table", study)
    assert "difference of kl and ce: not told" in output(capsys, "values", study)


def test_two_tasks_with_different_questions(tmp_path: Path, capsys: Captured) -> None:
    study = tmp_path / "study"
    for task, questions in (("facts", 100), ("sums", 40)):
        for loss in ("ce", "kl"):
            for seed in (0, 1):
                one = sweeps.record(loss=loss, seed=seed, questions=questions)
                config = one.config | {"task": one.config["task"] | {"_target_": task}}
                one = replace(one, config=config, choices=one.choices | {"task": task}, run_id=sweeps.digest(config))
                sweeps.save(one, study)
    told = output(capsys, "table", study)
    assert re.search(r"^L2 +facts +CE ", told, re.MULTILINE) and re.search(r"^L2 +sums +KL ", told, re.MULTILINE)
    assert "40 to 100 questions" in told
    told = output(capsys, "compare", study, "--factor", "loss", "--a", "kl", "--b", "ce")
    assert "task facts" in told and "task sums" in told
    assert "dense facts" in output(capsys, "table", study, "--facet", "task")
    told = refusal(capsys, "compare", study, "--factor", "task", "--a", "facts", "--b", "sums")
    assert "answered different questions" in told and "--where task=NAME" in told


def test_a_command_that_is_not_there(made: Path, capsys: Captured) -> None:
    for arguments in (["draw", str(made)], ["status"], ["table", str(made), "--format", "pdf"], []):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
        assert "usage: python -m analysis" in capsys.readouterr().err
    assert "SWEEP: is missing. Give the folder of a sweep" in refusal(capsys, "table")


def test_as_a_program(tmp_path: Path) -> None:
    asked = subprocess.run(
        [sys.executable, "-m", "analysis", "figures", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert asked.returncode == 2
    assert "Nothing to analyse" in asked.stderr and "Traceback" not in asked.stderr
