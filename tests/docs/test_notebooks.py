"""The notebooks run as they are stored, and are stored with what they put out."""

import json
import os
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))
LARGEST = 300_000  # bytes


def cells(notebook):
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_it_is_stored_executed_and_small(notebook):
    assert notebook.stat().st_size < LARGEST
    assert [cell["execution_count"] for cell in cells(notebook)] == [*range(1, len(cells(notebook)) + 1)]
    outputs = [output for cell in cells(notebook) for output in cell["outputs"]]
    assert len(outputs) >= 4
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_it_runs(notebook, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="make test-docs installs it")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    read = nbformat.read(notebook, as_version=4)
    nbclient.NotebookClient(read, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    stored = [[output["output_type"] for output in cell["outputs"]] for cell in cells(notebook)]
    assert [[output.output_type for output in cell.outputs] for cell in read.cells if cell.cell_type == "code"] == stored
