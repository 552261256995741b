"""The notebooks of the documentation hold what docs/make_notebooks.py wrote, were run whole, and run again (A1, A33)."""

from __future__ import annotations

import importlib.util
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

DOCS = Path(__file__).parents[2] / "docs"


def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_notebooks", DOCS / "make_notebooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


MADE = maker()
# what must be among the printed words
SAID = {
    "first-detector": ("finished", "produksi"),
    "classifier": ("finished", "accuracy", "→"),
    "own-photos": ("finished", "data_image_truncated", "data_image_text", "produksi"),
    "resume-and-roll-back": ("crashed", "goes on in epoch 3", "finished", "produksi is v1 again"),
    "export-to-a-phone": ("verified again", "values_rupiah", "same total: True"),
    "colab-and-drive": ("crashed", "cut in half", "went on in epoch", "finished"),
}
# the packages that a notebook needs beside those of the tests
NEEDS = {"export-to-a-phone": ("onnx", "onnxruntime", "onnxscript")}
NOTEBOOKS = [(name, language) for name in MADE.NOTEBOOKS for language in ("en", "id")]


@pytest.mark.parametrize(("name", "language"), NOTEBOOKS)
def test_a_notebook_was_run_whole_and_is_up_to_date(name: str, language: str) -> None:
    book = nbformat.read(DOCS / "notebooks" / f"{name}.{language}.ipynb", as_version=4)
    fresh = MADE.written(MADE.NOTEBOOKS[name], language)
    hint = "run: python docs/make_notebooks.py"
    assert [cell.source for cell in book.cells] == [cell.source for cell in fresh.cells], hint
    ran = [cell.execution_count for cell in book.cells if cell.cell_type == "code"]
    assert ran == list(range(1, len(ran) + 1)), hint
    assert not [
        output for cell in book.cells for output in cell.get("outputs", ()) if output.output_type == "error"
    ]


@pytest.mark.drills
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the Jupyter client
@pytest.mark.parametrize("name", MADE.NOTEBOOKS)
def test_every_cell_of_a_notebook_runs(name: str) -> None:
    """In English; the code is the same in both languages."""
    if missing := [package for package in NEEDS.get(name, ()) if find_spec(package) is None]:
        pytest.skip(f"not installed: {', '.join(missing)} (pip install 'smartcash[onnx]')")
    book = MADE.written(MADE.NOTEBOOKS[name], "en")
    MADE.run(book, "en")
    said = "".join(output.get("text", "") for cell in book.cells for output in cell.get("outputs", ()))
    assert all(words in said for words in SAID[name])
