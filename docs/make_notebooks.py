"""Write docs/notebooks/*.ipynb: `python docs/make_notebooks.py [NAME …] [--out FOLDER]`. Every cell is run, in an empty
folder.

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

WATCHED = (
    "manager.start(run)\n"
    "for event in manager.watch(run):\n"
    '    if event["type"] == "EpochEnded":\n'
    '        row = event["row"]\n'
    "        print(f\"{event['epoch']:2}  loss {row['train_loss']:.3f}  {MEASURE} {row['MEASURE']:.3f}\")\n"
    "print(manager.state(run))"
)
CONFIRMED = (
    "from smartcash import TrainingManager, load\n\n"
    "manager = TrainingManager()\n"
    "review = manager.check(SETTINGS)\n"
    "for problem in review.problems:\n"
    "    print(problem.message())\n"
    "run = manager.apply(review, significant=True)  # this confirms what the review holds\n"
    "manager.wait_ready(run)\n"
    "print(manager.state(run))"
)


def confirmed(**settings: str) -> str:
    """A cell that checks and confirms a training with these sections."""
    sections = ", ".join(f'"{name}": {{{fields}}}' for name, fields in settings.items())
    return CONFIRMED.replace("SETTINGS", f"{{{sections}}}")


def watched(measure: str) -> str:
    """A cell that starts a training and follows it."""
    return WATCHED.replace("{MEASURE}", measure).replace("MEASURE", measure)


CLASSIFIER: Cells = [
    {
        "en": "# A classifier: which note is it?\n\nA detector finds several notes and says where they are. A classifier "
        "answers one question about a photo of one note, and needs no boxes: photos sorted into folders are enough. "
        "This notebook is of toy size, so that it runs anywhere in a few minutes.",
        "id": "# Pengklasifikasi: lembar apakah ini?\n\nDetektor menemukan beberapa lembar dan tempatnya. Pengklasifikasi "
        "menjawab satu pertanyaan tentang foto satu lembar, dan tidak memerlukan kotak: foto yang dipilah ke dalam "
        "folder sudah cukup. Notebook ini berukuran mainan, agar berjalan di mana pun dalam beberapa menit.",
    },
    "!smartcash data sample --task classify --out notes --images 140 --size 96 --seed 7",
    {
        "en": "One folder per denomination, in `train`, `valid` and `test`. That is all that tells SmartCash to "
        "classify:",
        "id": "Satu folder per pecahan, dalam `train`, `valid`, dan `test`. Hanya dari situlah SmartCash tahu bahwa "
        "tugasnya mengklasifikasi:",
    },
    "!smartcash data check notes",
    {
        "en": "## Check, confirm, train",
        "id": "## Periksa, konfirmasi, latih",
    },
    confirmed(data='"path": "notes", "image_size": 96', training='"epochs": 5'),
    watched("accuracy"),
    {
        "en": "On the test pictures, with the weights of the best epoch:",
        "id": "Pada gambar uji, dengan bobot epoch terbaik:",
    },
    'test = manager.result(run)["test"]\n'
    'for name in ("accuracy", "precision", "recall", "f1"):\n'
    '    print(f"{name:10} {test[name]:.3f}")',
    {
        "en": "## Ask it\n\nThe answer has the class, how sure it is, and the value in Rupiah:",
        "id": "## Tanyai\n\nJawabannya memuat kelas, seberapa yakin, dan nilainya dalam Rupiah:",
    },
    "from pathlib import Path\n\n"
    'model = load("latest")\n'
    'for picture in sorted(Path("notes/test").rglob("*.jpg"))[::4]:\n'
    '    found = model.predict(picture)["found"][0]\n'
    "    print(f\"{picture.parent.name:>6} → {found['class']:>6}  {found['score']:.2f}\")",
    {
        "en": "It always answers, also when no note is in the photo. If photos may show several notes or none, train a "
        "detector.",
        "id": "Ia selalu menjawab, juga bila tidak ada uang dalam foto. Bila foto dapat memuat beberapa lembar atau tidak "
        "sama sekali, latihlah detektor.",
    },
]

OWN_PHOTOS: Cells = [
    {
        "en": "# Own photos: from folders to a model\n\nPhotos from a phone, sorted into one folder per denomination: the "
        "quickest way to a model of your own. Here drawn notes stand in for your photos; put your folder in place of "
        "`photos`. Toy size, a few minutes.",
        "id": "# Foto sendiri: dari folder menjadi model\n\nFoto dari ponsel, dipilah ke satu folder per pecahan: jalan "
        "tercepat menuju model sendiri. Di sini uang gambar menggantikan foto Anda; tulis folder Anda sebagai ganti "
        "`photos`. Ukuran mainan, beberapa menit.",
    },
    {
        "en": "Let us make such a folder, with what happens in real ones: a shot that was copied under another name, a "
        "file whose transfer broke off, and a web page saved under a picture's name.",
        "id": "Mari buat folder seperti itu, dengan yang biasa terjadi: satu jepretan tersalin dengan nama lain, satu "
        "berkas yang pengirimannya terputus, dan satu halaman web yang tersimpan dengan nama gambar.",
    },
    "!smartcash data sample --task classify --out drawn --images 140 --size 96 --seed 3",
    "import shutil\nfrom pathlib import Path\n\n"
    'for number, picture in enumerate(sorted(Path("drawn").rglob("*.jpg"))):\n'
    '    folder = Path("photos") / picture.parent.name\n'
    "    folder.mkdir(parents=True, exist_ok=True)\n"
    '    shutil.copy(picture, folder / f"IMG_{number:04}.jpg")\n'
    'first = min(Path("photos/5000").iterdir())\n'
    'shutil.copy(first, first.with_name("WhatsApp Image.jpg"))\n'
    "data = first.read_bytes()\n"
    'first.with_name("broken.jpg").write_bytes(data[: len(data) // 2])\n'
    'first.with_name("page.jpg").write_text("<!doctype html><title>Sign in</title>")',
    {
        "en": "## What is strange about it?",
        "id": "## Adakah yang janggal?",
    },
    "!smartcash data check photos",
    {
        "en": "What needs no judgement is put right in a new folder; `fixes.json` there lists each change. Your photos are "
        "never touched. There was no split; copies and bursts will stay on one side of it:",
        "id": "Yang tidak memerlukan penilaian dibetulkan dalam folder baru; `fixes.json` di sana mencatat setiap "
        "perubahan. Foto Anda tidak pernah disentuh. Belum ada pembagian; salinan dan jepretan beruntun akan tetap di "
        "satu sisi:",
    },
    "!smartcash data check photos --fix photos-fixed",
    {
        "en": "## Train and count",
        "id": "## Latih dan hitung",
    },
    confirmed(data='"path": "photos-fixed", "image_size": 96', training='"epochs": 5'),
    watched("accuracy"),
    "!smartcash models promote v1 --alias produksi --yes\n!smartcash count produksi photos-fixed/test/5000",
    {
        "en": "With real photos: 40 of each denomination are a beginning, front and back, in the light and in the hands "
        "that the model will see later. `smartcash report v1` says where it gives way.",
        "id": "Dengan foto nyata: 40 untuk tiap pecahan adalah permulaan, depan dan belakang, dalam cahaya dan tangan yang "
        "kelak dilihat model. `smartcash report v1` mengatakan di mana ia goyah.",
    },
]

RESUME: Cells = [
    {
        "en": "# Resume and roll back\n\nTwo things that go wrong: the machine dies in the middle of a training, and a new "
        "model turns out to be worse than the old one. Toy size: the figures mean nothing here, the way does.",
        "id": "# Melanjutkan dan mengembalikan\n\nDua hal yang bisa terjadi: mesin mati di tengah training, dan model baru "
        "ternyata lebih buruk dari yang lama. Ukuran mainan: angkanya tidak berarti apa-apa di sini, caranya yang "
        "berarti.",
    },
    "!smartcash data sample --out notes --images 40 --size 96 --seed 7",
    confirmed(
        data='"path": "notes", "image_size": 96',
        training='"epochs": 4',
        checkpoint='"every_steps": 4',
    ),
    {
        "en": "## The power goes\n\nThe training is a process of its own. In the third epoch it is killed, as a loss of "
        "power would: no warning, no time to save.",
        "id": "## Listrik padam\n\nTraining adalah proses tersendiri. Di epoch ketiga ia dibunuh, seperti oleh listrik "
        "padam: tanpa peringatan, tanpa waktu menyimpan.",
    },
    "import os\nimport signal\n\n"
    "manager.start(run)\n"
    "for event in manager.watch(run):\n"
    '    if event["type"] == "StepEnded" and event["epoch"] == 3 and event["step"] > 1:\n'
    '        os.kill(manager.result(run)["worker"]["pid"], signal.SIGKILL)\n'
    "        break\n"
    "for event in manager.watch(run):  # until nobody trains it any more\n"
    "    pass\n"
    "print(manager.state(run))",
    {
        "en": "Whoever looks sees that it crashed. It goes on from its newest whole checkpoint, to the same bits as if "
        "nothing had happened:",
        "id": "Siapa pun yang melihat tahu bahwa ia mati. Ia berlanjut dari checkpoint utuh terbarunya, sampai bit yang "
        "sama seakan tidak terjadi apa-apa:",
    },
    'last = max(event["seq"] for event in manager.watch(run))\n'
    "manager.resume(run)\n"
    "for event in manager.watch(run, after=last):\n"
    '    if event["type"] == "RunResumed":\n'
    "        print(f\"goes on in epoch {event['epoch']} after step {event['step']}\")\n"
    '    if event["type"] == "EpochEnded":\n'
    "        print(f\"{event['epoch']:2}  loss {event['row']['train_loss']:.3f}\")\n"
    "print(manager.state(run))",
    {
        "en": "## A second model, and back\n\nThe run became version 1; other programs ask for `produksi`. A second "
        "training follows, with more epochs and another seed:",
        "id": "## Model kedua, dan kembali\n\nRun itu menjadi versi 1; program lain meminta `produksi`. Menyusul training "
        "kedua, dengan epoch lebih banyak dan seed lain:",
    },
    "!smartcash models promote v1 --alias produksi --yes\n"
    "!smartcash train notes --image-size 96 --epochs 2 --seed 1 --yes > second.log\n"
    "!smartcash models promote v2 --alias produksi --yes\n"
    "!smartcash models list",
    {
        "en": "It is worse in use. Back to the version before, which is the same file, byte for byte. Rolling back asks "
        "twice; in a script both answers are given by `--yes`:",
        "id": "Dalam pemakaian ia lebih buruk. Kembali ke versi sebelumnya, berkas yang sama, byte demi byte. "
        "Mengembalikan bertanya dua kali; dalam skrip kedua jawabannya diberikan oleh `--yes`:",
    },
    "!smartcash models rollback produksi --yes\n!smartcash models history produksi\n!smartcash models verify",
    {
        "en": "Everything that was done stands in the operation log (`smartcash log`), and the log is whole:",
        "id": "Semua yang dilakukan tercatat di log operasi (`smartcash log`), dan log itu utuh:",
    },
    "!smartcash log verify",
]

NOTEBOOKS = {
    "first-detector": FIRST_DETECTOR,
    "classifier": CLASSIFIER,
    "own-photos": OWN_PHOTOS,
    "resume-and-roll-back": RESUME,
}


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
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which ones: {', '.join(NOTEBOOKS)}; all if none"
    )
    parser.add_argument("--out", type=Path, default=DOCS / "notebooks")
    given = parser.parse_args()
    out = given.out
    out.mkdir(parents=True, exist_ok=True)
    for name in given.names or NOTEBOOKS:
        for language in ("en", "id"):
            book = written(NOTEBOOKS[name], language)
            run(book, language)
            nbformat.write(book, out / f"{name}.{language}.ipynb")
            print(out / f"{name}.{language}.ipynb")


if __name__ == "__main__":
    main()
