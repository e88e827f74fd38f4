"""What is measured, as axes: label, unit, and which values are better."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from analysis.collect import AnalysisError


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric of the record."""

    name: str
    label: str
    higher: bool
    """Whether more is better."""
    unit: str = ""
    """As written on an axis; a share is told in percent."""
    share: bool = False
    """Whether it lies between 0 and 1 and is told in percent."""
    proportion: bool = False
    """Whether it is a share of questions, so that it has an interval over questions (Wilson)."""
    asked: bool = True
    """Whether it is measured by asking questions."""
    judged: bool = True
    """Whether there is a better of it at all; else `higher` only says how it is sorted."""
    inverse_of: str = ""
    """The metric whose inverse this is, times `factor`; empty where the record holds it itself."""
    factor: float = 1.0

    @property
    def axis(self) -> str:
        """The label with its unit."""
        unit = "%" if self.share else self.unit
        return f"{self.label} ({unit})" if unit else self.label

    @property
    def scale(self) -> float:
        """What a value is multiplied with to be shown."""
        return 100.0 if self.share else 1.0

    def told(self, value: float) -> str:
        """A value with its unit, as people read it."""
        return f"{self.number(value)} {'%' if self.share else self.unit}".strip()

    def number(self, value: float) -> str:
        """A value without its unit."""
        if self.share:
            return f"{100 * value:.1f}"
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def _share_of_questions(name: str, label: str) -> Metric:
    return Metric(name=name, label=label, higher=True, share=True, proportion=True)


ACCURACY = _share_of_questions("accuracy", "Accuracy")
KNOWN = {
    each.name: each
    for each in (
        ACCURACY,
        _share_of_questions("accuracy_sum", "Accuracy by summed likelihood"),
        _share_of_questions("accuracy_character", "Accuracy by likelihood per character"),
        _share_of_questions("dense_agreement", "Agreement with the dense model"),
        Metric(name="nll", label="Negative log-likelihood of the answer", unit="nats", higher=False),
        Metric(name="brier", label="Brier score", higher=False),
        Metric(name="entropy", label="Entropy over the choices", unit="nats", higher=False, judged=False),
        Metric(name="ece", label="Expected calibration error", share=True, higher=False),
        Metric(name="dense_kl", label="KL from the dense model", unit="nats", higher=False),
        Metric(name="parameters", label="Parameters", higher=False, asked=False),
        Metric(name="non_embedding_parameters", label="Parameters outside the embedding", higher=False, asked=False),
        Metric(name="bytes", label="Size of the weights", unit="bytes", higher=False, asked=False),
        Metric(name="macs_per_token", label="Multiplications per token", unit="MACs", higher=False, asked=False),
        Metric(name="tokens_per_second", label="Speed of the evaluation", unit="tokens/s", higher=True),
        Metric(
            name="milliseconds_per_token",
            label="Time of the evaluation per token",
            unit="ms",
            higher=False,
            inverse_of="tokens_per_second",
            factor=1000.0,
        ),
        Metric(name="milliseconds_per_new_token", label="Time of a new token", unit="ms", higher=False, asked=False),
        Metric(
            name="speedup_of_new_token",
            label="Speed of a new token beside the dense model",
            unit="times",
            higher=True,
            asked=False,
        ),
    )
}
CLOCKED = ("tokens_per_second", "milliseconds_per_token", "milliseconds_per_new_token", "speedup_of_new_token")
"""Measured with a clock: they differ from one time to the next."""


def metric(name: str, better: Literal["lower", "higher"] | None = None) -> Metric:
    """The metric called `name`; `better` overrides which values are better, or says it of one that is not known.

    Raises:
        AnalysisError: It is not known here, and `better` is not given.
    """
    known = KNOWN.get(name)
    if better is not None:
        return replace(known or Metric(name=name, label=name, higher=True), higher=better == "higher")
    if known is None:
        raise AnalysisError(
            f"{name}: is no metric that is known here; known are {', '.join(KNOWN)}. Of another one in the records say "
            "which values are better: --y-better lower (or --x-better, on the x-axis of pareto)."
        )
    return known
