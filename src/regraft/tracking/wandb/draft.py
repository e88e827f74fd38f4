"""A draft of a W&B Report on sweeps: the verdicts, live panels, the table and the figures of the paper."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import wandb
import wandb_workspaces.reports.v2 as wr
from wandb_workspaces.reports.v2.interface import BlockTypes

from regraft.tracking.wandb.access import CONTACT, FIGURES, TIMEOUT, named, runs_of, summaries, told
from regraft.tracking.wandb.log import settings
from regraft.tracking.wandb.panels import SPARSITY, sections, stored
from regraft.tracking.wandb.workspace import of_run, of_sweeps

LONGEST_TITLE = 128
"""Letters that W&B takes."""
WIDTH = 24
"""Columns of a panel grid."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure of the paper."""

    name: str
    path: Path
    """A PNG file."""
    caption: str


@dataclass(frozen=True, kw_only=True)
class Study:
    """What the analysis says of sweeps."""

    sweeps: Sequence[str]
    verdicts: Sequence[str]
    """A sentence each."""
    table: str
    """In Markdown."""
    figures: Sequence[Figure]

    @property
    def figures_id(self) -> str:
        """Id of the W&B run that holds the figures: the same whenever they are drawn again."""
        return f"{FIGURES}-{hashlib.sha256('/'.join(self.sweeps).encode()).hexdigest()[:8]}"

    @property
    def title(self) -> str:
        return f"Regraft: {' and '.join(self.sweeps)}"[:LONGEST_TITLE]


def save(project: str, study: Study, colours: Mapping[str, str]) -> str:
    """Send the figures, and save the draft.

    Args:
        project: `ENTITY/PROJECT`.
        study: What is said; its sweeps were logged to the project.
        colours: Loss -> colour of its runs.

    Returns:
        The address of the draft.

    Raises:
        AccessError: There is nothing to show, or W&B does not take it; the message says what to do.
    """
    found = runs_of(project, study.sweeps)
    shades = {run.id: colours[run.job_type] for run in found if run.job_type in colours}
    logged = summaries(found)
    with told(project):
        if study.figures:
            send(project, study)
        return _address(build(project, study, shades, logged).save(draft=True).url)


def build(project: str, study: Study, colours: Mapping[str, str], logged: Collection[str]) -> wr.Report:
    """The report, not saved; asks no server.

    Args:
        project: `ENTITY/PROJECT`.
        study: What is said.
        colours: W&B id of a run -> its colour.
        logged: Summary keys of the runs, which tell which layers there are.
    """
    entity, name = named(project)
    shown = wr.Runset(
        entity=entity,
        project=name,
        name=", ".join(study.sweeps),
        filters=of_sweeps(study.sweeps),
        order=[wr.OrderBy(wr.Config(stored(SPARSITY)), ascending=True)],
        run_settings={run: wr.RunSettings(color=colour) for run, colour in colours.items()},
    )
    drawn = wr.Runset(entity=entity, project=name, name=FIGURES, filters=of_run(study.figures_id))
    blocks: list[BlockTypes] = [wr.TableOfContents()]
    if study.verdicts:
        blocks += [wr.H1("Verdicts"), wr.UnorderedList(items=list(study.verdicts))]
    blocks += [wr.H1("Accuracy"), wr.MarkdownBlock(study.table), wr.H1("Runs")]
    for section in sections(sorted(logged)):
        if section.panels:
            blocks += [wr.H2(section.name), wr.PanelGrid(runsets=[shown], panels=list(section.panels))]
    if study.figures:
        blocks.append(wr.H1("Figures"))
    for figure in study.figures:
        panel = wr.MediaBrowser(media_keys=[key(figure)], num_columns=1, layout=wr.Layout(w=WIDTH, h=16))
        blocks += [
            wr.H2(_titled(figure.name)),
            wr.PanelGrid(runsets=[drawn], panels=[panel], hide_run_sets=True),
            wr.P(figure.caption),
        ]
    return wr.Report(
        entity=entity,
        project=name,
        title=study.title,
        description="A draft, made by `python -m analysis dashboard`.",
        blocks=blocks,
        width="fluid",
    )


def send(project: str, study: Study) -> None:
    """Log the figures to a W&B run of their own, each as an image; drawn again, they are a further step of it."""
    entity, name = named(project)
    with tempfile.TemporaryDirectory() as folder:
        run = wandb.init(
            entity=entity,
            project=name,
            id=study.figures_id,
            name=f"{FIGURES} of {', '.join(study.sweeps)}",
            job_type=FIGURES,
            config={"sweeps": list(study.sweeps)},
            dir=folder,
            mode="online",
            resume="allow",
            settings=settings(CONTACT, TIMEOUT),
        )
        with run:
            run.log({key(figure): wandb.Image(str(figure.path), caption=figure.caption) for figure in study.figures})


def key(figure: Figure) -> str:
    """The image in the run that holds the figures: `figures/training_curves`."""
    return f"{FIGURES}/{figure.name}"


def _titled(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _address(url: str) -> str:
    """W&B puts the title into a report's address as it is, but for spaces."""
    return re.sub(r"[^\w:/.=?&%-]", "-", url)
