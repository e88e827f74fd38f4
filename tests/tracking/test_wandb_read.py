"""`python -m analysis ... --from wandb:ENTITY/PROJECT`: the same from W&B as from the disk."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import wandb
from recorded import ENTITY, PROJECT, begun, on_disk, recorded, wandb_path
from wandb_server import WandbServer

from analysis.__main__ import FETCHED, main
from regraft.records import QUESTIONS, Record
from regraft.tracking.replay import info
from regraft.tracking.wandb import sync
from regraft.tracking.wandb.log import Wandb, digest

SOURCE = f"wandb:{ENTITY}/{PROJECT}"
KEPT = Path(FETCHED) / ENTITY / PROJECT
ONLINE = Wandb(mode="online", project=PROJECT)

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wandb_server: WandbServer
) -> Say:
    """Gives a command in the test's own folder; exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main(arguments)
        except SystemExit as left:
            code = int(left.code or 0)
        return code, *capsys.readouterr()

    return call


def study(root: Path = Path("multirun")) -> list[Path]:
    """A sweep of two losses and two seeds, and a run that failed."""
    folders = [recorded(root, loss=loss, seed=seed) for loss in ("ce", "kl") for seed in (0, 1)]
    return [*folders, recorded(root, seed=5, error="training diverged")]


def alien(name: str, **config: Any) -> wandb.Run:
    """A W&B run of somebody else."""
    return wandb.init(
        project=PROJECT, id=name, config=config, settings=wandb.Settings(console="off", x_disable_stats=True)
    )


def fetched(server: WandbServer) -> list[str]:
    """What was downloaded, in order."""
    return [name for name in server.names() if name.startswith("GET")]


def below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_from_w_and_b_all_is_as_from_the_disk(say: Say, wandb_server: WandbServer) -> None:
    folders = study()
    assert sync.main(["multirun/study"]) == 0
    for command in (
        ("collect",),
        ("collect", "--where", "loss=kl"),
        ("table",),
        ("table", "--y", "nll", "--format", "latex"),
        ("compare", "--factor", "loss", "--a", "kl", "--b", "ce"),
    ):
        disk, mirrored = say(command[0], "multirun/study", *command[1:]), say(*command, "--from", SOURCE)
        told = tuple(text.replace(f"{KEPT}/study", "multirun/study") for text in mirrored[1:])
        assert (mirrored[0], *told) == disk
        assert disk[0] == 0, disk
        if command[0] == "collect":
            for name in ("results.parquet", "results.csv"):
                assert (KEPT / "study" / name).read_bytes() == (Path("multirun/study") / name).read_bytes()
    for folder in folders:
        assert on_disk(KEPT / "study" / folder.name) == on_disk(folder)
    assert not list(KEPT.rglob(".*")), "what was only needed on the way is left"


@pytest.mark.slow
def test_a_report_from_w_and_b_is_that_from_the_disk(say: Say, wandb_server: WandbServer) -> None:
    study()
    assert sync.main(["multirun/study"]) == 0
    disk, mirrored = say("report", "multirun/study"), say("report", "--from", SOURCE)
    assert disk[0] == 0, disk
    told = tuple(text.replace(f"{KEPT}/study", "multirun/study") for text in mirrored[1:])
    assert (mirrored[0], *told) == disk
    assert below(KEPT / "study" / "figures") == below(Path("multirun/study/figures"))
    for page in Path("multirun/study").glob("report.*"):
        text = (KEPT / "study" / page.name).read_text()
        assert text.replace(f"{KEPT}/study", "multirun/study") == page.read_text()


def test_what_is_there_is_not_fetched_again(say: Say, wandb_server: WandbServer) -> None:
    folders = study()
    assert sync.main(["multirun/study"]) == 0
    assert say("collect", "--from", SOURCE)[0] == 0
    first = fetched(wandb_server)
    assert first
    times = {path: path.stat().st_mtime_ns for path in KEPT.rglob("record.json")}
    assert say("collect", "--from", SOURCE)[0] == 0
    assert fetched(wandb_server) == first
    assert {path: path.stat().st_mtime_ns for path in KEPT.rglob("record.json")} == times

    # one run is done again and sent, one is deleted in W&B, and one was torn here
    changed, deleted, torn = folders[:3]
    Record.load(changed).save(changed)
    (changed / "record.json").write_text((changed / "record.json").read_text() + "\n")
    assert sync.main(["multirun/study"]) == 0
    project = wandb_server.run(wandb_path(deleted)).project
    del project.members[wandb_path(deleted).split("/")[-1]]
    (KEPT / "study" / torn.name / "record.json").write_text("{")
    code, told, _ = say("collect", "--from", SOURCE)
    assert code == 0, told
    assert {path.parent.name for path in KEPT.rglob("record.json")} == {
        folder.name for folder in folders if folder != deleted
    }
    assert on_disk(KEPT / "study" / changed.name) == on_disk(changed)
    assert on_disk(KEPT / "study" / torn.name) == on_disk(torn)
    assert not (KEPT / "study" / deleted.name).exists()
    kept = KEPT / "study" / folders[3].name / "record.json"
    assert kept.stat().st_mtime_ns == times[kept]


def test_sweeps_are_chosen_by_name(say: Say, wandb_server: WandbServer) -> None:
    recorded(Path("multirun"))
    recorded(Path("multirun"), sweep="other", value=0.75)
    assert sync.main(["multirun/study", "multirun/other"]) == 0
    assert say("collect", "other", "--from", SOURCE)[0] == 0
    assert [path.name for path in KEPT.iterdir()] == ["other"]
    _, told, _ = say("collect", "study", "other", "--from", SOURCE)
    assert told.index("study") < told.index("other"), "of two runs the first counts: their order is the user's"
    shutil.rmtree(KEPT / "study")
    code, _, told = say("collect", "other", "absent", "--from", SOURCE)
    assert code == 2 and "there is no absent" in told and "make sync" in told
    assert say("collect", "--from", SOURCE)[0] == 0
    assert {path.name for path in KEPT.iterdir()} == {"other", "study"}
    assert on_disk(KEPT / "other" / "oneshotkl00") != on_disk(KEPT / "study" / "oneshotkl00")


def test_runs_that_w_and_b_has_in_part_are_named(say: Say, wandb_server: WandbServer) -> None:
    recorded(Path("multirun"))
    stopped, bare = recorded(Path("multirun"), seed=1), recorded(Path("multirun"), seed=2)
    running = recorded(Path("multirun"), seed=3)
    assert sync.main(["multirun/study"]) == 0
    for folder in (stopped, running):
        record = Record.load(folder)
        del wandb_server.run(wandb_path(folder)).project.members[wandb_path(folder).split("/")[-1]]
        ONLINE.open(info(begun(record), folder)).finish(None)
    served = wandb_server.run(wandb_path(running))
    served.exit_code, served.preempting = None, False
    for artifact in wandb_server.artifacts:
        if artifact.artifactSequence.name.endswith(wandb_path(bare).split("/")[-1]):
            artifact.run = None
            artifact.artifactSequence.versions.clear()
    before = below(Path())
    code, told, errors = say("table", "--from", SOURCE)
    assert code == 0, errors
    assert f"{KEPT}/study/{stopped.name}: in W&B it is preempted" in told
    assert f"{KEPT}/study/{running.name}: in W&B it is running" in told
    assert f"{KEPT}/study/{bare.name}: W&B has no record artifact of it" in told
    new = {Path(name).parts[4] for name in below(Path()) - before if name.startswith(FETCHED)}
    assert new == {"oneshotkl00", QUESTIONS}


@pytest.mark.parametrize("name", ["../escaped.json", "run.log", "deeper/record.json"])
def test_an_artifact_with_strange_files_is_not_fetched(
    say: Say, wandb_server: WandbServer, tmp_path: Path, name: str
) -> None:
    good, bad = recorded(Path("multirun")), recorded(Path("multirun"), seed=1)
    assert sync.main(["multirun/study"]) == 0
    (held,) = (each for each in wandb_server.artifacts if each.artifactSequence.name.endswith(wandb_path(bad)[-19:]))
    _smuggle(wandb_server, held, name)
    before = below(tmp_path)
    code, told, errors = say("table", "--from", SOURCE)
    assert code == 0, errors
    assert f"{KEPT}/study/{bad.name}: its artifact holds what no run leaves: {name}" in told
    new = {path for path in below(tmp_path) - before if not path.startswith("wandb/")}
    assert {path for path in new if not path.startswith(f"{KEPT}/study/{good.name}/")} == {
        f"{KEPT}/study/{QUESTIONS}/abcd1234.parquet"
    }


def _smuggle(server: WandbServer, artifact: Any, name: str) -> None:
    """Give the artifact one more file."""
    path = artifact.currentManifest.file.path
    manifest = json.loads(server.backend.storage[path])
    manifest["contents"][name] = dict(manifest["contents"]["record.json"])
    server.backend.storage[path] = json.dumps(manifest).encode()


@pytest.mark.parametrize(
    ("run_id", "sweep"),
    [
        ("..", "study"),
        ("oneshotkl01", ".."),
        ("../../up", "study"),
        ("a/b", "study"),
        ("x", "/absolute"),
        (".", "."),
        ("", ""),
    ],
)
def test_a_run_whose_names_are_no_folders_is_named(
    say: Say, wandb_server: WandbServer, tmp_path: Path, run_id: str, sweep: str
) -> None:
    recorded(Path("multirun"))
    assert sync.main(["multirun/study"]) == 0
    alien("strange", run_id=run_id, sweep=sweep).finish()
    before = below(tmp_path)
    code, told, errors = say("table", "--from", SOURCE)
    assert code == 0, errors
    assert "1 unfinished:" in told and "strange: " in told and "is no name of a folder" in told
    new = {path for path in below(tmp_path) - before if not path.startswith("wandb/")}
    assert {Path(path).parts[3] for path in new} == {"study"}, new


def test_runs_of_other_programs_are_passed_over(say: Say, wandb_server: WandbServer) -> None:
    recorded(Path("multirun"))
    assert sync.main(["multirun/study"]) == 0
    alien("theirs", learning_rate=0.1).finish()
    alien("numbers", run_id=3, sweep=["study"]).finish()
    disk, mirrored = say("table", "multirun/study"), say("table", "--from", SOURCE)
    assert (mirrored[0], mirrored[1].replace(f"{KEPT}/study", "multirun/study")) == disk[:2]


@pytest.mark.parametrize("source", ["", "wandb:", "wandb:study", "wandb:a/b/c", "wandb:/b", "disk:a/b", "tester/study"])
def test_a_source_that_is_none_is_refused(say: Say, wandb_server: WandbServer, source: str) -> None:
    code, _, told = say("table", "--from", source)
    assert code == 2 and "must be wandb:ENTITY/PROJECT" in told
    assert not wandb_server.calls and not Path(FETCHED).exists()


@pytest.mark.parametrize("source", ["wandb:tester/..", "wandb:../study", "wandb:./."])
def test_a_project_that_names_no_folder_is_refused(say: Say, wandb_server: WandbServer, source: str) -> None:
    code, _, told = say("table", "--from", source)
    assert code == 2 and told.startswith("error: ")
    assert not Path(FETCHED).exists()


def test_no_such_project_and_an_empty_one_are_told(say: Say, wandb_server: WandbServer) -> None:
    code, _, told = say("table", "--from", "wandb:tester/nowhere")
    assert code == 2 and told.startswith("error: tester/nowhere has no runs that you may read")
    alien("theirs").finish()
    code, _, told = say("table", "--from", SOURCE)
    assert code == 2 and "there is no run of a sweep" in told


def test_without_a_key_or_an_answer_it_says_so(
    say: Say, wandb_server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without:
        without.delenv("WANDB_API_KEY")
        code, _, told = say("table", "--from", SOURCE)
        assert code == 2 and told.startswith("error: W&B has no key on this machine") and "wandb login" in told
    wandb_server.fail_with(403)
    code, _, told = say("table", "--from", SOURCE)
    assert code == 2 and told.startswith("error: W&B does not let you in")
    assert not Path(FETCHED).exists() and os.environ["WANDB_API_KEY"] not in told


def connections(server: WandbServer) -> list[Any]:
    """Those that this process holds as a client of the server."""
    port = urlsplit(server.url).port
    held = psutil.Process().net_connections("tcp")
    return [each for each in held if each.raddr and each.raddr.port == port and each.status != psutil.CONN_CLOSE_WAIT]


def test_files_that_cannot_be_fetched_are_named_and_fetched_later(say: Say, wandb_server: WandbServer) -> None:
    one, _ = recorded(Path("multirun")), recorded(Path("multirun"), seed=1)
    assert sync.main(["multirun/study"]) == 0
    assert say("table", "--from", SOURCE)[0] == 0
    assert on_disk(KEPT / "study" / one.name) == on_disk(one)
    (one / "record.json").write_text((one / "record.json").read_text() + "\n")
    assert sync.main(["multirun/study"]) == 0
    old = digest(KEPT / "study" / one.name)
    wandb_server.fail_with(404, only="^GET objects|artifactsV2")
    code, told, _ = say("table", "--from", SOURCE)
    assert not connections(wandb_server), "what was refused holds its connection until the collector comes"
    assert f"{KEPT}/study/{one.name}: its files cannot be read from W&B" in told
    assert digest(KEPT / "study" / one.name) == old
    wandb_server.heal()
    assert say("table", "--from", SOURCE)[0] == 0
    assert digest(KEPT / "study" / one.name) == digest(one)
