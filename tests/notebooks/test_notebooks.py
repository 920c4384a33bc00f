"""The notebooks run from first to last cell, on the built-in model and without network."""

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
BUILT_IN = ROOT / "hotshot_jax" / "builtin" / "checkpoint"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# In place of what the cell of settings says.
SMALL = """
MODEL = ""
TRAINED_MODEL = {model!r}
STEPS = 2
TRAINING_STEPS = 2
RESOLUTION = 128
FOLDER = {folder!r}
COMMON = f"--compilation_cache {{FOLDER}}/compiled --overwrite"
"""


def cells(file: Path, tag: str) -> list[nbformat.NotebookNode]:
    notebook = nbformat.read(file, as_version=4)
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


@pytest.mark.notebook
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = nbformat.read(file, as_version=4)
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "parameters" in tags:
            cell.source += SMALL.format(folder=str(tmp_path / "work"), model=str(BUILT_IN))
        if "network" in tags:
            cell.source = ""
    flags = os.environ.get("XLA_FLAGS", "")
    monkeypatch.setenv("XLA_FLAGS", f"{flags} --xla_force_host_platform_device_count=8")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute(cwd=str(tmp_path))
    shown = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "display_data"
    ]
    assert len(shown) >= 6
    assert all({"image/gif", "image/png"} & set(output.data) for output in shown)
    for name in ("clips/star.gif", "loop.gif", "with-lora.gif", "lora/loss.png", "tuned/export"):
        assert (tmp_path / "work" / name).exists(), name


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_as_it_should_be_kept(file: Path) -> None:
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert len(cells(file, "parameters")) == len(cells(file, "network")) == 1
    # Whoever reads it finds a sentence before each piece of code, and the real model by default.
    assert 'MODEL = "--pretrained_path hotshotco/Hotshot-XL"' in cells(file, "parameters")[0].source
    assert notebook.cells[0].cell_type == "markdown"
