"""LiteRT (`.tflite`), for one picture per call. Its converter needs other packages than SmartCash, so it has an
environment of its own; what the file knows of itself is a zip at its end, as TFLite attaches files."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smartcash.backend.exporters.environments import environment, last_line, run_tethered
from smartcash.backend.exporters.known.pt2 import traced
from smartcash.backend.exporters.model import Format, Job, Outputs, Run

CONVERTER = Path(__file__).parents[1] / "litert_converter.py"  # is run by the environment's Python
REQUIREMENTS = ("litert-torch>=0.10,<0.11",)


def write(job: Job, path: Path) -> None:
    python = environment("litert", REQUIREMENTS, "1 GB")
    program, order, result = (path.with_suffix(suffix) for suffix in (".pt2", ".job.json", ".result.json"))
    images, _ = job.example()
    torch.export.save(traced(job), program)
    files = {"program": str(program), "file": str(path), "result": str(result)}
    order.write_text(json.dumps({**files, "shape": list(images.shape)}), encoding="utf-8")
    try:
        run_tethered(str(python), str(CONVERTER), str(order))
    except subprocess.CalledProcessError as error:
        raise ValueError(last_line(error.output)) from error
    tools = json.loads(result.read_text(encoding="utf-8"))
    metadata = {**job.metadata, "tools": {**job.metadata["tools"], **tools}}
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("smartcash.json", json.dumps(metadata))


def read(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        metadata: dict[str, Any] = json.loads(archive.read("smartcash.json"))
    return metadata


def open_file(path: Path, threads: int) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path), num_threads=threads).get_signature_runner()
    (images,) = runner.get_input_details()
    names = [output["name"] for output in read(path)["outputs"]]

    def run(images_BCHW: np.ndarray) -> Outputs:
        found = runner(**{images: images_BCHW})
        return {name: found[f"output_{place}"] for place, name in enumerate(names)}

    return run


FORMAT = Format(
    name="litert", suffix=".tflite", write=write, read=read, open=open_file, single=True, extra="litert",
    packages=("ai_edge_litert",),
    errors=(RuntimeError, ValueError, KeyError, TypeError, OSError, zipfile.BadZipFile),
)  # fmt: skip
