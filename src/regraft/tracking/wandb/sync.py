"""Send the records of sweeps to W&B. What is there already and whole is left alone.

    python -m regraft.tracking.wandb.sync multirun/quickstart

Each run goes into the project that its own config names, unless another is given: a sweep without a tracker can be sent
too. A run that W&B has in part is gone on with, so that nothing is there twice.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from regraft.config.ranges import ConfigError
from regraft.records import Record, is_running
from regraft.secrets import redact
from regraft.tracking.replay import info, replay
from regraft.tracking.wandb import keys
from regraft.tracking.wandb.access import runs
from regraft.tracking.wandb.log import Wandb, digest, forget

TIMEOUT = 120.0
"""Seconds to wait for the server: nobody else waits for this command."""
AT_ONCE = 4
"""Runs that are sent side by side."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Send and say what was sent; 1 if something could not be."""
    parser = argparse.ArgumentParser(
        prog="python -m regraft.tracking.wandb.sync",
        description="Send finished and failed runs to W&B. What is there already is left alone.",
    )
    parser.add_argument("sweeps", nargs="+", type=Path, metavar="SWEEP", help="folder of a sweep: multirun/NAME")
    parser.add_argument("--project", help="W&B project (default: that of each run's config)")
    parser.add_argument("--entity", help="W&B user or team (default: that of each run's config)")
    given = parser.parse_args(arguments)
    try:
        failures = [
            failure
            for sweep in given.sweeps
            for failure in sync(sweep, given.project, given.entity, lambda line: sys.stdout.write(f"{line}\n"))
        ]
    except (ConfigError, OSError) as error:
        sys.stderr.write(f"error: {redact(str(error))}\n")
        return 2
    return 1 if failures else 0


def sync(sweep: Path, project: str | None, entity: str | None, tell: Callable[[str], object]) -> list[str]:
    """Make W&B hold what the records of `sweep` hold.

    Args:
        sweep: Folder of the sweep.
        project: W&B project; None takes that of each run's config.
        entity: W&B user or team; likewise.
        tell: Gets lines for people.

    Returns:
        Runs that could not be sent, each with the reason.

    Raises:
        ConfigError: There is no such sweep, or W&B cannot be asked.
    """
    if not sweep.is_dir():
        raise ConfigError(f"{sweep}: is no folder. Give the folder of a sweep, such as multirun/quickstart.")
    waiting: dict[tuple[str | None, str], list[tuple[Record, Path, Wandb]]] = {}
    unreadable = []
    for folder in sorted(path.parent for path in sweep.glob("*/record.json")):
        try:
            record = Record.load(folder)
            tracker = tracker_of(record, project, entity)
        except ValueError as error:
            unreadable.append(f"{folder}: {error}")
            continue
        if not is_running(folder):
            waiting.setdefault((tracker.entity, tracker.project), []).append((record, folder, tracker))
    if not waiting:
        raise ConfigError(
            "\n".join([f"{sweep}: holds no record that could be sent. Run the sweep first.", *unreadable])
        )
    failures = list(unreadable)
    there = sent = 0
    for (owner, name), recorded in waiting.items():
        known = mirrored(owner, name, {record.sweep for record, _, _ in recorded})
        missing = []
        for record, folder, tracker in recorded:
            if _is_whole(known, record, folder):
                # the server was lost just after the last had arrived
                forget(folder)
            else:
                missing.append((record, folder, tracker))
        there += len(recorded) - len(missing)
        for (record, folder, _), told in zip(missing, _send_all(missing), strict=True):
            if told is None:
                sent += 1
                tell(f"sent {record.run_id}  {info(record, folder).name}")
            else:
                failures.append(f"{folder}: {told}")
    counted = f"{sweep}: {there + sent + len(failures):,} records: {there:,} were in W&B, {sent:,} sent"
    tell(f"{counted}, {len(failures):,} not:" if failures else f"{counted}.")
    for failure in failures:
        tell(f"  {redact(failure)}")
    return failures


def tracker_of(record: Record, project: str | None = None, entity: str | None = None) -> Wandb:
    """How the run is mirrored now: as its config says, in what is given, with patience."""
    asked = record.config.get("tracker") or {}
    own = Wandb(**{key: asked[key] for key in ("project", "entity", "log_every", "log_model") if key in asked})
    return replace(own, mode="online", project=project or own.project, entity=entity or own.entity, timeout=TIMEOUT)


def mirrored(entity: str | None, project: str, sweeps: set[str]) -> dict[str, tuple[str, str | None]]:
    """Id of each W&B run of these sweeps -> its state, and the digest of the record that it mirrors whole.

    Raises:
        ConfigError: W&B cannot be asked.
    """
    return {
        run.id: (run.state, run.summary.get(keys.RECORD))
        for run in runs(f"{entity}/{project}" if entity else project, {"group": {"$in": sorted(sweeps)}})
    }


def _is_whole(known: dict[str, tuple[str, str | None]], record: Record, folder: Path) -> bool:
    # a run that was stopped, went on and failed stays preempted
    ended = ("finished",) if record.status == "finished" else ("failed", "preempted")
    state, held = known.get(keys.wandb_id(record.run_id, record.sweep), ("", None))
    return state in ended and held == digest(folder)


def _send_all(waiting: Sequence[tuple[Record, Path, Wandb]]) -> Iterator[str | None]:
    """For each run None, or why it could not be sent."""

    def send(run: tuple[Record, Path, Wandb]) -> str | None:
        record, folder, tracker = run
        try:
            log = tracker.open(info(record, folder))
            try:
                replay(record, folder, log)
            except Exception:
                # left open it would be closed with the process, as if the run had ended well
                with contextlib.suppress(Exception):
                    log.finish(None)
                raise
        except Exception as error:
            return f"{error}" or type(error).__name__
        return None

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(send, waiting)


if __name__ == "__main__":
    sys.exit(main())
