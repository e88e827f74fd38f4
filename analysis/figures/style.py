"""How figures look: widths of the usual venues, colours, legends, files. The same records give the same bytes."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import pandas
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from analysis import names
from analysis.collect import AnalysisError

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.typing import RcKeyType

HEIGHT = 2.2
"""Inches of a panel with its labels."""
FEW = 8
"""Points of a logarithmic axis up to which each has its tick."""


@dataclass(frozen=True, kw_only=True)
class Venue:
    """The page that a figure is drawn for; widths in inches as the venue's style file sets them."""

    column: float
    """Width of a column."""
    text: float
    """Width of the text; equal to `column` on a page of one column."""
    serif: bool
    """Whether the text is set in a font like Times."""
    size: float = 8.0
    """Of labels, in points."""


VENUES = {
    "plain": Venue(column=3.4, text=6.8, serif=False),
    "neurips": Venue(column=5.5, text=5.5, serif=True),
    "iclr": Venue(column=5.5, text=5.5, serif=True),
    "icml": Venue(column=3.25, text=6.75, serif=True),
    "acl": Venue(column=3.03, text=6.3, serif=True),
    "aaai": Venue(column=3.3, text=7.0, serif=True),
    "ieee": Venue(column=3.5, text=7.16, serif=True),
    "jmlr": Venue(column=6.0, text=6.0, serif=True),
    "tmlr": Venue(column=6.5, text=6.5, serif=True),
}
"""Name -> page."""
PLAIN = VENUES["plain"]

COLOURS = {
    "loss": {
        "none": ("#555555", "x"),
        "ce": ("#D55E00", "o"),
        "kl": ("#0072B2", "s"),
        "ce_kl": ("#009E73", "^"),
        "pseudo_label": ("#CC79A7", "D"),
    },
    "criterion": {"random": ("#555555", "x"), "l2": ("#0072B2", "s"), "l1": ("#D55E00", "o")},
}
"""Column -> value -> colour and marker, the same in every figure; what is the baseline is grey. The colours are Okabe
and Ito's (jfly.uni-koeln.de/color), which the colour-blind tell apart."""
CYCLE = (
    ("#E69F00", "v"),
    ("#56B4E9", "P"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#000000", "*"),
    ("#F0E442", "h"),
    ("#0072B2", "s"),
    ("#D55E00", "o"),
)
"""For values that have no colour of their own, in order."""
MARKERS = tuple(marker for _, marker in CYCLE)
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)))
"""For lines of one colour that differ in something else."""

Look = tuple[str, str, object]
"""Colour, marker, dashes."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The files of one figure, its caption, and what is missing from it."""

    files: tuple[Path, ...]
    caption: str
    gaps: tuple[str, ...] = ()


def style(venue: Venue) -> AbstractContextManager[None]:
    """The settings in which a figure for `venue` is drawn. Fonts are those that matplotlib brings."""
    small = venue.size - 1
    settings: dict[RcKeyType, Any] = {
        "font.family": "STIXGeneral" if venue.serif else "DejaVu Sans",
        "mathtext.fontset": "stix" if venue.serif else "dejavusans",
        "font.size": venue.size,
        "axes.titlesize": venue.size,
        "axes.labelsize": venue.size,
        "figure.labelsize": venue.size,
        "xtick.labelsize": small,
        "ytick.labelsize": small,
        "legend.fontsize": small + 0.5,
        "legend.title_fontsize": small + 0.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "axes.grid": True,
        "grid.linewidth": 0.4,
        "grid.color": "#dddddd",
        "axes.axisbelow": True,
        "pdf.fonttype": 42,
        # text is as wide in the file as it was when it was measured
        "text.hinting": "none",
        "svg.hashsalt": "regraft",
    }
    return matplotlib.rc_context(settings)


def looks(columns: Sequence[str], lines: Sequence[tuple[object, ...]]) -> dict[tuple[object, ...], Look]:
    """Colour and marker for the first column, dashes for the others.

    Some values have colours of their own, numbers go from dark to light, other values take the palette in order.

    Raises:
        AnalysisError: There are more than can be told apart.
    """
    firsts = sorted({line[0] for line in lines}, key=lambda first: names.rank(columns[0], first))
    others = sorted({line[1:] for line in lines}, key=lambda other: tuple(map(names.rank, columns[1:], other)))
    own = COLOURS.get(columns[0], {})
    colours = {first: own[str(first)] for first in firsts if str(first) in own}
    unknown = [first for first in firsts if first not in colours]
    if len(unknown) > 1 and all(math.isfinite(names.rank(columns[0], first)[0]) for first in unknown):
        shades = map(matplotlib.colors.to_hex, matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(unknown))))
        colours |= dict(zip(unknown, zip(shades, itertools.cycle(MARKERS), strict=False), strict=False))
    else:
        free = [look for look in CYCLE if look not in colours.values()]
        colours |= dict(zip(unknown, free, strict=False))
    if len(colours) < len(firsts) or len(others) > len(DASHES):
        raise AnalysisError(
            f"{len(lines)} lines in one figure ({len(firsts)} by {columns[0]}, {len(others)} other conditions) cannot "
            f"be told apart. Draw fewer at once, for instance with --where {_fewer(columns, lines)}."
        )
    return {line: (*colours[line[0]], DASHES[others.index(line[1:])]) for line in lines}


def _fewer(columns: Sequence[str], lines: Sequence[tuple[object, ...]]) -> str:
    """A filter that keeps the ends of the column that has most values; of `variant` one setting."""
    values = [
        sorted(set(each), key=lambda one: names.rank(column, one))
        for column, each in zip(columns, zip(*lines, strict=True), strict=True)
    ]
    column, most = max(zip(columns, values, strict=True), key=lambda each: len(each[1]))
    if column == "variant":
        return str(most[-1]).split(" ")[0]
    return f"{column}={most[0]},{most[-1]}"


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A figure with panels of one size; `axes` holds those that are used."""

    figure: Figure
    axes: tuple[Axes, ...]
    columns: int

    @property
    def lowest(self) -> tuple[Axes, ...]:
        """The lowest panel of each column."""
        return self.axes[-self.columns :]

    def title(self, axes: Axes, text: str) -> None:
        """The title of a panel, in as many lines as its width asks for."""
        inches = self.figure.get_figwidth() / self.columns - 0.5
        axes.set_title(_filled(text, inches, matplotlib.rcParams["axes.titlesize"]))

    @property
    def leftmost(self) -> tuple[Axes, ...]:
        return self.axes[:: self.columns]


def grid(
    venue: Venue, panels: int, *, most: int = 3, height: float = HEIGHT, sharex: bool = True, sharey: bool = True
) -> Grid:
    """A column wide if there is one panel, else as wide as the text; at most `most` panels side by side."""
    columns = panels if panels <= most else (2 if panels == 4 else most)
    rows = -(-panels // columns)
    width = venue.column if columns == 1 else venue.text
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=sharex, sharey=sharey, squeeze=False).ravel()
    for position in range(panels, rows * columns):
        axes[position].set_visible(False)
        # the panel above is now the lowest of its column
        axes[position - columns].tick_params(labelbottom=True)
    return Grid(figure=figure, axes=tuple(axes[:panels]), columns=columns)


def legend(figure: Figure, entries: Mapping[str, Artist], title: str = "") -> None:
    """A legend above the panels, in as few rows as fit the width; the figure grows by its height."""
    size, inches = matplotlib.rcParams["legend.fontsize"], figure.get_figwidth() - 1
    entries = {_filled(text, inches, size): handle for text, handle in entries.items()}
    for rows in range(1, len(entries) + 1):
        columns = -(-len(entries) // rows)
        # matplotlib fills columns first; people read rows
        order = [place for column in range(columns) for place in range(column, len(entries), columns)]
        drawn = figure.legend(
            [list(entries.values())[place] for place in order],
            [list(entries)[place] for place in order],
            loc="outside upper center",
            ncols=columns,
            title=title or None,
            frameon=False,
            columnspacing=1.2,
            handlelength=2.4,
        )
        extent = drawn.get_window_extent()
        if columns == 1 or extent.width <= 0.96 * figure.bbox.width:
            figure.set_figheight(figure.get_figheight() + float(extent.height / figure.dpi))
            return
        drawn.remove()


def log_axis(axes: Axes, points: set[float]) -> None:
    """A logarithmic x-axis with a tick at each point, unless there are many."""
    axes.set_xscale("log")
    if len(points) <= FEW:
        axes.xaxis.set_major_locator(FixedLocator(sorted(points)))
        axes.xaxis.set_minor_locator(NullLocator())
    written = EngFormatter(sep="")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: written(float(f"{x:.3g}")) if x >= 1 else f"{x:.3g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def log_numbers(axes: Axes) -> None:
    """Numbers on a logarithmic y-axis whose limits are set: at least two, also where it holds no power of ten."""
    low, high = axes.get_ylim()
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    if sum(low <= 10.0**power <= high for power in powers) >= 2:
        return
    ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    ticks = [tick for tick in ticks if low <= tick <= high]
    if len(ticks) < 2:
        ticks = [float(tick) for tick in MaxNLocator(nbins=5).tick_values(low, high) if low <= tick <= high]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.6g}"))


def _filled(text: str, inches: float, size: float) -> str:
    """Text in lines that fit a width."""
    letter = size * (0.45 if "STIXGeneral" in matplotlib.rcParams["font.family"] else 0.54)
    return textwrap.fill(text, max(12, int(inches * 72 / letter)))


def wrapped(label: str, venue: Venue) -> str:
    """A label for the height of a panel; letters without serifs are wider."""
    return textwrap.fill(label, 32 if venue.serif else 25)


def save(
    figure: Figure,
    folder: Path,
    name: str,
    tables: Mapping[str, pandas.DataFrame],
    caption: str,
    gaps: Sequence[str] = (),
) -> Drawn:
    """Write a figure as pdf, png and svg, its data as csv (one file for each ending of the name), caption and gaps."""
    folder.mkdir(parents=True, exist_ok=True)

    def paths() -> Iterator[Path]:
        # dates would make the bytes differ from one build to the next
        for ending, metadata in (
            ("pdf", {"CreationDate": None}),
            ("png", {}),
            ("svg", {"Date": None}),
        ):
            path = folder / f"{name}.{ending}"
            figure.savefig(path, metadata=metadata, dpi=200)
            yield path
        for ending, table in tables.items():
            path = folder / f"{name}{ending}.csv"
            table.to_csv(path, index=False)
            yield path
        path = folder / f"{name}.txt"
        path.write_text("\n".join([caption, *gaps, ""]), encoding="utf-8")
        yield path

    return Drawn(files=tuple(paths()), caption=caption, gaps=tuple(gaps))
