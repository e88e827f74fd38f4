"""The notebook runs from its first cell to its last on a sweep that is not its own."""

from __future__ import annotations

from pathlib import Path

import nbformat
import sweeps
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "analysis" / "tutorial.ipynb"
OWN = 'sweep = Path("../multirun/quickstart")'


def test_the_notebook_runs(tmp_path: Path) -> None:
    study = sweeps.grid(tmp_path / "study", sparsities=(0.0, 0.5, 0.8), questions=60)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert OWN in first.source
    first.source = first.source.replace(OWN, f"sweep = Path({str(study)!r})")
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    told = str([cell.get("outputs") for cell in notebook.cells])
    assert "54 finished runs" in told and "after Holm over" in told and "image/png" in told
    assert (study / "figures" / "accuracy_vs_block_sparsity.pdf").exists()


def test_the_notebook_is_kept_without_what_it_printed() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code")
