"""Figures, one function each: `(collection, folder, venue) -> Drawn`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from analysis.collect import Collection
from analysis.figures import accuracy, differences, layers, methods, pareto, reliability, scaling, seeds, training
from analysis.figures.style import Drawn, Venue

FIGURES: dict[str, Callable[[Collection, Path, Venue], Drawn]] = {
    "accuracy_vs_block_sparsity": accuracy.sparsity,
    "accuracy_vs_retention": accuracy.retention,
    "accuracy_of_methods": methods.at_one_sparsity,
    "accuracy_vs_learning_rate": accuracy.learning_rate,
    "accuracy_vs_recovery_questions": scaling.accuracy,
    "uncertainty_vs_recovery_questions": scaling.uncertainty,
    "loss_kl_minus_ce": differences.kl_minus_ce,
    "criteria": accuracy.criteria,
    "pareto_accuracy_vs_parameters": pareto.size,
    "layer_wise_sparsity": layers.sparsity,
    "capacity_gap": accuracy.capacity_gap,
    "reliability": reliability.reliability,
    "spread_of_seeds": seeds.spread,
    "training_curves": training.curves,
}
"""Name, which is that of its files -> figure. Each raises an AnalysisError where the records do not allow it."""
