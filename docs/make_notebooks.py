"""Write docs/notebooks/*.ipynb: `python docs/make_notebooks.py [--out FOLDER]`. Every cell is run, in an empty folder.

The words are here in both languages, the code is the same. Needs the extra `test` (nbclient, ipykernel)."""

from __future__ import annotations

import argparse
import base64
import io
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat.notebooknode import NotebookNode
from PIL import Image

DOCS = Path(__file__).parent
MINUTES = 15
SHOWN_PX = 640  # the width of a picture

# per cell: its code, or its words by language
Cells = list[str | dict[str, str]]

FIRST_DETECTOR: Cells = [
    {
        "en": "# A first detector, from Python\n\nDrawn notes, a training that is checked, confirmed and watched, a "
        "result, and money counted in a picture: about three minutes on two CPU cores. The same steps work on your own "
        "photos: put their folder in place of `notes`.",
        "id": "# Detektor pertama, dari Python\n\nUang gambar, training yang diperiksa, dikonfirmasi, dan dipantau, "
        "hasilnya, lalu uang dihitung dalam gambar: sekitar tiga menit dengan dua inti CPU. Langkah yang sama berlaku "
        "untuk foto Anda sendiri: tulis foldernya sebagai ganti `notes`.",
    },
    "!smartcash data sample --out notes --images 200 --size 192 --seed 7",
    {
        "en": "What is in there, and is anything strange about it?",
        "id": "Apa isinya, dan adakah yang janggal?",
    },
    "!smartcash data check notes",
    {
        "en": "## Check and confirm\n\n`check` starts nothing. It gives every problem at once, and what would change. "
        "Here the number of epochs makes no sense:",
        "id": "## Periksa dan konfirmasi\n\n`check` tidak memulai apa pun. Ia memberi semua masalah sekaligus, dan apa "
        "yang akan berubah. Di sini jumlah epoch tidak masuk akal:",
    },
    "from pathlib import Path\n\n"
    "from IPython.display import Image\n\n"
    "from smartcash import TrainingManager, load\n\n"
    "manager = TrainingManager()\n"
    'values = {"data": {"path": "notes", "image_size": 160}, "training": {"epochs": 0}}\n'
    "for problem in manager.check(values).problems:\n"
    "    print(problem.field, problem.code, problem.message(), sep=' · ')",
    'values["training"]["epochs"] = 16\n'
    "review = manager.check(values)\n"
    "for change in review.changes:\n"
    "    print(change.message())",
    {
        "en": "`apply` is the confirmation; it is written to the operation log. A worker then builds everything, looks "
        "at every picture, times a few steps, and says how long it will take.",
        "id": "`apply` adalah konfirmasinya, dan dicatat di log operasi. Sebuah proses pekerja lalu membangun semuanya, "
        "melihat setiap gambar, mengukur beberapa langkah, dan memperkirakan lamanya.",
    },
    "run = manager.apply(review, significant=True)\nmanager.wait_ready(run)",
    {
        "en": "## Train and watch\n\nThe training is a process of its own: it goes on when this notebook is closed, and "
        "`watch` can be begun again at any time.",
        "id": "## Latih dan pantau\n\nTraining adalah proses tersendiri: ia terus berjalan bila notebook ini ditutup, "
        "dan `watch` dapat dimulai lagi kapan saja.",
    },
    "manager.start(run)\n"
    "for event in manager.watch(run):\n"
    '    if event["type"] == "EpochEnded":\n'
    '        row = event["row"]\n'
    "        print(f\"{event['epoch']:2}  loss {row['train_loss']:.3f}  mAP50 {row['mAP50']:.3f}\")\n"
    "print(manager.state(run))",
    {
        "en": "What the best epoch finds in pictures that it has not seen:",
        "id": "Yang ditemukan epoch terbaik dalam gambar yang belum pernah dilihatnya:",
    },
    'test = manager.result(run)["test"]\n'
    "print(f\"mAP50 {test['mAP50']:.3f}, totals that are exact {test['exact_sum']:.0%}\")\n"
    'Image(run.path / "report" / "predictions.jpg", width=640)',
    {
        "en": "## Use it\n\nEvery finished run becomes a model version. Promote it to a name that other programs ask "
        "for, and count money:",
        "id": "## Pakai\n\nSetiap run yang selesai menjadi versi model. Beri ia nama yang diminta program lain, lalu "
        "hitung uang:",
    },
    "!smartcash models promote v1 --alias produksi --yes",
    'model = load("produksi")\n'
    'picture = sorted(Path("notes/images/test").iterdir())[0]\n'
    "found = model.predict(picture)\n"
    "print(f\"{len(found['found'])} notes, Rp {found['total_rupiah']:,}\")\n"
    "Image(picture)",
    {
        "en": "## Afterwards\n\nWho did what, and is the record whole?",
        "id": "## Sesudahnya\n\nSiapa melakukan apa, dan utuhkah catatannya?",
    },
    "!smartcash log verify\n!smartcash runs list",
]

NOTEBOOKS = {"first-detector": FIRST_DETECTOR}


def written(cells: Cells, language: str) -> NotebookNode:
    """A notebook in a language, not run yet."""
    book = nbformat.v4.new_notebook()
    for place, cell in enumerate(cells):
        made = (
            nbformat.v4.new_code_cell(cell)
            if isinstance(cell, str)
            else nbformat.v4.new_markdown_cell(cell[language])
        )
        made["id"] = f"cell-{place}"
        book.cells.append(made)
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return book


def run(book: NotebookNode, language: str) -> None:
    """Run every cell in an empty folder, with texts in `language`. Raises CellExecutionError."""
    with tempfile.TemporaryDirectory() as folder:
        own = {
            "SMARTCASH_LANG": language, "SMARTCASH_HOME": str(Path(folder) / "runs"), "COLUMNS": "120", "NO_COLOR": "1",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        }  # fmt: skip
        before = dict(os.environ)
        os.environ.update(own)
        try:
            NotebookClient(book, timeout=60 * MINUTES, resources={"metadata": {"path": folder}}).execute()
        finally:
            os.environ.clear()
            os.environ.update(before)
    for cell in book.cells:
        cell.metadata.clear()  # when it ran
        if cell.cell_type == "code":  # warnings of the notebook's own packages stand in stderr
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
        for output in cell.get("outputs", ()):
            if picture := output.get("data", {}).get("image/jpeg"):
                output["data"]["image/jpeg"] = lighter(picture)
            if "text" in output:
                output["text"] = output["text"].replace(folder, ".")


def lighter(picture: str) -> str:
    """A JPEG in base64, no wider than it is shown."""
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        image.thumbnail((SHOWN_PX, 10 * SHOWN_PX))
        written = io.BytesIO()
        image.save(written, "JPEG", quality=75, optimize=True)
    return base64.b64encode(written.getvalue()).decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DOCS / "notebooks")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, cells in NOTEBOOKS.items():
        for language in ("en", "id"):
            book = written(cells, language)
            run(book, language)
            nbformat.write(book, out / f"{name}.{language}.ipynb")
            print(out / f"{name}.{language}.ipynb")


if __name__ == "__main__":
    main()
