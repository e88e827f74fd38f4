"""Bad input: a clear message, a non-zero exit, nothing half-written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from conftest import BRIEF, records

from analysis import status
from regraft.__main__ import conf
from regraft.records import Manifest

CASES = [
    (["sparsity=1.5"], "sparsity=1.5: must be a number in [0, 1)."),
    (["sparsity=nan"], "sparsity=nan: must be a number in [0, 1)."),
    (["sparsity=half"], "sparsity=half: input should be a valid number"),
    (["loss=kll"], "Could not find 'loss/kll'"),
    (["loss=kll"], "kl"),  # what is allowed
    (["los=kl"], "los"),
    (["pruner=combined", "pruner.shuffled=true"], "pruner.shuffled: no such key with the choices that are made."),
    (["pruner=combined", "pruner.shuffled=true"], "regraft pruner=combined --cfg job --package pruner"),
    (["-m", "pruner=combined", "pruner.shuffled=true,false"], "regraft pruner=combined --cfg job --package pruner"),
    (["+pruner.shuffled=true", "pruner=combined"], "pruner.shuffled: no such key; Combined has parts, budget."),
    (["sparsty=0.5"], "sparsty: no such key"),
    (["loss.temperature=0"], "loss.temperature=0.0: must be a finite number above 0."),
    (["loss._target_=os.system"], "loss._target_=os.system: must be a component of regraft"),
    (["loss._target_=regraft.cache.shutil.rmtree"], "loss._target_=regraft.cache.shutil.rmtree: must"),
    (["recovery.learning_rate=-1"], "recovery.learning_rate=-1.0: must be above 0."),
    (["task=local_jsonl"], "is missing"),
    (["evaluate=nowhere"], "evaluate=nowhere: must be a folder with a saved model"),
    (["-m", "sparsity=0.1,0.2,7"], "sparsity=7.0: must be a number in [0, 1)."),
    (["pruner.criterion.projections=[gaet]"], "pruner.criterion.projections"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), CASES, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_the_config_decides_at_once_and_writes_nothing(regraft, tmp_path: Path, arguments, message) -> None:
    result = regraft(*arguments)
    assert result.returncode != 0
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.rglob("*")), "something was written"


def left(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*.json")}


def test_what_another_version_wrote_is_left_as_it_is(regraft, tmp_path: Path) -> None:
    run = ["loss=none", "sweep=mine", *BRIEF]
    assert regraft(*run).returncode == 0
    (record,) = (tmp_path / "multirun" / "mine").glob("*/record.json")
    record.write_text(record.read_text().replace('"schema_version": 1', '"schema_version": 9'))
    before = left(tmp_path)
    for arguments in (run, ["-m", *run, "sparsity=0.5,0.6"]):
        result = regraft(*arguments)
        assert result.returncode == 1 and "Traceback" not in result.stderr
        assert f"{record.relative_to(tmp_path)}: schema_version=9" in result.stderr and "sweep=NAME" in result.stderr
        assert left(tmp_path) == before
    record.unlink()
    manifest = record.parents[1] / "manifest.json"
    manifest.write_text('{"schema_version": 9}')
    result = regraft("-m", *run)
    assert result.returncode == 1 and "manifest.json: schema_version=9" in result.stderr
    assert manifest.read_text() == '{"schema_version": 9}' and not list(record.parents[1].glob("*/record.json"))


def test_a_run_without_a_sweep_is_single_and_not_stray(regraft, tmp_path: Path) -> None:
    assert regraft("loss=none", "sweep=mine", *BRIEF).returncode == 0
    folder = tmp_path / "multirun" / "mine"
    assert "0 runs asked for by 0 launches: 1 single" in status.told([folder])[0]
    assert regraft("-m", "loss=none", "sparsity=0.25", "sweep=mine", *BRIEF).returncode == 0
    (name,) = {path.parent.name for path in folder.glob("*/record.json")} - set(Manifest.load(folder).runs)
    told = status.told([folder])
    assert "1 runs asked for by 1 launches: 1 finished, 1 single" in told[0]
    assert f"  {name}  finished" in told


def test_half_a_record_is_no_result(regraft, tmp_path: Path) -> None:
    run = ["loss=none", "sweep=mine", *BRIEF]
    assert regraft(*run).returncode == 0
    (record,) = (tmp_path / "multirun" / "mine").glob("*/record.json")
    whole = json.loads(record.read_text())
    record.write_text(record.read_text()[:500])
    assert regraft(*run).returncode == 0
    again = json.loads(record.read_text())
    assert [row["value"] for row in again["rows"]] == [row["value"] for row in whole["rows"]]


def test_a_checkpoint_that_is_broken_or_of_another_config_is_told(regraft, tmp_path: Path) -> None:
    assert regraft("loss=none", "sweep=mine", "save_model=true", *BRIEF).returncode == 0
    (checkpoint,) = (tmp_path / "multirun" / "mine").glob("*/checkpoint")
    other = regraft(f"evaluate={checkpoint}", "model.vocab_size=300", "tracker=none")
    assert other.returncode == 1 and "Traceback" not in other.stderr
    assert "model.vocab_size=300: must be left out" in other.stderr and f"evaluate={checkpoint}" in other.stderr
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    torn = regraft(f"evaluate={checkpoint}", "tracker=none")
    assert torn.returncode == 1 and "Traceback" not in torn.stderr
    assert f"{checkpoint}: the checkpoint cannot be read" in torn.stderr


EDITS_ITS_YAML = """
from dataclasses import dataclass
from pathlib import Path
from regraft.distillation.losses.cross_entropy import CrossEntropy

@dataclass(frozen=True, kw_only=True)
class Edited(CrossEntropy):
    weight: float = 1.0

    def __call__(self, batch, student, teacher, moment):
        Path(__file__).with_name("loss").joinpath("edited.yaml").write_text("_target_: edited.Edited\\nweight: 2.0\\n")
        return super().__call__(batch, student, teacher, moment)
"""


def test_a_file_that_is_edited_while_the_sweep_runs_files_nothing_under_the_old_label(regraft, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    (mine / "loss").mkdir(parents=True)
    (mine / "edited.py").write_text(EDITS_ITS_YAML.replace("\\\\", "\\"))
    (mine / "loss" / "edited.yaml").write_text("_target_: edited.Edited\nweight: 1.0\n")
    result = regraft("-m", "--config-dir", str(mine), "loss=edited", "seed=0,1", "sweep=mine", *BRIEF)
    assert result.returncode == 1
    assert "1 of 2 runs failed" in result.stderr and "the config changed after the sweep had begun" in result.stderr
    folder = tmp_path / "multirun" / "mine"
    found = {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/record.json")}
    assert sorted(record["config"]["loss"]["weight"] for record in found.values()) == [1.0, 2.0]
    asked = json.loads((folder / "manifest.json").read_text())["runs"]
    assert len(asked) == 2 and len(set(found) & set(asked)) == 1
    told = "\n".join(status.told([folder]))
    assert "1 finished, 1 missing, 1 stray" in told


def test_a_loss_that_needs_labels_is_refused_on_an_unlabelled_task(regraft, tmp_path: Path) -> None:
    rows = [{"question": f"{n}?", "choices": ["yes", "no"]} for n in range(4)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "test.jsonl").write_text(json.dumps(rows[0] | {"answer": 0}))
    files = [f"task.train={tmp_path}/train.jsonl", f"task.test={tmp_path}/test.jsonl", "task.labelled=false"]
    result = regraft("task=local_jsonl", *files, "loss=ce")
    assert result.returncode == 1
    assert "loss needs labels" in result.stderr and "loss=kl" in result.stderr


def test_help_and_errors_come_without_torch(regraft) -> None:
    told = regraft("--help", PYTHONPROFILEIMPORTTIME="1")
    assert told.returncode == 0
    for group in ("loss", "teacher", "batches", "hydra/launcher", "hydra/sweeper"):
        (line,) = [line for line in told.stdout.splitlines() if line.startswith(f"{group}: ")]
        own = {path.stem for path in (Path(conf()) / group).glob("*.yaml")}
        assert own and own <= set(line.partition(": ")[2].split(", "))
    footer = told.stdout[told.stdout.index("Results: ") :]
    assert {"status", "table", "compare", "tune", "figures", "report"} <= set(re.findall(r"\w+", footer))
    wrong = regraft("sparsity=2", PYTHONPROFILEIMPORTTIME="1")
    for result in (told, wrong):
        assert "pydantic" in result.stderr and "torch" not in result.stderr and "pandas" not in result.stderr


def test_points_of_a_grid_that_do_not_go_together_refuse_it_or_are_left_out(regraft, tmp_path: Path) -> None:
    grid = ("-m", "pipeline.repeat=[recover,evaluate]", "sparsity=0,0.5", "loss=none", *BRIEF)
    refused = regraft(*grid)
    assert refused.returncode != 0 and not records(tmp_path)
    assert ": sparsity=0.5: must be 0 with a pipeline that prunes nothing" in refused.stderr
    done = regraft(*grid, "hydra.sweeper.skip_refused=true")
    assert done.returncode == 0, done.stderr
    assert [record.config["sparsity"] for record in records(tmp_path)] == [0]
    assert "1 points of the grid are left out: sparsity=0.5: must be 0" in done.stdout + done.stderr
