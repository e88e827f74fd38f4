"""A W&B workspace of what was logged, and a draft of a W&B Report with what the analysis makes of it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from analysis import report, tables
from analysis.collect import AnalysisError, Collection
from analysis.curves import main_axis, points
from analysis.figures.style import COLOURS
from regraft.tracking.wandb import draft, workspace
from regraft.tracking.wandb.access import AccessError


def save(project: str, sweeps: Sequence[str], drafted: Collection | None, update: str | None = None) -> list[str]:
    """Save the workspace of `project`, and a draft on `drafted` if there is one.

    Args:
        project: `ENTITY/PROJECT`.
        sweeps: Names of the sweeps that the workspace shows; without names those of `drafted`, else all.
        drafted: The runs that the draft is about; they were logged to the project.
        update: Address of a workspace that is overwritten; a new one is saved without.

    Returns:
        Where they are.

    Raises:
        AnalysisError: W&B does not give or take what is needed, or no run of the draft has an accuracy.
    """
    of_draft = [] if drafted is None else [folder.resolve().name for folder in drafted.folders]
    colours = {loss: colour for loss, (colour, _) in COLOURS["loss"].items()}
    try:
        lines = [f"workspace: {workspace.save(project, list(sweeps) or of_draft, colours, update)}"]
        if drafted is not None:
            with tempfile.TemporaryDirectory() as folder:
                said, gaps = study(drafted, of_draft, Path(folder))
                lines += [f"report draft: {draft.save(project, said, colours)}", *gaps]
    except AccessError as error:
        raise AnalysisError(str(error)) from error
    return lines


def study(collection: Collection, sweeps: Sequence[str], folder: Path) -> tuple[draft.Study, list[str]]:
    """What the draft says, its figures drawn into `folder`, and which figures the records do not allow."""
    drawn, left_out = report.draw_all(collection, folder)
    table = tables.of(collection, points(collection, x=main_axis(collection)))
    said = draft.Study(
        sweeps=sweeps,
        verdicts=[sentence for pair in report.verdicts(collection) for sentence in pair],
        table=table.written("markdown"),
        figures=[
            draft.Figure(name=name, path=folder / f"{name}.png", caption=figure.caption)
            for name, figure in drawn.items()
        ],
    )
    return said, [f"not drawn: {name}: {reason}" for name, reason in left_out.items()]
