"""Bad input: a clear message, a non-zero exit, nothing half-written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

CASES = [
    (["sparsity=1.5"], "sparsity=1.5: must be a number in [0, 1)."),
    (["sparsity=nan"], "sparsity=nan: must be a number in [0, 1)."),
    (["sparsity=half"], "sparsity=half: input should be a valid number"),
    (["loss=kll"], "Could not find 'loss/kll'"),
    (["loss=kll"], "kl"),  # what is allowed
    (["los=kl"], "los"),
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
    assert "loss: ce, ce_kl, kl, none, pseudo_label" in told.stdout
    wrong = regraft("sparsity=2", PYTHONPROFILEIMPORTTIME="1")
    for result in (told, wrong):
        assert "pydantic" in result.stderr and "torch" not in result.stderr and "pandas" not in result.stderr
