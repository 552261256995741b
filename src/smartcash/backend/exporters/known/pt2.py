"""A program of torch.export (`.pt2`): graph and weights; needs torch to run, and no code of SmartCash."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smartcash.backend.exporters.model import Format, Job, Outputs, Run


def traced(job: Job) -> torch.export.ExportedProgram:
    """The graph as a program, for any number of pictures or exactly as many as are asked for."""
    images, dynamic = job.example()
    with torch.no_grad():
        return torch.export.export(job.graph, (images,), dynamic_shapes=dynamic)


def write(job: Job, path: Path) -> None:
    torch.export.save(traced(job), path, extra_files={"smartcash.json": json.dumps(job.metadata)})


def _load(path: Path) -> tuple[torch.export.ExportedProgram, dict[str, Any]]:
    extra = {"smartcash.json": ""}
    program = torch.export.load(path, extra_files=extra)
    return program, json.loads(extra["smartcash.json"])


def read(path: Path) -> dict[str, Any]:
    return _load(path)[1]


def open_file(path: Path, threads: int) -> Run:
    program, metadata = _load(path)
    module, names = program.module(), [output["name"] for output in metadata["outputs"]]

    @torch.inference_mode()
    def run(images_BCHW: np.ndarray) -> Outputs:
        return {name: tensor.numpy() for name, tensor in zip(names, module(torch.from_numpy(images_BCHW)))}

    return run


FORMAT = Format(
    name="pt2", suffix=".pt2", write=write, read=read, open=open_file,
    precisions=("fp32", "fp16"), errors=(RuntimeError, ValueError, KeyError, OSError, zipfile.BadZipFile),
)  # fmt: skip
