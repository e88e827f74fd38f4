"""Accuracy against what was taken from the model: the curve, the paper's form of it, and criteria against random."""

from __future__ import annotations

from pathlib import Path

from analysis.collect import AnalysisError, Collection
from analysis.curves import RATE, Points, points
from analysis.figures import curve
from analysis.figures.style import PLAIN, Drawn, Venue

PAPER = {"CE": "L2PFT (CE)", "KL": "L2PSD (KL)", "none": "no recovery"}
"""What the paper (arXiv 2505.18166) calls the losses after pruning by L2 norm."""


def sparsity(collection: Collection, folder: Path, venue: Venue = PLAIN) -> Drawn:
    """Accuracy against the share of units removed from the pruned blocks.

    Raises:
        AnalysisError: No run has an accuracy, there is one sparsity, or there are more lines than can be told apart.
    """
    found = _several(points(collection))
    return curve.draw(collection, found, folder, venue)


def retention(collection: Collection, folder: Path, venue: Venue = PLAIN) -> Drawn:
    """The paper's first figure: accuracy against retention for L2PFT and L2PSD.

    Raises:
        AnalysisError: No run prunes by L2 norm and recovers by CE or KL, or there is one sparsity.
    """
    present = set(collection.run_table["loss"])
    losses = [loss for loss in ("none", "ce", "kl") if loss in present]
    if "l2" not in set(collection.run_table["criterion"]) or not {"ce", "kl"} & present:
        raise AnalysisError("no run prunes by L2 norm and recovers by CE or KL.")
    chosen = collection.where({"criterion": ["l2"], "loss": losses})
    found = _several(points(chosen, x="retention"))
    return curve.draw(chosen, found, folder, venue, called=PAPER)


def criteria(collection: Collection, folder: Path, venue: Venue = PLAIN) -> Drawn:
    """Accuracy of each criterion, random removal among them; one panel for each loss.

    Raises:
        AnalysisError: There is one criterion, or random removal is missing.
    """
    criteria = set(collection.run_table["criterion"])
    if len(criteria) < 2 or "random" not in criteria:
        raise AnalysisError("criteria are compared with random removal: run pruner/criterion=random too.")
    found = _several(points(collection, facets=["loss"], colour="criterion"))
    return curve.draw(collection, found, folder, venue, name="criteria")


def learning_rate(collection: Collection, folder: Path, venue: Venue = PLAIN) -> Drawn:
    """Accuracy against the recovery's learning rate.

    Raises:
        AnalysisError: All runs had one rate.
    """
    if len({run.settings.get(RATE) for run in collection.runs}) < 2:
        raise AnalysisError(f"all runs have one learning rate: sweep {RATE}.")
    return curve.draw(collection, points(collection, x=RATE), folder, venue, name="accuracy_vs_learning_rate")


def capacity_gap(collection: Collection, folder: Path, venue: Venue = PLAIN) -> Drawn:
    """Accuracy of students against the size of their teacher, one line for each student's sparsity.

    A larger teacher need not be a better one (Mirzadeh et al. 2020, arXiv 1902.03393).

    Raises:
        AnalysisError: All teachers have one size, or records do not tell it.
    """
    taught = collection.run_table["teacher_parameters"].dropna()
    if taught.nunique() < 2:
        raise AnalysisError(
            "all teachers have one size: sweep teacher=other teacher.model=... or sparsity of a teacher."
        )
    found = points(collection, x="teacher_parameters", colour="sparsity")
    return curve.draw(collection, found, folder, venue, name="capacity_gap")


def _several(found: Points) -> Points:
    """The same, unless all runs have one sparsity."""
    if found.table["sparsity"].nunique() < 2:
        raise AnalysisError("all runs have one sparsity.")
    return found
