"""Errors that end a run or a sweep."""

from __future__ import annotations

from collections.abc import Sequence


class RunFailed(RuntimeError):
    """A run failed; its record holds the traceback."""


class RunBusy(RuntimeError):
    """Another process is doing this run."""


class RunStopped(RuntimeError):
    """The process of a run was told to stop. The run has not failed: it goes on from where it is."""


class RunKilled(RuntimeError):
    """The process of a run was killed. It could not say so: who started it does."""


class SweepFailed(RuntimeError):
    """Some runs of a sweep failed; the message lists them."""


WIDTH = 160
"""Characters of an error in the table; the record holds all of it."""


def table(failures: Sequence[tuple[str, Sequence[str], str]]) -> str:
    """Run id, overrides and the first line of the error, a line each."""
    rows = [(run_id, " ".join(overrides), error.strip().splitlines()[0]) for run_id, overrides, error in failures]
    asked = max(len(row[1]) for row in rows)
    return "\n".join(
        f"  {run_id}  {overrides:<{asked}}  {error if len(error) <= WIDTH else error[: WIDTH - 3] + '...'}"
        for run_id, overrides, error in rows
    )
