"""Asking a W&B server what it has: every way in which that fails is told with what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import wandb
from pydantic import ValidationError
from wandb.sdk.lib.service.service_connection import WandbApiFailedError

from regraft.config.ranges import ConfigError
from regraft.tracking.wandb.log import prepare

if TYPE_CHECKING:
    from wandb.apis.public import Run

FIGURES = "figures"
"""Job type of a run that holds the figures of a sweep: it is no run of the sweep, and has no record."""
CONTACT = 10
"""Seconds in which the server must answer at all."""
TIMEOUT = 60
"""Seconds to wait for a page of runs."""
PAGE = 100
"""Runs that are asked for at once."""


class AccessError(ConfigError):
    """W&B does not give what was asked for; the message says why and what to do."""


@contextmanager
def told(project: str) -> Iterator[None]:
    """Failures within as `AccessError`.

    Args:
        project: What was asked for: `ENTITY/PROJECT`.

    Raises:
        AccessError: There is no key, the key is not taken, the server cannot be reached, or it refuses; or the
            environment sets W&B up wrongly.
    """
    prepare()
    try:
        # what wandb would write on the terminal is said by whoever asks
        wandb.setup(settings=wandb.Settings(silent=True))
    except ValidationError as error:
        # without what was given: it may be a key
        wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise AccessError(f"W&B is set up wrongly ({wrong}). See the environment variables WANDB_*.") from None
    try:
        yield
    except wandb.errors.UsageError as error:
        raise AccessError(
            f"W&B has no key on this machine ({first_line(error)}). Log in once with `wandb login`, or set "
            "WANDB_API_KEY; for a server of your own set WANDB_BASE_URL too."
        ) from error
    except wandb.errors.AuthenticationError as error:
        raise AccessError(
            f"W&B does not let you in ({first_line(error)}). See that the server can be reached and that the key "
            "is one of it: `wandb login --relogin --verify`."
        ) from error
    except (wandb.Error, WandbApiFailedError, OSError) as error:
        raise AccessError(
            f"W&B did not do what was asked for {project} ({first_line(error)}). See that the server can be "
            "reached and that you may read or write this project, then run the same command again."
        ) from error


def named(project: str) -> tuple[str, str]:
    """Entity and project of `ENTITY/PROJECT`.

    Raises:
        AccessError: It is not of this form.
    """
    entity, _, name = project.partition("/")
    if not (entity and name) or "/" in name:
        raise AccessError(f"{project}: must be ENTITY/PROJECT, as in the address of the project's page in W&B.")
    return entity, name


def runs(project: str, filters: Mapping[str, object]) -> list[Run]:
    """The runs of a project, none if there is no such project.

    Args:
        project: `ENTITY/PROJECT`, or `PROJECT` of the account's default entity.
        filters: What W&B asks its database for.

    Raises:
        AccessError: W&B does not answer or does not let in.
    """
    with told(project):
        try:
            wandb.Api(timeout=CONTACT)  # a server that is not there, and a wrong key, are found out by this
            return list(wandb.Api(timeout=TIMEOUT).runs(project, filters=dict(filters), per_page=PAGE, lazy=False))
        except ValueError as error:
            if "Could not find project" in str(error):
                return []
            raise AccessError(f"{project}: W&B's answer cannot be read ({first_line(error)}).") from error


def runs_of(project: str, sweeps: Sequence[str]) -> list[Run]:
    """The runs of the named sweeps, of all without names; those that hold figures left out.

    Args:
        project: `ENTITY/PROJECT`.
        sweeps: Names of sweeps.

    Raises:
        AccessError: There is no such project, or nothing is there.
    """
    named(project)
    filters = {"group": {"$in": list(sweeps)}} if sweeps else {}
    found = [run for run in runs(project, filters) if run.job_type != FIGURES]
    if not found:
        where = f"{project} has no runs" + (f" of {', '.join(sweeps)}" if sweeps else "")
        raise AccessError(
            f"{where} that you may read. Projects are named ENTITY/PROJECT, as in the address of their page; runs go "
            "there with tracker.mode=online, or later with `make sync`."
        )
    return found


def summaries(found: Iterable[Run]) -> set[str]:
    """What any of the runs has in its summary: the names only."""
    return {str(key) for run in found for key in dict(run.summary)}


def first_line(error: BaseException) -> str:
    """The first line of a message, without its full stop."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
