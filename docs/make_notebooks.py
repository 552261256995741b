"""Write docs/notebooks/*.ipynb: `python docs/make_notebooks.py [NAME …] [--out FOLDER]`. Every cell is run, in an empty
folder.

The words are here in both languages, the code is the same. Needs the extras `test` (nbclient, ipykernel) and, for
export-to-a-phone, `onnx`."""

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
EXAMPLES = DOCS.parent / "examples" / "export"
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

PHONE: Cells = [
    {
        "en": "# From training to a phone\n\nA phone has no Python and no SmartCash. It gets one file, and some thirty "
        "lines of code around it. This notebook trains a small detector on drawn notes, writes it as ONNX, proves the "
        "file, and then uses it as an app would: with nothing but `onnxruntime`, `numpy` and `cv2`. It needs "
        '`pip install "smartcash[onnx]"`. Toy size: the way is real, the figures are those of a few minutes.',
        "id": "# Dari training ke ponsel\n\nPonsel tidak punya Python maupun SmartCash. Ia menerima satu berkas, dan "
        "sekitar tiga puluh baris kode di sekelilingnya. Notebook ini melatih detektor kecil pada uang gambar, "
        "menuliskannya sebagai ONNX, membuktikan berkasnya, lalu memakainya seperti sebuah aplikasi: hanya dengan "
        '`onnxruntime`, `numpy`, dan `cv2`. Perlu `pip install "smartcash[onnx]"`. Ukuran mainan: caranya sungguhan, '
        "angkanya hasil beberapa menit.",
    },
    "!smartcash data sample --out notes --images 200 --size 192 --seed 7\n"
    "!smartcash train notes --image-size 128 --epochs 16 --yes > train.log\n"
    "!smartcash runs list",
    {
        "en": "## Write and prove\n\n`--nms` puts the suppression of double boxes into the file, so that the app gets "
        "finished notes and needs no code for it. `int8` is a quarter of the size. `--image-size` writes the same "
        "weights for smaller pictures.",
        "id": "## Tulis dan buktikan\n\n`--nms` memasukkan penghapusan kotak ganda ke dalam berkas, sehingga aplikasi "
        "menerima lembar uang yang sudah jadi dan tidak memerlukan kode untuk itu. `int8` seperempat ukurannya. "
        "`--image-size` menulis bobot yang sama untuk gambar yang lebih kecil.",
    },
    "!smartcash export latest --format onnx --nms\n"
    "!smartcash export latest --format onnx --nms --precision int8\n"
    "!smartcash export latest --format onnx --nms --image-size 96",
    {
        "en": "Each file was run on real pictures of the validation split beside the model before it got its name. A "
        "file that says something else is not kept: if a line above begins with ✗, that is the gate at work. The proof "
        "travels with the file, and can be repeated on another machine:",
        "id": "Setiap berkas dijalankan pada gambar nyata dari split validasi di samping modelnya sebelum diberi nama. "
        "Berkas yang hasilnya lain tidak disimpan: bila sebuah baris di atas diawali ✗, itulah gerbangnya yang bekerja. "
        "Buktinya ikut bersama berkas, dan dapat diulang di mesin lain:",
    },
    "from pathlib import Path\n\n"
    'exports = sorted(Path("runs").glob("*/*/exports/*.onnx"))\n'
    "print(*(f\"{path.name:40} {path.stat().st_size / 1e6:5.1f} MB\" for path in exports), sep='\\n')\n"
    'file = next(path for path in exports if path.name.endswith("-128-nms.onnx"))',
    "!smartcash export verify {file}",
    {
        "en": "## What the file says of itself\n\nAll that an app must know is inside: how a picture is prepared, what "
        "the classes are, what each is worth, from which score on a note counts, and which run it came from.",
        "id": "## Yang dikatakan berkas tentang dirinya\n\nSemua yang harus diketahui aplikasi ada di dalamnya: "
        "bagaimana gambar disiapkan, apa kelas-kelasnya, berapa nilai masing-masing, mulai skor berapa sebuah lembar "
        "dihitung, dan dari run mana asalnya.",
    },
    "import json\n\nimport onnxruntime\n\n"
    'session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])\n'
    'about = json.loads(session.get_modelmeta().custom_metadata_map["smartcash"])\n'
    'for name in ("task", "input", "outputs", "nms", "classes", "values_rupiah"):\n'
    '    print(f"{name}: {json.dumps(about[name], ensure_ascii=False)}")',
    {
        "en": "## The app\n\nTwo small programs, the ones in `examples/export`. `notes.py` makes a picture into the "
        "file's input and the outputs into notes; this is what is written again in Kotlin, Swift or C++:",
        "id": "## Aplikasinya\n\nDua program kecil, yang ada di `examples/export`. `notes.py` mengubah gambar menjadi "
        "masukan berkas dan keluarannya menjadi lembar uang; inilah yang ditulis ulang dalam Kotlin, Swift, atau C++:",
    },
    "%%writefile notes.py\n" + (EXAMPLES / "notes.py").read_text(encoding="utf-8").rstrip(),
    "%%writefile onnx_runtime.py\n" + (EXAMPLES / "onnx_runtime.py").read_text(encoding="utf-8").rstrip(),
    {
        "en": "It runs without SmartCash and without torch; here both are locked out to show it:",
        "id": "Ia berjalan tanpa SmartCash dan tanpa torch; di sini keduanya dihalangi untuk menunjukkannya:",
    },
    "import subprocess\nimport sys\n\n"
    'picture = sorted(Path("notes/images/test").iterdir())[0]\n'
    "locked = \"import runpy, sys; sys.modules.update(torch=None, smartcash=None); runpy.run_path('onnx_runtime.py')\"\n"
    'told = subprocess.run([sys.executable, "-c", locked, file, picture], capture_output=True, text=True, check=True)\n'
    "found = json.loads(told.stdout)\n"
    "for note in found:\n"
    '    print(note["class"], note["value"], f"{note[\'score\']:.2f}", [round(side) for side in note["box"]])\n'
    "print(f\"Rp {sum(note['value'] or 0 for note in found):,}\")",
    "import cv2\nfrom IPython.display import Image\n\n"
    "drawn = cv2.imread(str(picture))\n"
    "for note in found:\n"
    '    left, top, right, bottom = (round(side) for side in note["box"])\n'
    "    cv2.rectangle(drawn, (left, top), (right, bottom), (138, 208, 0), 1)\n"
    '    cv2.putText(drawn, note["class"], (left + 2, top + 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 255), 1)\n'
    'cv2.imwrite("found.jpg", cv2.resize(drawn, None, fx=2, fy=2))\n'
    'Image("found.jpg", width=384)',
    {
        "en": "SmartCash itself says the same of this picture:",
        "id": "SmartCash sendiri mengatakan hal yang sama tentang gambar ini:",
    },
    "from smartcash import load\n\n"
    'own = load("latest").predict(picture)\n'
    "print(f\"Rp {own['total_rupiah']:,}\")\n"
    'same = own["total_rupiah"] == sum(note["value"] or 0 for note in found)\n'
    'print("same total:", same)',
    {
        "en": "## How large, how fast, how good\n\n`smartcash benchmark`: one line for the model and one for "
        "each file, on this machine. The time grows with the square of the side of the picture, the size of the file "
        "hardly; what a smaller picture costs stands in the last column. int8 is small everywhere, but faster "
        "only where the processor has instructions for it: measure on the phone.",
        "id": "## Seberapa besar, cepat, dan baik\n\n`smartcash benchmark`: satu baris untuk model dan satu "
        "untuk tiap berkas, di mesin ini. Waktunya bertambah dengan kuadrat sisi gambar, ukuran berkasnya hampir tidak; "
        "yang hilang pada gambar lebih kecil tampak di kolom terakhir. int8 kecil di mana pun, tetapi lebih "
        "cepat hanya bila prosesornya punya instruksi untuk itu: ukurlah di ponselnya.",
    },
    'command = ["smartcash", "benchmark", "latest", "--seconds", "1", "--threads", "1", "--json"]\n'
    "told = subprocess.run(command, capture_output=True, text=True, check=True)\n"
    "for row in json.loads(told.stdout):\n"
    '    value = "" if row["value"] is None else f"{row[\'metric\']} {row[\'value\']:.3f}"\n'
    "    print(f\"{row['file'][-36:]:36} {row['p50_ms']:5.1f} ms {row['size_bytes'] / 1e6:6.1f} MB  {value}\")",
    {
        "en": "These weights were trained at 128 px and lose at 96 px. Who wants 96 px should train at 96 px: "
        "`--image-size` of `smartcash train`. Real photos want more, 224 to 320 px.",
        "id": "Bobot ini dilatih pada 128 px dan turun pada 96 px. Yang menginginkan 96 px sebaiknya melatih pada 96 "
        "px: `--image-size` milik `smartcash train`. Foto nyata menghendaki lebih, 224 sampai 320 px.",
    },
    {
        "en": "## What the app must do\n\n"
        "1. **Turn the photo upright** (EXIF), take it as RGB, bring it onto a square as `notes.py` does: the longer "
        "side to `image_size`, the rest filled with `pad_value`, then `(x / 255 - mean) / std`, channels first. Most "
        "wrong answers of a ported model come from here: compare with the pictures and outputs in "
        "`….onnx.proof.safetensors`.\n"
        "2. **Run the file**: one input, four outputs (`image`, `box`, `score`, `label`), best note first.\n"
        "3. **Bring the boxes back** into the photo, and **add up** `values_rupiah[label]`. A class without a value "
        "counts nothing.\n"
        "4. **Ask when unsure**: a note just above the threshold is a reason to show the photo to a person.\n\n"
        "Which format for which phone? ONNX Runtime exists for Android and iOS, and this file is what it reads. "
        "ExecuTorch, NCNN and MNN run on both as well, from fewer bytes of library. LiteRT is Android's own runtime, "
        "Core ML Apple's. The page on export says which of them this version writes, and what was tried: files were "
        "proven on Linux, none on a phone. Only ONNX holds the suppression; for the others the app needs `once` and "
        "the second half of `found` in `notes.py` too.",
        "id": "## Yang harus dikerjakan aplikasi\n\n"
        "1. **Tegakkan fotonya** (EXIF), ambil sebagai RGB, letakkan pada bujur sangkar seperti `notes.py`: sisi "
        "panjang menjadi `image_size`, sisanya diisi `pad_value`, lalu `(x / 255 - mean) / std`, kanal lebih dulu. "
        "Kebanyakan jawaban keliru dari model yang dipindahkan berasal dari sini: bandingkan dengan gambar dan "
        "keluaran dalam `….onnx.proof.safetensors`.\n"
        "2. **Jalankan berkasnya**: satu masukan, empat keluaran (`image`, `box`, `score`, `label`), lembar terbaik "
        "lebih dulu.\n"
        "3. **Kembalikan kotaknya** ke dalam foto, dan **jumlahkan** `values_rupiah[label]`. Kelas tanpa nilai tidak "
        "menambah apa-apa.\n"
        "4. **Bertanyalah bila ragu**: lembar yang tipis di atas ambang adalah alasan untuk memperlihatkan fotonya "
        "kepada orang.\n\n"
        "Format mana untuk ponsel mana? ONNX Runtime ada untuk Android dan iOS, dan berkas inilah yang dibacanya. "
        "ExecuTorch, NCNN, dan MNN juga berjalan di keduanya, dengan pustaka yang lebih kecil. LiteRT adalah runtime "
        "Android sendiri, Core ML milik Apple. Halaman ekspor mengatakan yang mana yang ditulis versi ini, dan apa yang "
        "sudah dicoba: berkasnya dibuktikan di Linux, tidak satu pun di ponsel. Hanya ONNX yang memuat penghapusan "
        "kotak ganda; untuk yang lain aplikasi memerlukan juga `once` dan paruh kedua `found` dalam `notes.py`.",
    },
]

COLAB: Cells = [
    {
        "en": "# Colab and Google Drive\n\nA Colab runtime is taken away: after hours, or when the page was closed. Its "
        "disk goes with it, Google Drive stays. So the runs live on Drive, the pictures on the runtime's own disk, and "
        "a training goes on in the next runtime where its last checkpoint was.\n\nThis notebook runs anywhere. Outside "
        "Colab a folder stands for the Drive, and the loss of the runtime is a real kill. **It was run outside Colab "
        "only**: what belongs to Colab itself (mounting, its way to a port, what Drive does with files) could not be "
        "tried here; the last section says what the code relies on.",
        "id": "# Colab dan Google Drive\n\nRuntime Colab bisa diambil: sesudah beberapa jam, atau ketika halamannya "
        "ditutup. Disknya ikut hilang, Google Drive tetap. Karena itu run disimpan di Drive, gambar di disk runtime, "
        "dan training berlanjut di runtime berikutnya dari checkpoint terakhirnya.\n\nNotebook ini berjalan di mana "
        "pun. Di luar Colab sebuah folder menggantikan Drive, dan hilangnya runtime adalah pembunuhan proses yang "
        "sungguhan. **Ia hanya dijalankan di luar Colab**: yang khusus Colab (pemasangan Drive, jalan ke port, yang "
        "dilakukan Drive dengan berkas) tidak dapat dicoba di sini; bagian terakhir mengatakan apa yang diandalkan "
        "kodenya.",
    },
    {
        "en": "## Every new runtime begins so\n\nIn Colab install SmartCash first, from a clone or a wheel: "
        '`%pip install "PATH[fast]"`. Then mount the Drive and say where runs and unpacked data are kept.',
        "id": "## Setiap runtime baru diawali begini\n\nDi Colab pasang dahulu SmartCash, dari klon atau wheel: "
        '`%pip install "PATH[fast]"`. Lalu pasang Drive dan tentukan tempat run dan data yang dibuka.',
    },
    "import os\nimport sys\nfrom pathlib import Path\n\n"
    'IN_COLAB = "google.colab" in sys.modules\n'
    "if IN_COLAB:\n"
    "    from google.colab import drive\n\n"
    '    drive.mount("/content/drive")\n'
    'ROOT = Path("/content") if IN_COLAB else Path.cwd()\n'
    'DRIVE = ROOT / "drive" / "MyDrive" / "SmartCash"\n'
    'LOCAL = ROOT / "unpacked"  # goes with the runtime\n'
    "DRIVE.mkdir(parents=True, exist_ok=True)\n"
    'os.environ["SMARTCASH_HOME"] = str(DRIVE / "runs")  # as --home for every command\n'
    'os.environ["SMARTCASH_CACHE"] = str(LOCAL)',
    {
        "en": "## Data: one zip\n\nDrive is slow with many small files and quick with one large one. Keep the data set as "
        "a zip and name the zip: SmartCash unpacks it once into its cache on the runtime's disk. Here drawn notes are "
        "packed; your own zip lies on the Drive already.",
        "id": "## Data: satu zip\n\nDrive lambat dengan banyak berkas kecil dan cepat dengan satu berkas besar. Simpan set "
        "data sebagai zip dan sebut zip-nya: SmartCash membukanya sekali ke cache di disk runtime. Di sini uang gambar "
        "yang dipak; zip Anda sendiri sudah ada di Drive.",
    },
    "!smartcash data sample --out drawn --images 40 --size 96 --seed 7",
    "import shutil\n\n"
    'shutil.make_archive(str(DRIVE / "notes"), "zip", "drawn")\n'
    'notes = DRIVE / "notes.zip"\n'
    'print(f"{notes.stat().st_size / 1e6:.1f} MB")',
    {
        "en": "## Train\n\nThe worker is a process of its own; closing the page does not end it as long as the runtime "
        "lives. By default a checkpoint is written after every epoch and every ten minutes; here after every fourth "
        "step too.",
        "id": "## Latih\n\nProses pekerjanya tersendiri; menutup halaman tidak mengakhirinya selama runtime hidup. Secara "
        "bawaan checkpoint ditulis sesudah setiap epoch dan setiap sepuluh menit; di sini juga setiap empat langkah.",
    },
    "from smartcash import TrainingManager\n\n"
    "manager = TrainingManager()\n"
    "review = manager.check({\n"
    '    "data": {"path": str(notes), "image_size": 96}, "training": {"epochs": 4}, "checkpoint": {"every_steps": 4},\n'
    "})\n"
    "run = manager.apply(review, significant=True)\n"
    "manager.wait_ready(run)\n"
    'print(manager.state(run), "·", run.path.relative_to(ROOT))\n'
    'print(*sorted(path.name for path in LOCAL.glob("zip/*/*")))',
    {
        "en": "The studio in a cell; in Colab it comes through Colab's own way to a port. Elsewhere we only ask whether it "
        "answers:",
        "id": "Studio di dalam sel; di Colab ia datang melalui jalan Colab sendiri ke sebuah port. Di tempat lain kita "
        "hanya bertanya apakah ia menjawab:",
    },
    "from urllib.request import Request, urlopen\n\n"
    "from smartcash.ui.notebook import studio\n\n"
    "shown = studio()\n"
    "if shown is not None:  # not in Colab\n"
    '    where, _, token = shown.address.partition("/?token=")\n'
    '    print(urlopen(Request(where, headers={"authorization": f"Bearer {token}"})).status)\n'
    "    shown.stop()",
    {
        "en": "## The runtime is taken away\n\nIn the third epoch everything that computes is killed, without a warning, "
        "and the runtime's disk is lost. To make it worse, the newest checkpoint arrives on the Drive only by half: what "
        "a program has written, Drive sends in the background.",
        "id": "## Runtime diambil\n\nDi epoch ketiga semua yang menghitung dibunuh tanpa peringatan, dan disk runtime "
        "hilang. Agar lebih buruk, checkpoint terbaru hanya sampai separuh di Drive: yang ditulis sebuah program dikirim "
        "Drive di latar belakang.",
    },
    "import signal\n\n"
    "manager.start(run)\n"
    "for event in manager.watch(run):\n"
    '    if event["type"] == "StepEnded" and event["epoch"] == 3 and event["step"] > 4:\n'
    '        os.killpg(manager.result(run)["worker"]["pid"], signal.SIGKILL)\n'
    "        break\n"
    "shutil.rmtree(LOCAL)\n"
    "del manager\n\n"
    'newest = max(run.weights.glob("*.pth"), key=lambda path: path.name[-10:])  # names end in a number\n'
    "os.truncate(newest, newest.stat().st_size // 2)\n"
    "print(f\"step {event['step']} of epoch {event['epoch']}; cut in half: {newest.name}\")",
    {
        "en": "## The next runtime\n\nRun the first cell again, then go on. Every command here is a new process that knows "
        "nothing but the Drive. The zip is unpacked anew; the checkpoint that is not whole is recognised by its SHA-256 "
        "and passed over for the one before it.",
        "id": "## Runtime berikutnya\n\nJalankan lagi sel pertama, lalu lanjutkan. Setiap perintah di sini adalah proses "
        "baru yang tidak tahu apa pun selain Drive. Zip dibuka lagi; checkpoint yang tidak utuh dikenali dari "
        "SHA-256-nya dan dilewati demi yang sebelumnya.",
    },
    "!smartcash runs list\n"
    "!smartcash checkpoint validate {newest}\n"
    "!smartcash resume latest > resumed.log 2>&1\n"
    "!smartcash runs list",
    "import json\n\n"
    'for line in (run.path / "events.jsonl").read_text().splitlines():\n'
    "    event = json.loads(line)\n"
    '    if event["type"] == "RunResumed":\n'
    "        print(f\"went on in epoch {event['epoch']} after step {event['step']} of the run\")\n"
    "!smartcash checkpoint doctor {run.weights}",
    {
        "en": "Only the steps since that checkpoint were done twice. In Colab, end with `drive.flush_and_unmount()`: it "
        "waits until Drive has everything.",
        "id": "Hanya langkah sejak checkpoint itu yang dikerjakan dua kali. Di Colab, akhiri dengan "
        "`drive.flush_and_unmount()`: ia menunggu sampai Drive menerima semuanya.",
    },
    "if IN_COLAB:\n    drive.flush_and_unmount()",
    {
        "en": "## What holds on a mounted Drive, and what does not\n\nRead from the code, with the loss above tried on an "
        "ordinary disk:\n\n"
        "- **A checkpoint counts only when its SHA-256 is right.** The file and the small file with the hash are renamed "
        "into place. Where a mount's rename is not atomic, or only half was sent, the checkpoint is not taken, and the "
        "newest whole one is. The default keeps three epochs beside the best and the newest.\n"
        "- **A save that was acknowledged is safe on a disk, not yet on Drive.** `fsync` can promise only what the mount "
        "does with it; a mount that cannot fsync folders is accepted. Count on losing the last minutes.\n"
        "- **One runtime at a time.** Runs are locked with `flock`. Linux keeps such a lock of a FUSE mount on the machine "
        "unless the mount does it itself, so another runtime or your own computer need not see it. Without any `flock`, "
        "a lock file stands in, and after a lost runtime it may stay: if `resume` says that somebody trains the run and "
        "nobody does, delete `run.lock` in its folder.\n"
        "- **A worker of another machine counts as alive for 30 s after its last heartbeat**: wait so long before you "
        "resume. That is the time of a file on the Drive, compared with this machine's clock.\n"
        "- **The list of runs** (`index.sqlite`) is a cache: delete it if it is ever strange.\n\n"
        "If the Drive is too slow to write to while training, keep the home on the runtime's disk and set "
        "`checkpoint.backup_dir` to a folder on the Drive: it gets a copy of the best checkpoint that was read back and "
        "compared. From that you can predict and export, but not resume.",
        "id": "## Yang berlaku di Drive yang dipasang, dan yang tidak\n\nDibaca dari kodenya, dengan kehilangan di atas "
        "dicoba pada disk biasa:\n\n"
        "- **Checkpoint hanya berlaku bila SHA-256-nya benar.** Berkasnya dan berkas kecil berisi hash dinamai ulang ke "
        "tempatnya. Bila penamaan ulang pada pemasangan itu tidak atomik, atau baru separuh terkirim, checkpoint itu "
        "tidak dipakai, melainkan yang utuh terbaru. Secara bawaan tiga epoch disimpan di samping yang terbaik dan "
        "terbaru.\n"
        "- **Simpanan yang sudah dinyatakan selesai aman di disk, belum tentu di Drive.** `fsync` hanya dapat menjanjikan "
        "yang dilakukan pemasangan itu dengannya; pemasangan yang tidak dapat fsync folder diterima. Perhitungkan "
        "hilangnya menit-menit terakhir.\n"
        "- **Satu runtime pada satu waktu.** Run dikunci dengan `flock`. Linux menyimpan kunci seperti itu dari pemasangan "
        "FUSE di mesin ini kecuali pemasangannya mengurus sendiri, jadi runtime lain atau komputer Anda belum tentu "
        "melihatnya. Tanpa `flock`, sebuah berkas kunci menggantikannya, dan sesudah runtime hilang ia mungkin tertinggal: "
        "bila `resume` mengatakan run sedang dilatih padahal tidak, hapus `run.lock` di foldernya.\n"
        "- **Pekerja dari mesin lain dianggap hidup selama 30 detik sesudah detak terakhirnya**: tunggu selama itu sebelum "
        "melanjutkan. Yang dibandingkan adalah waktu sebuah berkas di Drive dengan jam mesin ini.\n"
        "- **Daftar run** (`index.sqlite`) hanya cache: hapus bila suatu saat janggal.\n\n"
        "Bila Drive terlalu lambat untuk ditulisi selama training, simpan home di disk runtime dan isi "
        "`checkpoint.backup_dir` dengan folder di Drive: ia menerima salinan checkpoint terbaik yang dibaca kembali dan "
        "dibandingkan. Dari situ Anda dapat memprediksi dan mengekspor, tetapi tidak melanjutkan.",
    },
]

NOTEBOOKS = {
    "first-detector": FIRST_DETECTOR,
    "classifier": CLASSIFIER,
    "own-photos": OWN_PHOTOS,
    "resume-and-roll-back": RESUME,
    "export-to-a-phone": PHONE,
    "colab-and-drive": COLAB,
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
