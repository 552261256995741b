"""How costs grow with ten times the images, classes, runs, checkpoints and epochs.

    python -m benchmarks.scale [--only images classes runs checkpoints epochs] [--repeat 5] [--small] [--write]

Everything is of toy size but for the one thing that grows, measured at three sizes that take turns. Seconds are those of
the processor, so that other work on the machine hardly shows; waiting for a disk is not among them. "exponent" is the
slope through the logarithms of size and time: 0 does not grow, 1 grows in proportion, 2 with the square. `--write` puts
the table into docs/*/benchmarks.md and draws docs/images/scale.*.svg.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import torch
from starlette.testclient import TestClient

from benchmarks.checkpoint_speed import make_checkpoints, quiet
from benchmarks.measuring import medians, print_table, processor_s
from benchmarks.pipeline import HALF, made_up
from benchmarks.run_store import make_runs
from smartcash.backend.augment import PRESETS, Augment
from smartcash.backend.builder import build_model, set_threads
from smartcash.backend.criterion import DetectionCriterion, Targets
from smartcash.backend.data import Pictures, TrainBatches, TrainSamples
from smartcash.backend.detector import Prediction
from smartcash.backend.formats import read_dataset
from smartcash.backend.health import examine
from smartcash.backend.metrics import DetectionMetrics
from smartcash.backend.preprocess import Preprocess
from smartcash.backend.samples import write_samples
from smartcash.domain.config import TrainConfig
from smartcash.domain.events import StepEnded
from smartcash.handlers.checkpoint import CheckpointManager
from smartcash.handlers.run_view import RunView
from smartcash.services.curves import CurveReader
from smartcash.services.event_log import EventLog, read_events
from smartcash.services.run_store import RunFolder, RunStore
from smartcash.ui.server import create_app
from smartcash.utils.i18n import LANGUAGES, decimal

DOCS = Path(__file__).parents[1] / "docs"
TABLE = re.compile(r"(<!-- scale -->\n).*?(<!-- /scale -->)", re.DOTALL)
SIZES = {
    "images": (100, 300, 1000), "classes": (8, 25, 80), "runs": (300, 1000, 3000),
    "checkpoints": (300, 1000, 3000), "epochs": (30, 100, 300),
}  # fmt: skip
SMALL = {
    "images": (20, 40, 80), "classes": (8, 25, 80), "runs": (10, 30, 100), "checkpoints": (10, 30, 100),
    "epochs": (3, 10, 30),
}  # fmt: skip
PICTURE_PX, STEP_PX, BATCH = 96, 160, 8
STEPS = 100  # of an epoch
WORSE = 1.15  # an exponent above it is more than proportion and noise

Actions = dict[int, Callable[[], object]]  # by size

# what is measured, in the words of the documentation
NAMES: dict[str, dict[str, str]] = {
    "images": {"en": "Images", "id": "Gambar"},
    "images.read": {"en": "read headers and labels", "id": "membaca kepala berkas dan label"},
    "images.check": {
        "en": "`data check`: look at every picture",
        "id": "`data check`: melihat setiap gambar",
    },
    "images.batch": {
        "en": "decode all into memory, first batch",
        "id": "mendekode semua ke memori, batch pertama",
    },
    "classes": {"en": "Classes", "id": "Kelas"},
    "classes.figures": {"en": "every figure of an evaluation", "id": "semua angka satu evaluasi"},
    "classes.criterion": {
        "en": "the loss and its gradient, one batch",
        "id": "loss dan gradiennya, satu batch",
    },
    "classes.step": {"en": "a whole training step", "id": "satu langkah training utuh"},
    "runs": {"en": "Runs", "id": "Run"},
    "runs.store": {"en": "list, a new process's first look", "id": "daftar, pandangan pertama proses baru"},
    "runs.again": {"en": "list again", "id": "daftar lagi"},
    "runs.command": {"en": "`smartcash runs list`, whole command", "id": "`smartcash runs list`, seluruhnya"},
    "runs.page": {"en": "the studio's list of 50", "id": "daftar 50 di studio"},
    "runs.one": {"en": "the studio's page of one run", "id": "halaman satu run di studio"},
    "checkpoints": {"en": "Checkpoints", "id": "Checkpoint"},
    "checkpoints.best": {
        "en": "open the folder, find the best",
        "id": "membuka folder, mencari yang terbaik",
    },
    "checkpoints.latest": {
        "en": "open the folder, find the newest",
        "id": "membuka folder, mencari yang terbaru",
    },
    "checkpoints.again": {"en": "list again", "id": "daftar lagi"},
    "checkpoints.page": {"en": "list in the studio", "id": "daftar di studio"},
    "checkpoints.save": {"en": "save one more", "id": "menyimpan satu lagi"},
    "epochs": {"en": "Epochs", "id": "Epoch"},
    "epochs.log": {"en": "read every event", "id": "membaca setiap peristiwa"},
    "epochs.state": {"en": "how far the run is", "id": "sejauh mana run berjalan"},
    "epochs.curves": {"en": "the charts, first look", "id": "grafik, pandangan pertama"},
    "epochs.again": {"en": "the charts again", "id": "grafik lagi"},
    "epochs.table": {"en": "read the table of the epochs", "id": "membaca tabel epoch"},
    "epochs.written": {"en": "write the table, once an epoch", "id": "menulis tabel, sekali per epoch"},
}
LEGEND = {
    "en": (
        "How many times as long for",
        "the same",
        "in proportion",
        "three times as much",
        "ten times as much",
    ),
    "id": (
        "Berapa kali lebih lama untuk",
        "tetap",
        "sebanding",
        "tiga kali lebih banyak",
        "sepuluh kali lebih banyak",
    ),
}


@dataclass(frozen=True)
class Growth:
    """The seconds of one cost at each size."""

    cost: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def times(self) -> tuple[float, ...]:
        """How many times the seconds of the smallest size."""
        return tuple(value / self.seconds[0] for value in self.seconds)

    @property
    def exponent(self) -> float:
        return float(np.polyfit(np.log(self.sizes), np.log(self.seconds), 1)[0])


def main() -> int:
    """Measure, print and, if asked, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--repeat", type=int, default=5, help="the median of so many")
    parser.add_argument("--small", action="store_true", help="small sizes: to see that it runs")
    parser.add_argument("--write", action="store_true", help="table and chart of the documentation")
    given = parser.parse_args()
    if given.write and (given.small or given.only != list(SIZES)):
        parser.error("--write needs every subject at its full sizes: leave --small and --only out")
    set_threads(1)
    measured: list[Growth] = []
    for subject in given.only:
        sizes = (SMALL if given.small else SIZES)[subject]
        with tempfile.TemporaryDirectory() as folder, MEASURES[subject](Path(folder), sizes) as costs:
            for name, actions in costs.items():
                seconds = medians(
                    {str(size): act for size, act in actions.items()}, given.repeat, processor_s
                )
                measured.append(Growth(f"{subject}.{name}", sizes, tuple(seconds.values())))
        show(subject, [each for each in measured if each.cost.startswith(subject)])
    if given.write:
        for language in LANGUAGES:
            write(measured, language)
    return 0


def show(subject: str, measured: list[Growth]) -> None:
    sizes = measured[0].sizes
    factor = sizes[-1] / sizes[0]
    rows = [
        (
            NAMES[each.cost]["en"] + (" (worse than in proportion)" if each.exponent > WORSE else ""),
            *each.seconds,
            each.times[-1],
            each.exponent,
        )
        for each in measured
    ]
    print_table(
        NAMES[subject]["en"],
        ("s at", *(f"{size:,}" for size in sizes), f"× at {factor:g}×", "exponent"),
        rows,
    )
    sys.stdout.flush()


# ---------------------------------------------------------------- what is measured


@contextmanager
def images(folder: Path, sizes: tuple[int, ...]) -> Iterator[dict[str, Actions]]:
    """Drawn notes."""
    preprocess = Preprocess(PICTURE_PX, HALF, HALF)
    augment = Augment(PRESETS["detect"]["banknote"], preprocess, 0)

    def first_batch(path: Path) -> None:
        pictures = Pictures(read_dataset(path).splits["train"], PICTURE_PX, keep=True)
        pictures.fill(1)
        batches = TrainBatches(TrainSamples(pictures, augment, 10**9), BATCH, 0, 0, None).epoch(0)
        next(batches)
        batches.close()

    sets = {size: folder / str(size) for size in sizes}
    for size, path in sets.items():
        write_samples(path, images=size, size_px=PICTURE_PX)
    known = {size: read_dataset(path) for size, path in sets.items()}
    yield {
        "read": {size: lambda path=path: read_dataset(path) for size, path in sets.items()},
        "check": {size: lambda data=data: examine(data) for size, data in known.items()},
        "batch": {size: lambda path=path: first_batch(path) for size, path in sets.items()},
    }


@contextmanager
def classes(folder: Path, sizes: tuple[int, ...]) -> Iterator[dict[str, Actions]]:
    """As many pictures, boxes and points whatever the classes."""
    config = TrainConfig.parse({"model": {"backbone": "mobilenetv4_conv_small", "pretrained": False}})
    criterion = DetectionCriterion()
    pictures = torch.rand(BATCH, 3, STEP_PX, STEP_PX)
    costs: dict[str, Actions] = {"figures": {}, "criterion": {}, "step": {}}
    for size in sizes:
        collected = DetectionMetrics([f"class {index}" for index in range(size)])
        for found, true in zip(*made_up(200, 50, size)):
            collected.update(found, true)
        model = build_model(config, size)
        targets = targets_of(size)
        with torch.no_grad():
            output = model(pictures)

        def loss(prediction: Prediction, targets: Targets = targets) -> None:
            criterion(prediction, targets)["loss"].backward()

        def alone(output: Prediction = output, loss: Callable[..., None] = loss) -> None:
            scores, distances = (
                each.detach().requires_grad_() for each in (output.scores_BAC, output.distances_BA4K)
            )
            loss(Prediction(scores, distances, output.points_A2, output.strides_A1))

        costs["figures"][size] = collected.compute
        costs["criterion"][size] = alone
        costs["step"][size] = lambda model=model, loss=loss: loss(model(pictures))
    yield costs


def targets_of(classes: int, boxes: int = 6) -> Targets:
    """A batch of true boxes."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(BATCH, boxes, 2, generator=generator) * STEP_PX / 2
    sides = 20 + torch.rand(BATCH, boxes, 2, generator=generator) * STEP_PX / 3
    labels = torch.randint(0, classes, (BATCH, boxes), generator=generator)
    return Targets(
        torch.cat((corners, corners + sides), -1), labels, torch.ones(BATCH, boxes, dtype=torch.bool)
    )


@contextmanager
def runs(folder: Path, sizes: tuple[int, ...]) -> Iterator[dict[str, Actions]]:
    """Homes full of finished runs that have been listed before, so that there is an index."""
    homes = {size: folder / str(size) for size in sizes}
    stores = {}
    for size, home in homes.items():
        make_runs(home, size)
        stores[size] = RunStore(home)
        stores[size].runs()
    with ExitStack() as stack:
        studios = {size: stack.enter_context(TestClient(create_app(home))) for size, home in homes.items()}

        def asked(size: int, path: str) -> None:
            studios[size].get(f"/api/v1/{path}").raise_for_status()

        newest = {size: store.runs(limit=1)[0].id for size, store in stores.items()}
        yield {
            "store": {size: lambda home=home: RunStore(home).runs() for size, home in homes.items()},
            "again": {size: store.runs for size, store in stores.items()},
            "command": {size: lambda home=home: listed(home) for size, home in homes.items()},
            "page": {size: lambda size=size: asked(size, "runs?limit=50") for size in sizes},
            "one": {size: lambda size=size: asked(size, f"runs/{newest[size]}") for size in sizes},
        }


def listed(home: Path) -> None:
    command = [sys.executable, "-m", "smartcash", "runs", "list", "--home", str(home)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def checkpoints(folder: Path, sizes: tuple[int, ...]) -> Iterator[dict[str, Actions]]:
    """Small files with real sidecars, in the folder of a run."""
    config = TrainConfig.parse({"task": "detect"})
    model = torch.nn.Linear(2, 2)
    runs = {size: RunFolder.create(folder / str(size), config, {"state": "finished"}) for size in sizes}
    with ExitStack() as stack:
        managers = {}
        for size, run in runs.items():
            make_checkpoints(run.weights, size)
            managers[size] = stack.enter_context(CheckpointManager(run.weights, logger=quiet()))
        views = {size: RunView(RunStore(folder / str(size)).find("latest")) for size in sizes}

        def opened(size: int) -> CheckpointManager:
            return CheckpointManager(runs[size].weights, logger=quiet())

        def save(size: int) -> None:
            managers[size].save_checkpoint(model, epoch=1, metrics={"loss": 1.0})
            managers[size].wait()

        yield {
            "best": {size: lambda size=size: opened(size).find_best_checkpoint() for size in sizes},
            "latest": {size: lambda size=size: opened(size).find_latest_checkpoint() for size in sizes},
            "again": {size: managers[size].list_checkpoints for size in sizes},
            "page": {size: views[size].checkpoints for size in sizes},
            "save": {size: lambda size=size: save(size) for size in sizes},
        }


@contextmanager
def epochs(folder: Path, sizes: tuple[int, ...]) -> Iterator[dict[str, Actions]]:
    """Runs of so many epochs of 100 steps, with their events and their table."""
    config = TrainConfig.parse({"task": "detect"})
    folders, rows, readers = {}, {}, {}
    for size in sizes:
        run = RunFolder.create(folder / str(size), config, {"state": "finished", "epochs_done": size})
        losses = {"class": 0.5, "box": 0.2, "dfl": 1.1, "loss": 1.8}
        with EventLog(run.events) as log:
            for number in range(size * STEPS):
                epoch, step = divmod(number, STEPS)
                log.append(
                    StepEnded(
                        epoch + 1, step + 1, STEPS, number + 1, losses, 1.8 / (number + 1), 2e-3, 14.0, 60.0
                    )
                )
        figures = dict.fromkeys(
            ("train_loss", "mAP50", "mAP75", "mAP50_95", "precision", "recall", "f1"), 0.512345
        )
        rows[size] = [{"epoch": float(epoch + 1), **figures} for epoch in range(size)]
        run.write_epochs(rows[size])
        folders[size], readers[size] = run, CurveReader()
    views = {size: RunView(RunStore(folder / str(size)).find("latest")) for size in sizes}

    def curves(reader: CurveReader, size: int) -> bytes:
        return reader.read(folders[size].events, folders[size].id).to_json()

    yield {
        "log": {size: lambda size=size: sum(1 for _ in read_events(folders[size].events)) for size in sizes},
        "state": {size: views[size].progress for size in sizes},
        "curves": {size: lambda size=size: curves(CurveReader(), size) for size in sizes},
        "again": {size: lambda size=size: curves(readers[size], size) for size in sizes},
        "table": {size: views[size].epochs for size in sizes},
        "written": {size: lambda size=size: folders[size].write_epochs(rows[size]) for size in sizes},
    }


MEASURES = {"images": images, "classes": classes, "runs": runs, "checkpoints": checkpoints, "epochs": epochs}


# ---------------------------------------------------------------- the documentation


def write(measured: list[Growth], language: str) -> None:
    """The table of a page and its picture."""
    page = DOCS / language / "benchmarks.md"
    text = page.read_text(encoding="utf-8")
    page.write_text(
        TABLE.sub(lambda found: found[1] + table(measured, language) + found[2], text), encoding="utf-8"
    )
    (DOCS / "images" / f"scale.{language}.svg").write_text(chart(measured, language), encoding="utf-8")


def table(measured: list[Growth], language: str) -> str:
    """Markdown: a row for each cost."""
    head = {
        "en": "| what grows | cost | sizes | seconds | 10× costs | exponent |",
        "id": "| yang bertambah | biaya | ukuran | detik | 10× memakan | eksponen |",
    }
    rows = ["", head[language], "|---|---|---|---|---|---|"]
    for each in measured:
        subject = NAMES[each.cost.partition(".")[0]][language]
        sizes = " / ".join(thousands(size, language) for size in each.sizes)
        taken = " / ".join(decimal(float(f"{value:.2g}"), "", language) for value in each.seconds)
        figures = f"{decimal(each.times[-1], '.1f', language)}× | {decimal(each.exponent, '.2f', language)}"
        rows.append(f"| {subject} | {NAMES[each.cost][language]} | {sizes} | {taken} | {figures} |")
    return "\n".join([*rows, "", ""])


def thousands(size: int, language: str) -> str:
    return f"{size:,}" if language == "en" else f"{size:,}".replace(",", ".")


_STYLE = """text { font: 13px system-ui, sans-serif; fill: #1d2129; } .paper { fill: #fff; } .dim { fill: #5a6472; }
.head { font-weight: 600; } .grid { stroke: #d5dae1; } .mark { stroke: #5a6472; stroke-dasharray: 4 3; }
.way { stroke: #0072b2; stroke-width: 2; } .ten { fill: #0072b2; } .three { fill: #fff; stroke: #0072b2; stroke-width: 2; }
@media (prefers-color-scheme: dark) { text { fill: #e6e9ee; } .paper { fill: #14171c; } .dim { fill: #a3adba; }
.grid { stroke: #39414d; } .mark { stroke: #a3adba; } .way { stroke: #56b4e9; } .ten { fill: #56b4e9; }
.three { fill: #14171c; stroke: #56b4e9; } }"""
_WIDTH, _LEFT, _RIGHT, _TOP, _ROW = 760, 312, 110, 62, 22  # px


def chart(measured: list[Growth], language: str) -> str:
    """SVG: how many times as long each cost takes at three and at ten times the size, on a logarithmic axis."""
    title, same, proportion, three, ten = LEGEND[language]
    most = max(20.0, *(each.times[-1] for each in measured))
    subjects = list(dict.fromkeys(each.cost.partition(".")[0] for each in measured))
    height = _TOP + _ROW * (len(measured) + len(subjects)) + 24

    def across(times: float) -> float:
        share = np.log(max(times, 0.7) / 0.7) / np.log(most / 0.7)
        return round(_LEFT + float(share) * (_WIDTH - _LEFT - _RIGHT), 1)

    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {_WIDTH} {height}">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<rect class="paper" width="{_WIDTH}" height="{height}" rx="6"/>',
        f'<text class="head" x="16" y="24">{escape(title)}</text>',
        f'<circle class="three" cx="{_LEFT - 70}" cy="20" r="4.5"/><text x="{_LEFT - 58}" y="24">{three}</text>',
        f'<circle class="ten" cx="{_LEFT + 110}" cy="20" r="5.5"/><text x="{_LEFT + 122}" y="24">{ten}</text>',
    ]
    for times, words in ((1, f"1× {same}"), (3, "3×"), (10, f"10× {proportion}")):
        place = across(times)
        drawn.append(f'<line class="mark" x1="{place}" x2="{place}" y1="{_TOP - 6}" y2="{height - 12}"/>')
        drawn.append(f'<text class="dim" x="{place}" y="{_TOP - 12}" text-anchor="middle">{words}</text>')
    y = _TOP
    for subject in subjects:
        y += _ROW
        sizes = SIZES[subject]
        span = f"{thousands(sizes[0], language)} → {thousands(sizes[-1], language)}"
        drawn.append(f'<line class="grid" x1="16" x2="{_WIDTH - 16}" y1="{y - 16}" y2="{y - 16}"/>')
        drawn.append(
            f'<text class="head" x="16" y="{y}">{NAMES[subject][language]} <tspan class="dim">{span}</tspan></text>'
        )
        for each in (each for each in measured if each.cost.startswith(f"{subject}.")):
            y += _ROW
            middle, last = across(each.times[1]), across(each.times[-1])
            drawn.append(f'<text x="28" y="{y}">{escape(NAMES[each.cost][language].replace("`", ""))}</text>')
            drawn.append(f'<line class="way" x1="{across(1)}" x2="{last}" y1="{y - 4}" y2="{y - 4}"/>')
            drawn.append(f'<circle class="three" cx="{middle}" cy="{y - 4}" r="4.5"/>')
            drawn.append(f'<circle class="ten" cx="{last}" cy="{y - 4}" r="5.5"/>')
            drawn.append(
                f'<text x="{_WIDTH - 16}" y="{y}" text-anchor="end">{span_of(each, language)}</text>'
            )
    return "\n".join([*drawn, "</svg>\n"])


def span_of(growth: Growth, language: str) -> str:
    """The shortest and the longest time, in ms or s."""

    def said(seconds: float) -> str:
        value, unit = (seconds, "s") if seconds >= 1 else (seconds * 1000, "ms")
        return f"{decimal(float(f'{value:.2g}'), '.4g', language)} {unit}"

    return f"{said(growth.seconds[0])} → {said(growth.seconds[-1])}"


if __name__ == "__main__":
    sys.exit(main())
