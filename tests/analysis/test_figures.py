from __future__ import annotations

from pathlib import Path

import pandas
import pytest
import sweeps
from matplotlib.figure import Figure

from analysis import figures
from analysis.collect import AnalysisError, collect
from analysis.figures import accuracy_vs_sparsity, axis_label
from regraft.records import PREDICTIONS


def test_the_same_records_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = collect([sweeps.grid(tmp_path / "study", sparsities=(0.0, 0.5, 0.8))])
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    first = accuracy_vs_sparsity(collection, tmp_path / "first")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    second = accuracy_vs_sparsity(collection, tmp_path / "second")
    assert [path.name for path in first.files] == [
        "accuracy_vs_block_sparsity.pdf",
        "accuracy_vs_block_sparsity.png",
        "accuracy_vs_block_sparsity.svg",
        "accuracy_vs_block_sparsity.csv",
        "accuracy_vs_block_sparsity_runs.csv",
        "accuracy_vs_block_sparsity.txt",
    ]
    for one, other in zip(first.files, second.files, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
    assert b"/Type3" not in first.files[0].read_bytes()


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved."""
    saved: list[Figure] = []
    original = figures.save

    def keep(figure: Figure, *rest: object) -> tuple[Path, ...]:
        saved.append(figure)
        return original(figure, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(figures, "save", keep)
    return saved


def test_what_is_drawn(tmp_path: Path, drawn: list[Figure]) -> None:
    study = sweeps.grid(tmp_path, sparsities=(0.0, 0.5, 0.8))
    result = accuracy_vs_sparsity(collect([study]), tmp_path / "figures", "model")
    (figure,) = drawn
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["none", "CE", "KL", "dense", "chance"]
    assert [axes.get_title() for axes in figure.axes] == ["criterion L2", "criterion random"]
    assert figure.get_supxlabel() == "Share of all parameters removed (%)"
    assert figure.axes[0].get_ylabel() == "Accuracy on test questions (%)"
    data = pandas.read_csv(tmp_path / "figures" / "accuracy_vs_model_sparsity.csv")
    assert len(data) == 2 * 3 * 3
    for axes, criterion in zip(figure.axes, ("l2", "random"), strict=True):
        levels = [line.get_ydata()[0] for line in axes.lines if len(set(line.get_ydata())) == 1 < len(line.get_ydata())]
        assert pytest.approx(97.0) in levels and pytest.approx(20.0) in levels
        kl = data[(data["criterion"] == criterion) & (data["loss"] == "kl")]
        curves = [
            line for line in axes.lines if line.get_color() == figures.COLOURS["kl"][0] and len(line.get_xdata()) == 3
        ]
        heights = [list(line.get_ydata()) for line in curves]
        assert pytest.approx(list(100 * kl["mean"])) in heights
    assert "over 3 seeds" in result.caption and "on 400 test questions" in result.caption
    assert "Chance, the mean over questions of 1 / number of choices: 20.0 %" in result.caption
    assert "Dense, the model before pruning: 97.0 %" in result.caption


def test_all_text_lies_inside_and_is_large_enough(tmp_path: Path, drawn: list[Figure]) -> None:
    losses = ("none", "ce", "kl", "ce_kl", "pseudo_label")
    for name, criteria in (("wide", ("l1", "l2", "random")), ("narrow", ("l2",))):
        study = sweeps.grid(tmp_path / name, losses=losses, criteria=criteria, sparsities=(0.0, 0.5), seeds=(0, 1))
        accuracy_vs_sparsity(collect([study]), tmp_path / name / "figures")
    for figure in drawn:
        frame = figure.bbox
        texts = [*figure.texts, *figure.legends[0].get_texts(), figure.legends[0].get_title()]
        for axes in figure.axes:
            texts += [axes.title, axes.yaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels()]
        shown = [text for text in texts if text.get_visible() and text.get_text()]
        assert min(text.get_fontsize() for text in shown) >= 7
        legend = figure.legends[0].get_window_extent()
        assert frame.x0 <= legend.x0 and legend.x1 <= frame.x1 and legend.y1 <= frame.y1
        # the box of a panel holds its title, labels and those tick labels that are drawn
        boxes = [axes.get_tightbbox() for axes in figure.axes]
        assert not any(legend.overlaps(box) for box in boxes)
        for box in (*boxes, *(text.get_window_extent() for text in figure.texts)):
            assert box.x0 > frame.x0 - 1 and box.x1 < frame.x1 + 1
            assert box.y0 > frame.y0 - 1 and box.y1 < frame.y1 + 1


def test_one_seed_gets_bars_over_questions_and_says_so(tmp_path: Path) -> None:
    study = sweeps.grid(tmp_path, sparsities=(0.5, 0.8), seeds=(0,))
    caption = accuracy_vs_sparsity(collect([study]), tmp_path / "figures").caption
    assert "intervals over the questions (Wilson); nothing is known of the spread over seeds" in caption
    assert "over seeds (t" not in caption


def test_all_right_and_all_wrong_are_drawn(tmp_path: Path) -> None:
    for loss, value in (("kl", 1.0), ("ce", 0.0)):
        for questions in (7, 1221):
            study = tmp_path / str(questions)
            sweeps.save(sweeps.record(loss=loss, accuracy=value, questions=questions), study)
    for questions in (7, 1221):
        assert accuracy_vs_sparsity(collect([tmp_path / str(questions)]), tmp_path / "figures").gaps == ()


def test_without_predictions_the_chance_line_is_missing_and_told(tmp_path: Path) -> None:
    study = sweeps.grid(tmp_path, criteria=("l2",), sparsities=(0.5,), seeds=(0, 1))
    for path in study.glob(f"*/{PREDICTIONS}"):
        path.unlink()
    result = accuracy_vs_sparsity(collect([study]), tmp_path / "figures")
    assert len(result.gaps) == 1 and result.gaps[0].startswith("no chance line: ")
    assert "Chance" not in result.caption


def test_lines_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    for size in range(1, 8):
        sweeps.save(sweeps.record(train_size=size), tmp_path)
    with pytest.raises(AnalysisError, match="cannot be told apart"):
        accuracy_vs_sparsity(collect([tmp_path]), tmp_path / "figures")


def test_axis_says_what_is_removed() -> None:
    assert axis_label("block", {"mlp_neurons"}) == "Share of MLP neurons removed (%)"
    assert axis_label("target", {"mlp_neurons"}) == "Requested share of MLP neurons removed (%)"
    assert axis_label("block", {"mlp_neurons", "heads"}) == "Share of units removed (%)"
    assert axis_label("model", {"mlp_neurons"}) == "Share of all parameters removed (%)"
