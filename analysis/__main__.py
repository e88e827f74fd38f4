"""`python -m analysis COMMAND SWEEP...`: the command line of the analysis."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from analysis import collect, comparison, curves, landmarks, report, status, tables, tuning, values
from analysis.collect import AnalysisError, Collection
from analysis.figures import FIGURES, curve, differences, pareto
from analysis.figures.style import VENUES, Drawn
from analysis.metrics import KNOWN, metric

Command = Callable[[argparse.Namespace], list[str]]
FETCHED = "wandb_runs"
"""Where runs are kept that were read from W&B, below the current folder."""
ROLES = f"""axes: {", ".join((*curves.SPARSITIES, *curves.NUMBERS))}, a metric, or a dotted config key with numbers
metrics: {", ".join(KNOWN)}
columns for facets, colours and lines: those of `collect`, and dotted config keys such as recovery.learning_rate;
a column in which runs differ and that is not named gets lines of its own, so nothing is averaged by oversight."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 2 is returned for what the user can mend, with a message on stderr."""
    given = parser().parse_args(arguments)
    try:
        lines = given.command(given)
    except (AnalysisError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def parser() -> argparse.ArgumentParser:
    """The commands with their help."""
    root = argparse.ArgumentParser(prog="python -m analysis", description="From the records of sweeps to results.")
    commands = root.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, command: Command, about: str, epilog: str | None = None) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=about,
            description=about,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(command=command)
        return added

    def add_analysis(name: str, command: Command, about: str, epilog: str | None = None) -> argparse.ArgumentParser:
        added = add(name, command, about, epilog)
        added.add_argument(
            "sweeps", nargs="*", metavar="SWEEP", help="folder of a sweep: multirun/NAME; with --from its name"
        )
        added.add_argument(
            "--from",
            dest="source",
            metavar="wandb:ENTITY/PROJECT",
            help=f"read W&B and not the disk: the runs of these sweeps, or of all, are fetched into {FETCHED}/",
        )
        added.add_argument(
            "--where", nargs="+", action="extend", default=[], metavar="COLUMN=VALUE[,VALUE]", help="only these runs"
        )
        return added

    def add_output(to: argparse.ArgumentParser, default: str) -> None:
        to.add_argument("--output", type=Path, metavar="FOLDER", help=f"where files go (default: {default})")

    def add_venue(to: argparse.ArgumentParser) -> None:
        to.add_argument("--venue", choices=VENUES, default="plain", help="page that figures are drawn for")
        add_output(to, "SWEEP/figures")

    def add_roles(to: argparse.ArgumentParser, x: str | None) -> None:
        to.add_argument("--y", default="accuracy", metavar="METRIC", help="metric of the y-axis (default: accuracy)")
        to.add_argument("--y-better", choices=["lower", "higher"], help="for a metric that is not known here")
        to.add_argument("--x", default=x, metavar="AXIS", help=f"x-axis (default: {x or 'what was varied'})")
        to.add_argument("--facet", nargs="*", metavar="COLUMN", help="columns with panels of their own")
        to.add_argument("--colour", metavar="COLUMN", help="column that colour tells (default: loss)")
        to.add_argument(
            "--line", nargs="*", default=[], metavar="COLUMN", help="further columns with lines of their own"
        )
        to.add_argument(
            "--pool", nargs="*", default=[], metavar="COLUMN", help="columns averaged with equal weight: task"
        )

    known = add(
        "status", _status, "Say what became of each run: finished, failed, running, missing; and by which code."
    )
    known.add_argument("sweeps", nargs="+", type=Path, metavar="SWEEP", help="folder of a sweep: multirun/NAME")
    columns = f"columns of the table:\n{collect.described_columns()}"
    collected = add_analysis(
        "collect", _collect, "Write one tidy table of all numbers: results.parquet and results.csv.", columns
    )
    add_output(collected, "SWEEP")
    table = add_analysis("table", _table, "Print a metric by condition, one column for each sparsity.", ROLES)
    table.add_argument("--format", choices=tables.WRITERS, default="text", help="how it is written (default: text)")
    add_roles(table, None)
    written = add_analysis(
        "tables", _tables, "Write the table of accuracies as text, Markdown, LaTeX (booktabs) and HTML: table.*."
    )
    add_output(written, "SWEEP")
    drawn = add_analysis(
        "figures",
        _figures,
        "Draw every figure that these records allow.",
        "figures:\n" + "\n".join(f"  {name:<34} {_about(FIGURES[name])}" for name in FIGURES),
    )
    drawn.add_argument("--only", nargs="+", choices=FIGURES, metavar="FIGURE", help="these figures")
    add_venue(drawn)
    one = add_analysis(
        "curve",
        _curve,
        "Draw any metric against any axis, with lines, colours and panels of your choice.",
        f"example: python -m analysis curve multirun/criteria --x bytes --colour criterion --facet loss\n\n{ROLES}",
    )
    add_roles(one, "block")
    add_venue(one)
    summed = add_analysis(
        "landmarks",
        _landmarks,
        "Print the area under each curve, the sparsity at which most of the dense accuracy is kept, and the cliff.",
    )
    summed.add_argument(
        "--kept", type=float, default=landmarks.KEPT, help="share of the dense accuracy (default: 0.95)"
    )
    best = add_analysis(
        "pareto",
        _pareto,
        "Print the runs that no other run beats in two metrics at once, and draw them into SWEEP/figures.",
        "Runs are chosen by selection questions where they were asked, else by test questions.\n"
        "example: python -m analysis pareto multirun/search --x macs_per_token --y nll",
    )
    best.add_argument("--x", default="parameters", help="metric of the x-axis (default: parameters)")
    best.add_argument("--y", default="accuracy", help="metric of the y-axis (default: accuracy)")
    best.add_argument("--split", choices=pareto.SPLITS, help="questions that choose; the others are shown beside them")
    for axis in ("x", "y"):
        best.add_argument(f"--{axis}-better", choices=["lower", "higher"], help="for a metric that is not known here")
    add_venue(best)
    compared = add_analysis(
        "compare",
        _compare,
        "Say what one factor changes, paired by question and seed, and how far the comparison is controlled.",
        "Intervals: over questions and seeds from 5 seeds on, over seeds with fewer, over questions with one.\n"
        "All comparisons that are printed are one family for Holm; --where declares a smaller one.\n"
        "example: python -m analysis compare multirun/quickstart --factor loss --a kl --b ce --where criterion=l2",
    )
    compared.add_argument("--factor", required=True, help="a column (loss, criterion, schedule) or dotted config key")
    compared.add_argument("--a", required=True, help="its value in the runs that are counted positive")
    compared.add_argument("--b", required=True, help="its value in the runs that are subtracted")
    compared.add_argument(
        "--see", type=float, default=100 * comparison.SEE, metavar="POINTS", help="difference to plan for (default: 2)"
    )
    compared.add_argument("--draw", action="store_true", help="draw the differences into SWEEP/figures too")
    add_venue(compared)
    tuned = add_analysis(
        "tune",
        _tune,
        "Choose each loss's learning rate on the selection questions, with and without labels, and compare the best on "
        "the test questions.",
        "Writes tuning.txt, .md, .tex (booktabs), .html, and all choices and differences as csv.\n"
        "example: regraft experiment=lr_per_arm; python -m analysis tune multirun/lr_per_arm",
    )
    add_output(tuned, "SWEEP")
    told = add_analysis("values", _values, "Write every number that a text would quote: values.tex and values.csv.")
    add_output(told, "SWEEP")
    page = add_analysis(
        "report", _report, "Write one self-contained page of sweeps, report.html, and print what it finds."
    )
    add_output(page, "SWEEP")
    board = commands.add_parser(
        "dashboard",
        help="Save a W&B workspace of what was logged, and a draft of a W&B Report.",
        description="Save a W&B workspace of what was logged, and a draft of a W&B Report.",
        epilog="example: python -m analysis dashboard me/regraft --draft-report multirun/quickstart",
    )
    board.add_argument("project", metavar="ENTITY/PROJECT", help="W&B project that the runs were logged to")
    board.add_argument("--sweep", nargs="+", default=[], metavar="NAME", help="sweeps that the workspace shows")
    board.add_argument(
        "--draft-report", nargs="+", type=Path, default=[], metavar="SWEEP", help="folders of the draft's sweeps"
    )
    board.add_argument("--update", metavar="URL", help="workspace to overwrite (default: save a new one)")
    board.set_defaults(command=_dashboard)
    return root


def _about(figure: Callable[..., object]) -> str:
    return (figure.__doc__ or "").strip().splitlines()[0]


def _read(given: argparse.Namespace) -> Collection:
    """The runs that were asked for."""
    conditions = {}
    for text in given.where:
        column, found, listed = text.partition("=")
        if not (column and found and listed):
            raise AnalysisError(f"--where {text}: must be COLUMN=VALUE[,VALUE], such as loss=ce,kl.")
        if column in conditions:
            raise AnalysisError(
                f"--where {text}: {column} is given twice. Give its values at once: {column}=VALUE,VALUE."
            )
        conditions[column] = listed.split(",")
    folders, unfinished = _sources(given)
    return collect.collect(folders, unfinished).where(conditions)


def _sources(given: argparse.Namespace) -> tuple[Sequence[Path], Sequence[tuple[Path, str]]]:
    """The folders of sweeps, and runs that are known to lack there."""
    if given.source is None:
        if not given.sweeps:
            raise AnalysisError("SWEEP: is missing. Give the folder of a sweep, such as multirun/quickstart.")
        return [Path(folder) for folder in given.sweeps], ()
    kind, _, project = given.source.partition(":")
    if kind != "wandb" or not all(project.split("/")) or project.count("/") != 1:
        raise AnalysisError(f"--from {given.source}: must be wandb:ENTITY/PROJECT, such as wandb:my-team/regraft.")
    # no other command waits until W&B is imported
    from regraft.tracking.wandb.read import download

    try:
        found = download(project, given.sweeps, Path(FETCHED) / project)
    except ValueError as error:
        raise AnalysisError(str(error)) from error
    return found.sweeps, found.unfinished


def _output(given: argparse.Namespace, collection: Collection) -> Path:
    return given.output or collection.folders[0] / "figures"


def _points(given: argparse.Namespace, collection: Collection) -> curves.Points:
    return curves.points(
        collection,
        metric(given.y, given.y_better),
        given.x or curves.main_axis(collection),
        facets=given.facet,
        colour=given.colour,
        lines=given.line,
        pool=given.pool,
    )


def _files(drawn: Drawn) -> list[str]:
    first = drawn.files[0]
    endings = ", ".join(path.name.removeprefix(first.stem).removeprefix(".") for path in drawn.files[1:])
    return [drawn.caption, *drawn.gaps, f"figure: {first} ({endings})"]


def _status(given: argparse.Namespace) -> list[str]:
    return status.told(given.sweeps)


def _collect(given: argparse.Namespace) -> list[str]:
    collection = _read(given)
    written = collect.write(collection, given.output or collection.folders[0])
    return [*collection.account(), *(f"table: {path}" for path in written)]


def _table(given: argparse.Namespace) -> list[str]:
    collection = _read(given)
    written = tables.of(collection, _points(given, collection)).written(given.format)
    if given.format != "text":
        # the table alone goes where stdout is sent; what is left out is said all the same
        sys.stderr.write("\n".join(collection.account()) + "\n")
        return [written]
    return [written, "", *collection.account()]


def _figures(given: argparse.Namespace) -> list[str]:
    collection = _read(given)
    folder, venue = _output(given, collection), VENUES[given.venue]
    if given.only:
        lines = [line for name in given.only for line in _files(FIGURES[name](collection, folder, venue))]
        return [*lines, *collection.account()]
    drawn, left_out = report.draw_all(collection, folder, venue)
    reasons = [f"  {name}: {reason}" for name, reason in left_out.items()]
    if not drawn:
        raise AnalysisError("\n".join(["These records allow no figure:", *reasons]))
    return [
        *(line for name, each in drawn.items() for line in (f"figure: {folder / name}.pdf", *_indented(each.gaps))),
        *(["not drawn:", *reasons] if reasons else []),
        *collection.account(),
    ]


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _curve(given: argparse.Namespace) -> list[str]:
    collection = _read(given)
    drawn = curve.draw(collection, _points(given, collection), _output(given, collection), VENUES[given.venue])
    return [*_files(drawn), *collection.account()]


def _landmarks(given: argparse.Namespace) -> list[str]:
    collection = _read(given)
    found = curves.points(collection, x="target")
    return [*landmarks.told(found, given.kept), "", *found.gaps, *collection.account()]


def _pareto(given: argparse.Namespace) -> list[str]:
    collection = _read(given)
    x, y = metric(given.x, given.x_better), metric(given.y, given.y_better)
    folder = _output(given, collection)
    drawn, table = pareto.front(collection, folder, x, y, given.split, VENUES[given.venue])
    return [*table, "", *_files(drawn), *collection.account()]


def _compare(given: argparse.Namespace) -> list[str]:
    collection = _read(given)
    comparisons, alone = comparison.compare(collection, given.factor, given.a, given.b)
    see = given.see / 100
    if not 0 < see < 1:
        raise AnalysisError(f"--see {given.see:g}: must be points between 0 and 100, such as 2.")
    needed = [line for each in comparisons if (line := comparison.told_needed(each, see))]
    if needed:
        needed = ["", comparison.told_needed_title(max(each.family[0] for each in comparisons), see), *needed]
    views = ["", "views of the same pairs, for these models, over the questions:"]
    views += [f"  {line}" for each in comparisons for line in comparison.told_views(each)]
    drawn: list[str] = []
    if given.draw:
        figure = differences.draw(comparisons, _output(given, collection), VENUES[given.venue], alone)
        # what it lacks is said below, drawn or not
        drawn = ["", *_files(replace(figure, gaps=()))]
    return [*(each.verdict for each in comparisons), *views, *needed, *drawn, "", *alone, *collection.account()]


def _tune(given: argparse.Namespace) -> list[str]:
    collection = _read(given)
    folder = given.output or collection.folders[0]
    found = tuning.tune(collection)
    table = tuning.table(found)
    lines = [table.written("text"), "", *found.verdicts, "", *collection.account(), *_written(table, folder, "tuning")]
    for name, rows in (("tuning", tuning.as_table(found)), ("tuning_compared", tuning.compared_table(found))):
        path = folder / f"{name}.csv"
        rows.to_csv(path, index=False)
        lines.append(f"table: {path}")
    return lines


def _tables(given: argparse.Namespace) -> list[str]:
    collection = _read(given)
    folder = given.output or collection.folders[0]
    table = tables.of(collection, curves.points(collection, x=curves.main_axis(collection)))
    return [*collection.account(), *_written(table, folder, "table")]


def _written(table: tables.Table, folder: Path, name: str) -> list[str]:
    """A table in all formats."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for form, ending in tables.ENDINGS.items():
        path = folder / f"{name}.{ending}"
        path.write_text(table.written(form) + "\n", encoding="utf-8")
        lines.append(f"table: {path}")
    return lines


def _report(given: argparse.Namespace) -> list[str]:
    collection = _read(given)
    folder = given.output or collection.folders[0]
    collect.write(collection, folder)
    path, shown = report.write(collection, folder)
    return [*shown, "", *collection.account(), f"report, with all verdicts and figures: {path}"]


def _dashboard(given: argparse.Namespace) -> list[str]:
    from analysis import dashboard  # it loads W&B, which no other command waits for

    drafted = collect.collect(given.draft_report) if given.draft_report else None
    return dashboard.save(given.project, given.sweep, drafted, given.update)


def _values(given: argparse.Namespace) -> list[str]:
    collection = _read(given)
    found, gaps = values.values(collection)
    written = values.write(found, given.output or collection.folders[0])
    return [f"{len(found):,} values", *gaps, *collection.account(), *(f"file: {path}" for path in written)]


if __name__ == "__main__":
    sys.exit(main())
