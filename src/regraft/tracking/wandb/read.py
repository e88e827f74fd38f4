"""Runs read back from W&B: as the files that they left, so that whoever reads sweeps from disk reads these too."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.config.ranges import ConfigError
from regraft.records import PREDICTIONS, QUESTIONS, RECORD, SCORES, TRAINING, Record, questions_file
from regraft.tracking.wandb import keys
from regraft.tracking.wandb.access import runs_of
from regraft.tracking.wandb.log import ASKED, digest

if TYPE_CHECKING:
    from wandb.apis.public import Run

AT_ONCE = 8
"""Runs that are read side by side."""
FILES = {RECORD, PREDICTIONS, TRAINING, SCORES, ASKED}
"""What the artifact of a run may hold: file names come from the server too."""
FOLDER_NAME = re.compile(r"(?!\.)[^/\\\0]+")
"""What folders may be called: names come from the server."""
STRANGE = "its run id or sweep is no name of a folder"


@dataclass(frozen=True, kw_only=True)
class Downloaded:
    """What was read."""

    sweeps: tuple[Path, ...]
    """Folders like those below `multirun`."""
    unfinished: tuple[tuple[Path, str], ...]
    """Where the run would be that W&B has only in part, and why."""


def download(project: str, sweeps: Sequence[str], root: Path) -> Downloaded:
    """Make `root/SWEEP/RUN_ID` hold what W&B has of the sweeps. What is there already is not fetched again.

    Args:
        project: `ENTITY/PROJECT`.
        sweeps: Their names; none takes all of the project.
        root: Where they go.

    Raises:
        ConfigError: There is no such project or sweep, no key, or the server does not answer.
    """
    ours = [run for run in runs_of(project, sweeps) if _is_ours(run)]
    found = [run for run in ours if _names_a_folder(run)]
    strange = tuple((root / run.id, STRANGE) for run in ours if not _names_a_folder(run))
    held = {run.config["sweep"] for run in found}
    if missing := sorted(set(sweeps) - held) or ([] if found else ["run of a sweep"]):
        raise ConfigError(
            f"wandb:{project}: there is no {', no '.join(missing)}. Look at its runs in W&B; `make sync SWEEP=NAME` "
            "sends those of a sweep."
        )
    for name in held:
        (root / name).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        gaps = pool.map(lambda run: _fetch(run, root), found)
        unfinished = tuple((_folder(run, root), gap) for run, gap in zip(found, gaps, strict=True) if gap)
    for name in held:
        there = {_folder(run, root) for run in found}
        for folder in {path.parent for path in (root / name).glob(f"*/{RECORD}")} - there:
            shutil.rmtree(folder)
    return Downloaded(sweeps=tuple(root / name for name in sweeps or sorted(held)), unfinished=unfinished + strange)


def _is_ours(run: Run) -> bool:
    return all(isinstance(run.config.get(key), str) for key in ("run_id", "sweep"))


def _names_a_folder(run: Run) -> bool:
    named = [run.config[key] for key in ("run_id", "sweep")]
    return all(FOLDER_NAME.fullmatch(name) for name in named) and named[0] != QUESTIONS


def _folder(run: Run, root: Path) -> Path:
    return root / run.config["sweep"] / run.config["run_id"]


def _fetch(run: Run, root: Path) -> str:
    """Bring the files of a run; why it could not be done, or nothing."""
    import requests
    import wandb

    folder = _folder(run, root)
    held = run.summary.get(keys.RECORD)
    if held is None:
        return f"in W&B it is {run.state}"
    if (folder / RECORD).is_file() and digest(folder) == held:
        return ""
    aside = folder.with_name(f".{folder.name}")
    try:
        artifact = next(each for each in run.logged_artifacts() if each.type == keys.ARTIFACT and _is_latest(each))
        if strange := sorted(set(artifact.manifest.entries) - FILES):
            return f"its artifact holds what no run leaves: {', '.join(strange)}"
        shutil.rmtree(aside, ignore_errors=True)
        for file in artifact.files():
            # by W&B's service: what its `Artifact.download` opens in this process, nothing closes if a file is refused
            file.download(root=str(aside)).close()
        if digest(aside) != held:
            return "its files are being sent to W&B just now"
        _keep_questions(aside)
        shutil.rmtree(folder, ignore_errors=True)
        aside.replace(folder)
    except StopIteration:
        return "W&B has no record artifact of it"
    except (wandb.Error, requests.RequestException, OSError, ValueError) as error:
        return f"its files cannot be read from W&B ({error})"
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return ""


def _is_latest(artifact: Any) -> bool:
    return "latest" in artifact.aliases


def _keep_questions(folder: Path) -> None:
    """Put the questions where those of all runs of a sweep are."""
    asked = folder / ASKED
    path = questions_file(folder, Record.load(folder))
    if asked.is_file() and path is not None:
        path.parent.mkdir(exist_ok=True)
        asked.replace(path)
