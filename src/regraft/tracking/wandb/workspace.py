"""A W&B workspace of sweeps: which runs, in which order and colours, and the panels that show them."""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Collection, Mapping, Sequence

import wandb_workspaces.workspaces as ws
from wandb_workspaces.workspaces.errors import SpecVersionError, UnsupportedViewError
from wandb_workspaces.workspaces.internal import View

from regraft.tracking.wandb import keys
from regraft.tracking.wandb.access import FIGURES, AccessError, first_line, named, runs, summaries, told
from regraft.tracking.wandb.panels import ACCURACY, CRITERION, EVERY_RUN, LOSS, SEED, SPARSITY, sections, stored

COLUMNS = (
    "run:displayName",
    "run:state",
    *(f"config:{stored(key)}" for key in (CRITERION, SPARSITY, LOSS, SEED)),
    f"summary:{ACCURACY}",
    f"summary:{keys.DENSE}/{ACCURACY}",
    *(f"summary:{key}" for key in keys.SPARSITIES),
    *(f"summary:{keys.metric(name)}" for name in ("parameters", "bytes", "macs_per_token")),
    f"summary:{keys.metric('tokens_per_second', 'test')}",
)
"""Of the table of runs, from the left."""


class Workspace(ws.Workspace):
    """A workspace whose table is grouped and whose panels are not, saved under an address that leads to it."""

    def _to_model(self) -> View:
        view = super()._to_model()
        # W&B would draw a group of runs as one point, at their mean, in scatter plots and parallel coordinates: nothing
        # of a curve would be left. Panels of training curves group for themselves.
        view.spec.section.settings.use_runs_table_grouping_in_panels = False
        # wandb-workspaces takes "nw-" out of a name wherever it stands, also where its own random part ends with nw
        view.name = view.name or f"nw-{secrets.token_hex(6)}-v"
        return view


def build(
    project: str,
    sweeps: Sequence[str] = (),
    losses: Mapping[str, str] | None = None,
    logged: Collection[str] = (),
    colours: Mapping[str, str] | None = None,
) -> Workspace:
    """The workspace, not saved; asks no server.

    Args:
        project: `ENTITY/PROJECT`.
        sweeps: Names of the sweeps to show; all without names.
        losses: W&B id of each run -> the loss that it was recovered with.
        logged: Summary keys of the runs, which tell which layers there are.
        colours: Loss -> colour of its runs; W&B chooses for others.
    """
    entity, name = named(project)
    colours = colours or {}
    return Workspace(
        entity=entity,
        project=name,
        name=_name(sweeps),
        sections=[
            ws.Section(
                name=section.name,
                panels=list(section.panels),
                is_open=position < 3,
                layout_settings=ws.SectionLayoutSettings(
                    columns=min(3, len(section.panels)), rows=math.ceil(len(section.panels) / 3)
                ),
            )
            for position, section in enumerate(sections(sorted(logged)))
            if section.panels
        ],
        settings=ws.WorkspaceSettings(max_runs=EVERY_RUN),
        runset_settings=ws.RunsetSettings(
            filters=of_sweeps(sweeps),
            groupby=[ws.Metric("Group"), ws.Config(LOSS.name)],
            order=[ws.Ordering(ws.Config(stored(key))) for key in (SPARSITY, SEED)],
            run_settings={
                run: ws.RunSettings(color=colours[loss]) for run, loss in (losses or {}).items() if loss in colours
            },
            pinned_columns=list(COLUMNS),
        ),
    )


def save(project: str, sweeps: Sequence[str], colours: Mapping[str, str], update: str | None = None) -> str:
    """Save a workspace of what the sweeps logged.

    Args:
        project: `ENTITY/PROJECT`.
        sweeps: Names of the sweeps to show; all without names.
        colours: Loss -> colour of its runs.
        update: Address of a workspace that is overwritten; a new one is saved without.

    Returns:
        Its address.

    Raises:
        AccessError: There is nothing to show, or W&B does not take it; the message says what to do.
    """
    found = runs(project, sweeps)
    losses = {run.id: run.job_type for run in found}
    logged = summaries(found)
    built = build(project, sweeps, losses, logged, colours)
    with told(project):
        if update is not None:
            saved = _opened(update, project)
            saved.sections, saved.settings, saved.name = built.sections, built.settings, built.name
            saved.runset_settings = built.runset_settings
            built = saved
        return str(built.save().url)


def _opened(address: str, project: str) -> Workspace:
    """The saved workspace with this address.

    Raises:
        AccessError: There is none in the project.
    """
    try:
        saved: Workspace = Workspace.from_url(address)
        if (saved.entity, saved.project) == named(project):
            return saved
        reason = f"it is one of {saved.entity}/{saved.project}"
    except (ValueError, UnsupportedViewError, SpecVersionError) as error:
        reason = first_line(error)
    raise AccessError(
        f"--update {address}: is no saved workspace of {project} ({reason}). Give the address that was told when "
        "it was saved, which ends with ?nw=NAME."
    )


def of_sweeps(sweeps: Sequence[str]) -> str:
    """The filter of a run set: the runs of these sweeps, of all without names, and none that holds figures."""
    only = f'Metric("Group") in [{", ".join(map(_literal, sweeps))}] and ' if sweeps else ""
    return f'{only}Metric("JobType") != {_literal(FIGURES)}'


def of_run(run: str) -> str:
    """The filter of a run set with one run, by its W&B id."""
    return f'Metric("ID") in [{_literal(run)}]'


def _literal(text: str) -> str:
    """A name as wandb-workspaces parses it in a filter: it would take signs of comparison in a name for its own."""
    return re.sub("[=<>]", lambda sign: rf"\u{ord(sign[0]):04x}", json.dumps(text, ensure_ascii=False))


def _name(sweeps: Sequence[str]) -> str:
    """Of the workspace; wandb-workspaces takes many signs for emojis and refuses them."""
    named = ", ".join(sweeps)
    return f"Regraft: {named}" if re.fullmatch(r"[\w ,.-]+", named) else "Regraft"
