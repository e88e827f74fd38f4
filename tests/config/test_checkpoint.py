"""Which config a checkpoint is evaluated with."""

from __future__ import annotations

from pathlib import Path

import pytest

from regraft.config.checkpoint import Checkpoint, as_its_run
from regraft.config.ranges import ConfigError
from regraft.records import Record

OWN = {"model": "m1", "task": {"name": "t1", "scoring": "cloze"}, "preparation": "p1", "evaluation": "e1"}
OWN |= {"sparsity": 0.5, "seed": 3, "tracker": "own"}
COMPOSED = {"model": "m0", "task": {"name": "t0", "scoring": "letter"}, "preparation": "p0", "evaluation": "e0"}
COMPOSED |= {"sparsity": 0.0, "seed": 0, "tracker": "given"}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "checkpoint"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    record = Record(
        run_id="r", sweep="s", status="finished", error=None, config=OWN, choices={}, environment={}, stages=[], rows=[]
    )
    record.save(folder.parent)
    return folder


def test_that_of_its_own_run(checkpoint: Path) -> None:
    merged = as_its_run(COMPOSED | {"evaluate": str(checkpoint)}, [f"evaluate={checkpoint}"])
    assert merged == OWN | {"tracker": "given", "evaluate": str(checkpoint)}


def test_a_choice_on_the_command_line_replaces_a_group(checkpoint: Path) -> None:
    merged = as_its_run(COMPOSED | {"evaluate": str(checkpoint)}, ["task=t0"])
    assert merged["task"] == COMPOSED["task"] and merged["model"] == "m1"


def test_a_key_on_the_command_line_changes_that_key_only(checkpoint: Path) -> None:
    merged = as_its_run(COMPOSED | {"evaluate": str(checkpoint)}, ["task.scoring=letter"])
    assert merged["task"] == {"name": "t1", "scoring": "letter"}


def test_a_folder_of_nobodys_run_takes_the_command_line(checkpoint: Path) -> None:
    (checkpoint.parent / "record.json").unlink()
    composed = COMPOSED | {"evaluate": str(checkpoint)}
    assert as_its_run(composed, []) == composed
    assert Checkpoint(checkpoint).run is None


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"evaluate=.*: must be a folder with a saved model"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("override", ["model=m0", "sparsity=0.1"])
def test_what_its_run_did_not_do_is_refused(checkpoint: Path, override: str) -> None:
    key, _, _ = override.partition("=")
    assert COMPOSED[key] != OWN[key]
    with pytest.raises(ConfigError, match=rf"{override}: must be left out, or be as in the run that made evaluate="):
        as_its_run(COMPOSED | {"evaluate": str(checkpoint)}, [f"evaluate={checkpoint}", override])
