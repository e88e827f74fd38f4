"""How far a sweep is, from folders made up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from sweeps import record

from analysis.__main__ import main
from regraft.records import BEGUN, CLAIM, Launch, Manifest, Record


def leave(folder: Path, run_id: str, **changes: object) -> None:
    (folder / run_id / ".hydra").mkdir(parents=True)
    replace(record(), run_id=run_id, **changes).save(folder / run_id)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "study"
    leave(folder, "done", environment={"commit": "aaaa"})
    leave(folder, "also", environment={"commit": "bbbb+"})
    leave(folder, "wrong", status="failed", error="out of memory: 3 GiB\n\nTraceback ...", rows=[])
    leave(folder, "edited")
    for name in ("now", "killed", "stopped"):
        (folder / name / ".hydra").mkdir(parents=True)
    (folder / "killed" / BEGUN).touch()
    launch = Launch(time="2026-11-21T07:00:00+00:00", commit="aaaa", overrides=["loss=ce,kl"], runs=7)
    asked = ["done", "also", "wrong", "now", "killed", "stopped", "absent"]
    runs = {name: [f"loss={name}"] for name in asked}
    Manifest(sweep="study", runs=runs, launches=[launch]).save(folder)
    return folder


def test_each_run_is_accounted_for(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FileLock(study / "now" / CLAIM):
        assert main(["status", str(study)]) == 0
    told = capsys.readouterr().out
    assert (
        "7 runs asked for by 1 launches: 2 finished, 1 failed, 1 running, 2 interrupted, 1 missing, 1 stray" in told
    )
    for line in (
        "  wrong  loss=wrong  out of memory: 3 GiB\n",
        "  now  loss=now\n",
        "  killed  loss=killed  killed\n",
        "  stopped  loss=stopped\n",
        "  absent  loss=absent\n",
        "  edited  finished\n",
        "mixed code versions: 1 by aaaa, 1 by bbbb+.",
    ):
        assert line in told
    assert "Traceback" not in told


def test_collect_names_what_is_missing(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("also", "edited"):
        (study / name / "record.json").unlink()
    assert main(["collect", str(study)]) == 0
    told = capsys.readouterr().out
    assert f"1 asked for and not begun:\n  {study / 'absent'}: loss=absent" in told
    assert f"{study / 'killed'}: it was stopped or killed" in told


def test_what_is_no_sweep_is_told(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, message in (
        (study / "nowhere", "is no folder"),
        (study / "done", "is the folder of one run"),
        (study / "now", "has no manifest.json"),
    ):
        assert main(["status", str(folder)]) == 2
        assert message in capsys.readouterr().err
    (study / "manifest.json").write_text('{"schema_version": 7}')
    assert main(["status", str(study)]) == 2
    assert "schema_version=7" in capsys.readouterr().err
    (study / "manifest.json").write_text('{"schema_version": 1, "ru')
    assert main(["status", str(study)]) == 2
    assert "not a whole manifest" in capsys.readouterr().err


def test_a_record_of_another_schema_is_left_alone(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Record.load(study / "done")
    text = (study / "done" / "record.json").read_text().replace('"schema_version": 1', '"schema_version": 9')
    (study / "done" / "record.json").write_text(text)
    assert main(["status", str(study)]) == 0
    assert "  done  loss=done  of another version\n" in capsys.readouterr().out
