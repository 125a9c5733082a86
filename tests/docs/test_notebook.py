"""The notebook runs from its first cell to its last, and is stored without what it printed."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from traitlets.config import Config

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "super_resolve_a_pair.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_is_stored_without_outputs(notebook):
    assert [cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")] == []


def test_the_notebook_runs_and_shows_what_it_says(notebook, tmp_path, tmp_path_factory, monkeypatch):
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(variable, "1")
    sockets = tmp_path_factory.mktemp("ipc") / "k"  # no port is opened
    local = Config({"KernelManager": {"transport": "ipc", "ip": str(sockets)}})
    NotebookClient(notebook, timeout=300, config=local, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    printed = "".join(output["text"] for output in outputs if output.get("name") == "stdout")
    assert "warnings: none" in printed
    assert "most accurate on this pair: base" in printed
    assert "(1, 1, 64, 48) 3.9 M parameters" in printed
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert list(tmp_path.iterdir()) == []  # nothing is left in the reader's folder
