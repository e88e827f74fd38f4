"""What choices are called in tables and figures."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence, Set

import pandas

FIRST_LOSSES = ("none", "ce", "kl")
"""Stand before all others, in this order."""
METHODS = ("criterion", "structure", "allocation", "schedule", "batch_source")
"""Columns whose choices are names of methods."""
WORDS = {
    word.lower(): word
    for word in (
        *("L1", "L2", "KL", "MLP", "KV", "AMC", "ERK", "FLAP", "OWL", "SET", "SLEB", "SNIP", "GraSP", "SynFlow"),
        *("RigL", "SparseGPT", "Taylor", "Wanda", "CE", "JSD", "RKD", "LM", "MiniLLM", "DistilBERT"),
    )
}
"""Words of methods' names that are not written as they are."""
WHOLE = {"n_m": "N:M", "one_shot": "one-shot", "pseudo_label": "pseudo-label CE"}
"""Names that no rule gives."""
BUDGETS = {"parameters": "parameters", "macs": "MACs", "latency": "a token's time"}
COLUMNS = {
    "train_size": "recovery questions",
    "subset": "recovery subset",
    "recovery_questions": "recovery questions",
    "recovery_tokens": "recovery tokens",
    "recovery_flops": "recovery FLOPs",
    "teacher_parameters": "teacher parameters",
    "batch_source": "batches",
}


def is_gap(choice: object) -> bool:
    """Whether a run has nothing there: None, NA or nan, which pandas puts in place of one another."""
    return choice is None or choice is pandas.NA or choice != choice


def value(column: str, choice: object) -> str:
    """A choice as a reader knows it; one that is not known here keeps its name."""
    if is_gap(choice):
        return ""
    if column == "sparsity":
        return spaced(float(str(choice)))
    if column == "variant":
        # the end of each key, of each path, and four digits of each number tell settings apart
        text = re.sub(r"\b(?:\w+\.)+(\w+\.\w+=)", r"\1", str(choice))
        text = re.sub(r"=\S*/([^/\s]+/[^/\s]+)", r"=…/\1", text)
        return re.sub(r"\d*\.\d{4,}(e-?\d+)?", lambda number: f"{float(number[0]):.4g}", text)
    if column in METHODS:
        return method(str(choice))
    return loss(str(choice)) if column == "loss" else str(choice)


def method(name: str) -> str:
    """A method as its paper writes it: `kv_groups` is `KV groups`. What is no plain name stays as it is."""
    if name in WHOLE:
        return WHOLE[name]
    if " + " in name:
        return " + ".join(map(method, name.split(" + ")))
    if not re.fullmatch("[a-z0-9_]+", name):
        return name
    return " ".join(WORDS.get(word, word) for word in name.split("_"))


def loss(name: str) -> str:
    """A loss as its paper writes it: `top_k_kl` is `top-k KL`; what follows an abbreviation is added, `CE + KL`."""
    text = re.sub(r" (?=[a-z]\b)", "-", method(name))
    return re.sub(r"\b([A-Z]+) (?!to\b)(?=\w)", r"\1 + ", text)


def side(factor: str, choice: object) -> str:
    """One side of a comparison: `KL`, `no recovery`; a bare number with what it is a value of: `recovery.epochs 6`."""
    if (factor, choice) == ("loss", "none"):
        return "no recovery"
    text = value(factor, choice)
    return f"{COLUMNS.get(factor, factor)} {text}" if math.isfinite(rank("", choice)[0]) else text


def p_value(p: float) -> str:
    """`p = 0.013`, to two digits; `p < 0.001` below that."""
    if p < 0.001:
        return "p < 0.001"
    return "p > 0.99" if p > 0.99 else f"p = {p:.2g}"


def signed(number: float, digits: int = 1) -> str:
    """With its sign, but none before what rounds to zero."""
    text = f"{number:+.{digits}f}"
    return text if float(text) else text.lstrip("+-")


def typeset(text: str) -> str:
    """With a minus sign in place of a hyphen before a number."""
    return re.sub(r"(?<![\w)])-(?=\d)", "−", text)


def rank(column: str, choice: object) -> tuple[float, str]:
    """Key for sorting choices: the losses that stand first, numbers by size, names."""
    text = str(choice)
    if column == "loss":
        return (FIRST_LOSSES.index(text) if text in FIRST_LOSSES else len(FIRST_LOSSES)), text
    try:
        return float(text), ""
    except ValueError:
        return math.inf, text


def label(columns: Sequence[str], choices: Sequence[object]) -> str:
    """The first choice alone, the others with what they are: `KL, recovery questions 500`."""
    first, *others = (
        value(column, choice) if not position else f"{COLUMNS.get(column, column)} {value(column, choice)}"
        for position, (column, choice) in enumerate(zip(columns, choices, strict=True))
        if not position or value(column, choice)
    )
    return ", ".join([first, *others]).replace(", variant ", ", ")


def units(structures: Set[str], budgets: Set[str] = frozenset()) -> str:
    """What sparsity counts: `MLP neurons`; `units` if there are several structures or none is named.

    Args:
        structures: What was pruned.
        budgets: Of what a sparsity was asked for.
    """
    if budgets - {"", "units"}:
        return BUDGETS.get(next(iter(budgets)), "units") if len(budgets) == 1 else "units"
    if len(structures) != 1 or structures == {""}:
        return "units"
    return method(next(iter(structures)))


def spaced(number: float) -> str:
    """A percentage without needless digits: `50 %`, `12.5 %`."""
    return f"{round(100 * number, 1):g} %"


def title(columns: Sequence[str], values: Sequence[object]) -> str:
    """Of a panel: `criterion L2, model tiny_olmo2`."""
    return ", ".join(
        f"{COLUMNS.get(column, column)} {value(column, each)}"
        for column, each in zip(columns, values, strict=True)
        if value(column, each)
    )


def heading(column: str) -> str:
    """Of a legend whose first words are values of this column."""
    return {"loss": "Recovery loss"}.get(column, f"{COLUMNS.get(column, column)}".capitalize())


def point(swept: str, number: float) -> str:
    """A point of the x-axis: `50 %`, `1,221`, `0.0005`."""
    return spaced(number) if swept == "sparsity" else f"{number:,.12g}"


def span(numbers: Iterable[int]) -> str:
    """One number, or the lowest and the highest: `3 to 5`."""
    every = [int(number) for number in numbers]
    low, high = min(every), max(every)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def file_name(axis: str) -> str:
    """A name for files: sparsities say that they are one."""
    return f"{axis}_sparsity" if axis in ("target", "block", "model") else axis.replace(".", "_")


def aligned(header: Sequence[str], body: Sequence[Sequence[str]], left: int) -> list[str]:
    """Columns for a terminal, the first `left` of them to the left."""
    widths = [max(len(line[column]) for line in (header, *body)) for column in range(len(header))]

    def written(line: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return [written(header), "  ".join("-" * width for width in widths), *map(written, body)]
