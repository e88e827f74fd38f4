"""What holds of every figure: drawn from records, whole and legible at each venue, the same bytes each time."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas
import pytest
import sweeps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis.collect import AnalysisError, Collection, collect
from analysis.figures import FIGURES
from analysis.figures.style import VENUES
from regraft.records import PREDICTIONS

STUDIES = {
    "accuracy_vs_recovery_questions": "scaling",
    "uncertainty_vs_recovery_questions": "scaling",
    "capacity_gap": "teachers",
    "accuracy_vs_learning_rate": "rates",
    "accuracy_of_methods": "methods",
}
"""Figure -> fixture with the records that allow it, where that is not `study`."""
SMALLEST = 7.0
"""Points. The body of these papers is set in 10, and footnotes in 8."""


@pytest.fixture
def records(request: pytest.FixtureRequest) -> Callable[[str], Collection]:
    return lambda figure: request.getfixturevalue(STUDIES.get(figure, "study"))


def _texts(figure: Figure) -> list[Text]:
    """Those that are shown."""
    found = [*figure.texts]
    for legend in figure.legends:
        found += [*legend.get_texts(), legend.get_title()]
    for axes in _shown(figure):
        found += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            low, high = sorted(limits)
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if low <= tick.get_loc() <= high:
                    found.append(tick.label1)
    return [text for text in found if text.get_visible() and text.get_text()]


def _shown(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_visible()]


def _assert_well_laid_out(figure: Figure) -> None:
    frame, texts = figure.bbox, _texts(figure)
    boxes = {text: text.get_window_extent() for text in texts}
    assert min(text.get_fontsize() for text in texts) >= SMALLEST
    for text, box in boxes.items():
        inside = box.x0 >= frame.x0 and box.x1 <= frame.x1 and box.y0 >= frame.y0 and box.y1 <= frame.y1
        assert inside, f"{text.get_text()!r} is cut"
    for one, other in itertools.combinations(texts, 2):
        assert not boxes[one].overlaps(boxes[other]), f"{one.get_text()!r} lies on {other.get_text()!r}"
    (legend,) = figure.legends
    assert legend.get_texts()
    for axes in _shown(figure):
        box = axes.get_tightbbox()
        assert box is not None and not legend.get_window_extent().overlaps(box)
        # a panel of which labels leave nothing shows nothing
        assert axes.get_window_extent().width > 0.9 * figure.dpi and axes.get_window_extent().height > figure.dpi


def _assert_points_inside(figure: Figure) -> None:
    """No marker lies outside the limits of its panel."""
    for axes in _shown(figure):
        (left, right), (low, high) = sorted(axes.get_xlim()), sorted(axes.get_ylim())
        for line in axes.lines:
            if line.get_transform() == axes.transData and line.get_marker() not in ("", "None", None):
                for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True):
                    assert left <= x <= right and low <= y <= high


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("venue", ["acl", "plain"])
def test_every_figure_is_whole_and_legible(
    name: str, venue: str, records: Callable[[str], Collection], tmp_path: Path, drawn: list[Figure]
) -> None:
    result = FIGURES[name](records(name), tmp_path, VENUES[venue])
    (figure,) = drawn
    _assert_well_laid_out(figure)
    _assert_points_inside(figure)
    assert figure.get_supxlabel() or figure.axes[0].get_xlabel()
    assert _shown(figure)[0].get_ylabel()
    assert result.caption.endswith(".") and "nan" not in result.caption
    assert result.files[-1].read_text(encoding="utf-8") == result.caption + "\n"
    tables = [pandas.read_csv(path) for path in result.files if path.suffix == ".csv"]
    assert tables and all(len(table) for table in tables)


@pytest.mark.parametrize("venue", VENUES)
def test_widths_are_those_of_the_venue(
    venue: str, sweep: Callable[..., Collection], tmp_path: Path, drawn: list[Figure]
) -> None:
    page = VENUES[venue]
    study = sweep(
        *({"criterion": criterion, "sparsity": share} for criterion in ("l2", "random") for share in (0.3, 0.5))
    )
    FIGURES["accuracy_vs_retention"](study, tmp_path, page)
    FIGURES["accuracy_vs_block_sparsity"](study, tmp_path, page)
    assert [figure.get_figwidth() for figure in drawn] == [page.column, page.text]
    for figure in drawn:
        _assert_well_laid_out(figure)
        family = {text.get_fontfamily()[0] for text in _texts(figure)}
        assert family == {"STIXGeneral" if page.serif else "DejaVu Sans"}


def test_many_conditions_at_once_are_legible(tmp_path: Path, drawn: list[Figure]) -> None:
    losses = ("none", "ce", "kl", "ce_kl", "pseudo_label")
    criteria = ("l1", "l2", "random")
    study = sweeps.grid(tmp_path / "wide", losses=losses, criteria=criteria, sparsities=(0.0, 0.5), seeds=(0, 1))
    for name in ("accuracy_vs_block_sparsity", "accuracy_vs_retention", "spread_of_seeds"):
        FIGURES[name](collect([study]), tmp_path / "figures")
    for figure in drawn:
        _assert_well_laid_out(figure)


def test_the_same_records_give_the_same_bytes(
    study: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["accuracy_vs_retention", "layer_wise_sparsity"]
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    here = {path.name: path.read_bytes() for name in names for path in FIGURES[name](study, tmp_path / "here").files}
    assert {Path(name).suffix for name in here} == {".pdf", ".png", ".svg", ".csv", ".txt"}
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-m", "analysis", "figures", str(study.folders[0]), "--only", *names]
    subprocess.run(
        [*command, "--output", str(tmp_path / "there")],
        check=True,
        capture_output=True,
        cwd=root,
        env=os.environ | {"SOURCE_DATE_EPOCH": "86400", "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"},
    )
    there = {path.name: path.read_bytes() for path in (tmp_path / "there").iterdir()}
    assert here.keys() == there.keys()
    assert [name for name in here if here[name] != there[name]] == []
    assert all(b"/Type3" not in data for name, data in here.items() if name.endswith(".pdf"))


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_that_records_do_not_allow_is_refused(
    name: str, sweep: Callable[..., Collection], tmp_path: Path
) -> None:
    with pytest.raises(AnalysisError) as refused:
        FIGURES[name](sweep({"loss": "none", "questions": 5}), tmp_path / "figures")
    assert len(str(refused.value)) > 20
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize("name", ["reliability", "uncertainty_vs_recovery_questions"])
def test_what_needs_answers_names_the_run_that_has_none(name: str, tmp_path: Path) -> None:
    for size in (10, 20):
        for loss in ("ce", "kl"):
            for seed in (0, 1):
                settings = {"train_size": size, "recovery_questions": size, "metrics": {"ece": 0.1}}
                made = sweeps.record(loss=loss, seed=seed, accuracy=0.5 + seed / 10, **settings)
                folder = sweeps.save(made, tmp_path / "study")
    (folder / PREDICTIONS).unlink()
    with pytest.raises(AnalysisError, match=f"{folder.name}.*is missing"):
        FIGURES[name](collect([tmp_path / "study"]), tmp_path / "figures")
    (gap,) = FIGURES["loss_kl_minus_ce"](collect([tmp_path / "study"]), tmp_path / "figures").gaps
    assert folder.name in gap and "is missing" in gap


@pytest.mark.parametrize("venue", ["acl", "plain"])
def test_long_names_of_conditions_stay_on_the_page(venue: str, tmp_path: Path, drawn: list[Figure]) -> None:
    """Legends and titles are broken into lines, and a path is told by its end."""
    for criterion in ("l2", "random"):
        for sparsity in (0.5, 0.8):
            for teacher in ("one", "two"):
                made = sweeps.record(loss="pseudo_label", criterion=criterion, sparsity=sparsity)
                made.config["teacher"] |= {"model": {"source": {"path": f"/a/very/long/path/{teacher * 9}/checkpoint"}}}
                made = replace(made, run_id=f"{made.run_id}{teacher}")
                sweeps.save(made, tmp_path / "study")
    FIGURES["accuracy_vs_block_sparsity"](collect([tmp_path / "study"]), tmp_path, VENUES[venue])
    (figure,) = drawn
    (legend,) = figure.legends
    assert legend.get_window_extent().x1 <= figure.bbox.x1 and legend.get_window_extent().x0 >= figure.bbox.x0
    text = " ".join(each.get_text() for each in legend.get_texts()).replace("\n", "")
    assert "/a/very" not in text and "checkpoint" in text.replace(" ", "")
