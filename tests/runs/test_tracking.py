"""Whole sweeps that log to the stand-in W&B server while they go."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb
from conftest import BRIEF, Regraft, records
from processes_apart import start, wait_for
from recorded import ENTITY, expected_history, on_disk, wandb_path
from wandb_server import WandbServer

from analysis.__main__ import FETCHED
from analysis.__main__ import main as analyse
from regraft.tracking.wandb.log import digest
from regraft.tracking.wandb.sync import main as sync

FAULTY = ["--config-dir", str(Path(__file__).parents[1] / "faulty"), "pruner/criterion=faulty"]
PROJECT = "regraft"
ONLINE = [*(override for override in BRIEF if override != "tracker=none"), "tracker.mode=online"]
TOKEN, NETRC, PASSWORD = "planted-token-0123456789", "planted-netrc-0123456789", "planted-pass"
"""None of them has the shape of a token of a service that is known; the password is told by its place."""


@pytest.fixture
def planted(wandb_server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What must be found nowhere; all processes of the test know it."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("PASSWORD", PASSWORD)
    (tmp_path / "netrc").write_text(f"machine example.org login someone password {NETRC}\n")
    return [wandb_server.api_key, TOKEN, NETRC, PASSWORD]


def leaks(secrets: list[str], tmp_path: Path, server: WandbServer) -> Iterator[str]:
    """Where a secret stands: in files of the test but for netrc, and in what the server got."""
    places = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "netrc"}
    places |= {f"storage {name}": body for name, body in server.backend.storage.items()}
    places |= {f"call {number} {call.name}": call.body for number, call in enumerate(server.calls)}
    for place, content in places.items():
        for secret in secrets:
            if secret.encode() in content:
                yield f"{place}: {secret}"


def folders(sweep: Path) -> list[Path]:
    return sorted(path.parent for path in sweep.glob("*/record.json"))


def assert_mirrored(server: WandbServer, folder: Path, state: str = "finished") -> None:
    """W&B holds what the record holds, once."""
    run = wandb.Api().run(wandb_path(folder, PROJECT))
    assert run.state == state
    rows, expected = list(run.scan_history()), expected_history(folder)
    assert [row["_step"] for row in rows] == sorted(expected)
    for row in rows:
        assert {key: row.get(key) for key in expected[row["_step"]]} == pytest.approx(expected[row["_step"]])
    assert run.summary["record"] == digest(folder)
    held = [each for each in server.artifacts if each.artifactSequence.name == f"record-{run.id}"][-1]
    contents = {name: server.backend.storage[f"objects/{entry['digest']}"] for name, entry in held.entries().items()}
    expected_files = on_disk(folder)
    if state == "failed":
        # the texts are written by the first run that finishes, which may be before or after
        contents.pop("questions.parquet", None)
        del expected_files["questions.parquet"]
    assert contents == expected_files
    assert not (folder / "wandb").exists()


def test_a_sweep_is_mirrored_and_tells_no_secret(
    regraft: Regraft,
    wandb_server: WandbServer,
    planted: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In two processes, with a run whose error holds secrets."""
    sweep = ["hydra/launcher=two_processes", "sweep=mine", "seed=0,1", "loss=kl"]
    fault = ["pruner.criterion.fault=secret", "+pruner.criterion.at=1", "sparsity=0.5"]
    result = regraft("-m", *FAULTY, *sweep, *fault, *ONLINE)
    told = result.stdout + result.stderr
    assert result.returncode == 1 and "1 of 2 runs failed" in result.stderr, told
    assert "the hub refuses [secret] at https://[secret]@hub/model" in told
    assert not [line for line in told.splitlines() if re.search(r"\bwandb[_:.]|\bW&B\b", line)], told

    monkeypatch.chdir(tmp_path)
    study = Path("multirun/mine")
    found = records(study)
    assert sorted(record.status for record in found) == ["failed", "finished"]
    for record in found:
        assert_mirrored(wandb_server, study / record.run_id, record.status)
        if record.status == "failed":
            error = wandb.Api().run(wandb_path(study / record.run_id, PROJECT)).summary["error"]
            assert error == "the hub refuses [secret] at https://[secret]@hub/model"
    assert {run.displayName for run in wandb_server.runs} == {"faulty 50% kl seed 0", "faulty 50% kl seed 1"}
    for line in (study / found[0].run_id / "run.log").read_text().splitlines():
        assert " wandb" not in line, "W&B's own talk is in the run's log"

    before = len(wandb_server.names())
    assert sync([str(study)]) == 0
    assert not [name for name in wandb_server.names()[before:] if name in ("UpsertBucket", "file_stream")]

    capsys.readouterr()
    shown = []
    for source in (["multirun/mine"], ["--from", f"wandb:{ENTITY}/{PROJECT}"]):
        for command in ("collect", "table"):
            assert analyse([command, *source]) == 0
        shown.append(capsys.readouterr().out.replace(f"{FETCHED}/{ENTITY}/{PROJECT}", "multirun"))
    assert shown[0] == shown[1]
    kept = Path(FETCHED, ENTITY, PROJECT, "mine")
    for name in ("results.parquet", "results.csv"):
        assert (kept / name).read_bytes() == (study / name).read_bytes()

    assert not list(leaks(planted, tmp_path, wandb_server))
    assert not [secret for secret in planted if secret in told + "".join(shown)]


@pytest.mark.parametrize("many", [(), ("-m", "seed=0,1")], ids=["one run", "sweep"])
def test_a_config_that_holds_a_secret_is_refused_and_kept_nowhere(
    regraft: Regraft, wandb_server: WandbServer, planted: list[str], tmp_path: Path, many: tuple[str, ...]
) -> None:
    for place in (f"https://someone:{PASSWORD}@host/train.jsonl", f"/data/{TOKEN}.jsonl"):
        result = regraft(*many, "task=local_jsonl", f"task.train={place}", "task.test=/data/test.jsonl", "sweep=bad")
        assert result.returncode == 1
        assert "task.train: holds what looks like a key, a token or a password" in result.stderr, result.stderr
        assert not [secret for secret in planted if secret in result.stdout + result.stderr]
    for beside in (
        f"+hydra.job.env_set.MINE={TOKEN}",
        "+hydra.job.env_set.MY_TOKEN=anything",
        "hydra.job.env_copy=[HF_TOKEN]",
    ):
        result = regraft(*many, beside, "sweep=bad")
        assert (
            result.returncode == 1 and "hydra.job" in result.stderr and "holds what looks like a key" in result.stderr
        )
    assert not list(leaks(planted, tmp_path, wandb_server))
    assert not list(tmp_path.rglob("record.json"))


@pytest.mark.slow
def test_a_run_that_is_told_to_stop_goes_on_in_its_w_and_b_run(
    regraft: Regraft, wandb_server: WandbServer, tmp_path: Path, warm_cache: Path
) -> None:
    run = ["sweep=halved", "loss=kl", "sparsity=0.6", *(each for each in ONLINE if "recovery" not in each)]
    run += ["recovery.steps=60", "runtime.checkpoint_steps=10"]
    process = start(tmp_path, warm_cache, *run)
    wait_for(lambda: list((warm_cache / "progress").glob("*.safetensors")), process)
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + signal.SIGTERM and "Traceback" not in told, told
    (mirrored,) = wandb_server.runs
    assert mirrored.state == "preempted" and "record" not in mirrored.summary()
    half = [row["recover/step"] for row in mirrored.rows() if "recover/loss" in row]
    assert half == list(range(1, len(half) + 1)) and 10 <= len(half) < 60
    again = regraft(*run, REGRAFT_CACHE=str(warm_cache))
    assert again.returncode == 0, again.stderr
    (folder,) = folders(tmp_path / "multirun" / "halved")
    assert_mirrored(wandb_server, folder)
    assert [row["recover/step"] for row in mirrored.rows() if "recover/loss" in row] == list(range(1, 61))
    assert len(wandb_server.runs) == 1


@pytest.mark.slow
def test_a_server_that_is_killed_in_the_middle_of_a_sweep_costs_little_and_nothing_is_lost(
    wandb_server: WandbServer, planted: list[str], tmp_path: Path, shared_cache: Path
) -> None:
    """While the second of three runs goes: the first is whole, and the third does not try."""
    sweep = ["-m", "sweep=alone", "seed=0,1,2", "loss=kl", *ONLINE, "tracker.timeout=2"]
    process = start(tmp_path, shared_cache, *sweep)
    wait_for(lambda: len(wandb_server.runs) == 2, process)
    wandb_server.close()
    told = process.communicate(timeout=120)[0]
    assert process.returncode == 0, told
    study = tmp_path / "multirun" / "alone"
    assert [record.status for record in records(study)] == ["finished"] * 3
    warned = [line for line in told.splitlines() if "make sync" in line]
    assert len(warned) == 1 and "W&B: " in warned[0], told
    assert list(study.glob("*/wandb")), "the mirror that broke off left nothing that could tell a secret"
    assert not list(leaks(planted, tmp_path, wandb_server))
    wandb_server.restart()
    assert sync([str(study)]) == 0
    for folder in folders(study):
        assert_mirrored(wandb_server, folder)
    assert len(wandb_server.runs) == 3
