"""The page of a sweep, and the files of its table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import sweeps

from analysis.__main__ import main
from regraft.records import PREDICTIONS


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return sweeps.grid(tmp_path / "study", criteria=("l2",), sparsities=(0.0, 0.8), seeds=(0, 1), questions=50)


def test_the_page_holds_all_verdicts_and_its_figures(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(study)]) == 0
    said = capsys.readouterr().out
    page = (study / "report.md").read_text()
    # what is printed is the first pair of losses; the page has KL and CE against none too
    assert said.count("same units") == 2 and page.count("same units") == 6
    pictures = re.findall(r"!\[[^]]*]\(([^)]*)\)", page)
    assert len(pictures) >= 4 and all((study / picture).is_file() for picture in pictures)
    assert "Not drawn:" in page and "- capacity_gap: " in page
    assert "12 finished runs" in page and "| L2 | KL |" in page
    assert (study / "results.csv").is_file()


def test_a_run_without_answers_is_a_gap_on_the_page(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = next(study.glob(f"*/{PREDICTIONS}"))
    broken.unlink()
    assert main(["report", str(study)]) == 0
    page = (study / "report.md").read_text()
    assert page.count("are not compared: ") >= 1 and broken.parent.name in page
    assert page.count("same units") >= 2


def test_the_table_is_written_in_four_forms(study: Path, tmp_path: Path) -> None:
    assert main(["tables", str(study), "--output", str(tmp_path / "out")]) == 0
    starts = {"txt": "Accuracy", "md": "Accuracy", "tex": "% Accuracy", "html": "<table>"}
    for ending, start in starts.items():
        assert (tmp_path / "out" / f"table.{ending}").read_text().startswith(start)
