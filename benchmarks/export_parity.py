"""Exports of many backbones against their models: python -m benchmarks.export_parity [--small] [--write]

Each backbone gets random weights, drawn statistics in its batch norms, and a head whose scores are spread out, then
goes through the gate in each format that is installed, on drawn pictures. With a folder of real pictures for a task,
`--detect FOLDER` or `--classify FOLDER`, it is trained on them for `--epochs` instead, and exported as any run is: the
gate takes the run's own validation pictures, and there is an accuracy that can fall. `--write` lays the figures over
those in docs/export_parity.json and writes the table anew into docs/*/export.md; without it they are only printed."""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from smartcash.backend.backbones import BUNDLED, SHORT_NAMES
from smartcash.backend.builder import build_model
from smartcash.backend.data import Pictures
from smartcash.backend.engine import Precision
from smartcash.backend.exporters import FORMATS, Evidence, export
from smartcash.backend.exporters.gate import squares
from smartcash.backend.formats import read_dataset
from smartcash.backend.predictor import Predictor
from smartcash.backend.preprocess import Preprocess
from smartcash.backend.samples import CLASS_NAMES, draw_sample, write_samples
from smartcash.domain.config import TrainConfig
from smartcash.domain.errors import SmartCashError
from smartcash.domain.exports import ExportRecord, ExportRequest, Proof
from smartcash.worker import export_model, train

DOCS = Path(__file__).parents[1] / "docs"
FIGURES = DOCS / "export_parity.json"
TABLE = re.compile(r"(<!-- parity -->\n).*?(<!-- /parity -->)", re.DOTALL)
SIZE_PX = 96
THRESHOLD = 0.4
BACKBONES = (
    *SHORT_NAMES, "mobilenetv3_small_100", "mobilenetv2_050", "lcnet_050", "ghostnet_050", "tinynet_e", "fbnetc_100",
    "efficientnet_b0", "resnet10t", "resnet18", "regnetx_002", "regnety_002", "hrnet_w18_small",
    "convnext_atto", "mobileone_s0", "repvgg_a0", "edgenext_xx_small",
)  # fmt: skip
LINEAGE = {"run": "", "checkpoint": "random", "checkpoint_sha256": ""}


def random_model(task: str, backbone: str, size_px: int = SIZE_PX) -> Predictor:
    """A network of random weights whose outputs are spread out, ready to predict."""
    torch.manual_seed(4)
    config = TrainConfig.parse({"task": task, "model": {"backbone": backbone, "pretrained": False}})
    model = build_model(config, len(CLASS_NAMES)).to(memory_format=torch.channels_last)
    preprocess = Preprocess(size_px, model.backbone.mean, model.backbone.std)
    pictures = [draw_sample("train", index, 0, task, size_px)[0] for index in range(8)]
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
        # drawn statistics in the backbone: with those of a batch, a deep one of random weights is chaotic, and 1e-5
        # more in a picture turns scores of efficientnet_b4 from 0 to 1; those of a batch above it even out the scale
        for module in model.backbone.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        images = torch.from_numpy(squares(preprocess, pictures))
        model.train()
        model.backbone.eval()
        model(images)
        output = model.eval()(images)
        if task == "detect":
            model.class_out.weight *= 1.0 / (output.scores_BAC + 4).std()
            model.class_out.bias.fill_(-2.0)
            model.box_out.weight *= 0.1 / (output.distances_BA4K - 1).std()
        else:
            model.out.weight *= 1.5 / output.std()
    model.requires_grad_(False)
    return Predictor(model, CLASS_NAMES, preprocess, Precision(torch.device("cpu"), torch.float32), THRESHOLD)


def lineage_of(predictor: Predictor) -> dict[str, Any]:
    """What the metadata of such a model's export say of its network and origin."""
    return {
        "model": {"backbone": predictor.model.backbone.name, "pretrained": False},
        "lineage": LINEAGE,
        "tools": {},
    }


def drawn(task: str, folder: Path) -> Evidence:
    """Six drawn pictures."""
    write_samples(folder, images=10, seed=2, task=task, size_px=128)
    return Evidence("drawn", Pictures(read_dataset(folder, task=task).samples[:6], 256, keep=True), False)


def measured(backbone: str, task: str, name: str, evidence: Evidence, folder: Path) -> dict[str, Any]:
    """One export's figures, or the first words of what went wrong."""
    predictor = random_model(task, backbone)
    target = folder / f"{backbone}{FORMATS[name].suffix}"
    row: dict[str, Any] = {"backbone": backbone, "task": task, "format": name}
    try:
        made = export(
            FORMATS[name], predictor, ExportRequest(name), lineage_of(predictor), evidence, None, target
        )
    except SmartCashError as error:
        return {**row, "state": "failed", "error": str(error)[:200]}
    return {**row, **_figures(made.proof), "seconds": made.seconds}


def trained_and_measured(
    backbone: str, task: str, names: list[str], data: Path, epochs: float, size_px: int, folder: Path
) -> Iterator[dict[str, Any]]:
    """The figures of exports of a backbone that has been trained on real pictures, on its validation pictures."""
    config = TrainConfig.parse(
        {
            "task": task,
            "data": {"path": str(data.absolute()), "image_size": size_px},
            "model": {"backbone": backbone, "pretrained": backbone in BUNDLED},
            "training": {"epochs": epochs, "previews": {"count": 0}},
            "runtime": {"precision": "fp32"},
        }
    )
    run, _ = train(config, folder)
    for name, made in zip(names, export_model(str(run.path), [ExportRequest(name) for name in names])):
        row: dict[str, Any] = {"backbone": backbone, "task": task, "format": name}
        if not isinstance(made, ExportRecord):
            yield {**row, "state": "failed", "error": str(made)[:200]}
            continue
        yield {**row, **_figures(Proof(**made.proof)), "error": made.error, "seconds": made.seconds}


def _figures(proof: Proof) -> dict[str, Any]:
    names = ("state", "pictures", "count", "box_px", "score", "agreement", "metric", "metric_torch", "drop")
    return {name: getattr(proof, name) for name in names}


def write_tables(rows: list[dict[str, Any]]) -> None:
    """The figures as a table in both languages' pages."""
    known = json.loads(FIGURES.read_text()) if FIGURES.exists() else []
    merged = {(row["backbone"], row["task"], row["format"]): row for row in (*known, *rows)}
    FIGURES.write_text(json.dumps([merged[key] for key in sorted(merged)], indent=1) + "\n")
    names = sorted({name for *_, name in merged})
    lines = [f"| backbone | task | {' | '.join(names)} |", "|---" * (2 + len(names)) + "|"]
    for backbone, task in sorted({key[:2] for key in merged}):
        cells = [_cell(merged.get((backbone, task, name))) for name in names]
        lines.append(f"| `{backbone}` | {task} | {' | '.join(cells)} |")
    for page in DOCS.glob("*/export.md"):
        text = page.read_text(encoding="utf-8")
        page.write_text(TABLE.sub(rf"\g<1>\n{chr(10).join(lines)}\n\n\2", text), encoding="utf-8")


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "–"
    if row.get("score") is None:
        return "unverified" if row["state"] == "unverified" else "✗"
    mark = "" if row["state"] == "verified" else "✗ "
    box = "" if row["box_px"] is None else f"{row['box_px']:.0e} px / "
    metric = "" if row["drop"] is None else f" / {row['metric_torch']:.4f} {-row['drop']:+z.4f}"
    return f"{mark}{box}{row['score']:.0e} / {row['agreement']:.0%}{metric}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="one backbone")
    parser.add_argument("--write", action="store_true", help="into the documentation")
    parser.add_argument("--formats", nargs="*", default=list(FORMATS), choices=list(FORMATS))
    parser.add_argument("--tasks", nargs="*", default=["detect", "classify"], choices=["detect", "classify"])
    parser.add_argument("--backbones", nargs="*", default=list(BACKBONES))
    parser.add_argument("--detect", type=Path, metavar="FOLDER", help="real pictures with boxes")
    parser.add_argument("--classify", type=Path, metavar="FOLDER", help="real pictures, a folder per class")
    parser.add_argument("--epochs", type=int, default=3, help="of training on real pictures")
    parser.add_argument("--image-size", type=int, default=SIZE_PX, metavar="PX", help="for real pictures")
    options = parser.parse_args()
    backbones = ["mobilenetv4_conv_small"] if options.small else options.backbones
    formats = [n for n in options.formats if all(map(find_spec, FORMATS[n].packages))]
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        evidence = {task: drawn(task, Path(folder) / task) for task in options.tasks}
        for backbone in backbones:
            for task in options.tasks:
                data: Path | None = getattr(options, task)
                if data is None:
                    rows = [measured(backbone, task, name, evidence[task], Path(folder)) for name in formats]
                else:
                    home = Path(folder) / f"{backbone}-{task}"
                    how = (options.epochs, options.image_size)
                    rows = list(trained_and_measured(backbone, task, formats, data, *how, home))
                failed += sum(row["state"] == "failed" for row in rows)
                print(*map(json.dumps, rows), sep="\n", flush=True)
                if options.write:
                    write_tables(rows)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
