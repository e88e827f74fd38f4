"""How far a sweep is: what was asked for, what became of each run, and by which code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.collect import AnalysisError
from regraft.records import MANIFEST, RECORD, STOPPED_BY_SEARCH, Manifest, Record, SchemaError, is_running, was_killed

STATES = {
    "finished": "",
    "failed": "the same command runs them again",
    "stopped": "a search saw no hope for them",
    "running": "",
    "interrupted": "stopped or killed; the same command goes on from where they are",
    "missing": "not begun",
    "unreadable": "",
    "single": "runs of their own, by commands without -m",
    "stray": "in no manifest: composed from YAML that was edited after the sweep began",
}
"""State of a run -> what the user should know of it."""
UNASKED = ("single", "stray")
"""States of runs that no launch asked for."""
SHOWN = 20
"""Lines of each state; the rest is counted."""


@dataclass(frozen=True)
class RunStatus:
    """What became of one run."""

    run_id: str
    state: str
    overrides: tuple[str, ...]
    error: str = ""
    commit: str = ""


@dataclass(frozen=True)
class Status:
    """What became of a sweep."""

    folder: Path
    runs: tuple[RunStatus, ...]
    launches: int

    def count(self, state: str) -> int:
        return sum(run.state == state for run in self.runs)

    @property
    def commits(self) -> Counter[str]:
        """Code version -> finished runs by it."""
        return Counter(run.commit or "unknown" for run in self.runs if run.state == "finished")

    def lines(self) -> list[str]:
        """For people to read."""
        asked = sum(run.state not in UNASKED for run in self.runs)
        counted = ", ".join(f"{self.count(state):,} {state}" for state in STATES if self.count(state))
        lines = [f"{self.folder}: {asked:,} runs asked for by {self.launches} launches: {counted}"]
        for state, about in STATES.items():
            found = [run for run in self.runs if run.state == state]
            if state == "finished" or not found:
                continue
            lines.append(f"{state}{f' ({about})' if about else ''}:")
            for run in found[:SHOWN]:
                lines.append("  " + "  ".join(filter(None, [run.run_id, " ".join(run.overrides), run.error])))
            if len(found) > SHOWN:
                lines.append(f"  and {len(found) - SHOWN:,} more")
        if len(self.commits) > 1:
            versions = ", ".join(f"{count:,} by {commit}" for commit, count in self.commits.most_common())
            lines.append(f"mixed code versions: {versions}. Runs of different code may differ for that reason alone.")
        elif any(commit.endswith("+") for commit in self.commits):
            lines.append(f"code version: {next(iter(self.commits))}; the + says that files differed from the commit.")
        return lines


def status(folder: Path) -> Status:
    """Look at each run of the sweep in `folder`.

    Raises:
        AnalysisError: The folder is none of a sweep, or of another version.
    """
    if not folder.is_dir():
        raise AnalysisError(f"{folder}: is no folder. Give the folder of a sweep, such as multirun/quickstart.")
    if (folder / RECORD).exists():
        raise AnalysisError(f"{folder}: is the folder of one run. Give the sweep's, {folder.parent}.")
    there = {path.name for path in folder.iterdir() if (path / ".hydra").is_dir() or (path / RECORD).is_file()}
    try:
        manifest = Manifest.load(folder)
    except FileNotFoundError:
        if not any(_is_single(folder / name) for name in there):
            raise AnalysisError(f"{folder}: has no {MANIFEST}, so no sweep was started there.") from None
        manifest = Manifest(sweep=folder.name, runs={}, launches=[])
    except ValueError as error:
        raise AnalysisError(str(error)) from None
    runs = [_run(folder / name, tuple(overrides), name in there) for name, overrides in manifest.runs.items()]
    others = [_unasked(folder / name) for name in sorted(there - set(manifest.runs))]
    return Status(folder, tuple(runs + others), len(manifest.launches))


def _run(folder: Path, overrides: tuple[str, ...], there: bool) -> RunStatus:
    if not there:
        return RunStatus(folder.name, "missing", overrides)
    if is_running(folder):
        return RunStatus(folder.name, "running", overrides)
    try:
        record = Record.load(folder)
    except FileNotFoundError:
        return RunStatus(folder.name, "interrupted", overrides, "killed" if was_killed(folder) else "")
    except ValueError as error:
        known = "of another version" if isinstance(error, SchemaError) else "not a whole record"
        return RunStatus(folder.name, "unreadable", overrides, known)
    if record.status != "finished" and was_killed(folder):
        return RunStatus(folder.name, "interrupted", overrides, "killed when it was run again")
    first = ((record.error or "").strip().splitlines() or [""])[0]
    state = "stopped" if first.startswith(STOPPED_BY_SEARCH) else record.status
    first = first.removeprefix(STOPPED_BY_SEARCH)
    return RunStatus(folder.name, state, overrides, first, record.environment.get("commit") or "")


def _is_single(folder: Path) -> bool:
    """Whether a command without -m did the run, so that no manifest was to name it."""
    try:
        return "\n  mode: RUN\n" in (folder / ".hydra" / "hydra.yaml").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False


def _unasked(folder: Path) -> RunStatus:
    state = "single" if _is_single(folder) else "stray"
    found = _run(folder, (), there=True)
    return RunStatus(found.run_id, state, (), " ".join(filter(None, [found.state, found.error])), found.commit)


def told(folders: Sequence[Path]) -> list[str]:
    """The lines of several sweeps."""
    return [line for folder in folders for line in status(folder).lines()]
