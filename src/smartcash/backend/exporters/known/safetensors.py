"""Weights alone, as safetensors. The header holds the metadata, with the network's configuration to rebuild it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from smartcash.backend.builder import build_model
from smartcash.backend.exporters.graph import Graph
from smartcash.backend.exporters.model import Format, Job, Outputs, Run
from smartcash.domain.config import TrainConfig


def write(job: Job, path: Path) -> None:
    save_file(job.graph.model.state_dict(), path, metadata={"smartcash": json.dumps(job.metadata)})


def read(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        metadata: dict[str, Any] = json.loads(file.metadata()["smartcash"])
    return metadata


def open_file(path: Path, threads: int) -> Run:
    metadata = read(path)
    config = TrainConfig.parse({"task": metadata["task"], "model": metadata["model"]})
    model = build_model(config, len(metadata["classes"]))
    model.load_state_dict(load_file(path))
    graph, names = Graph(model), [output["name"] for output in metadata["outputs"]]

    @torch.inference_mode()
    def run(images_BCHW: np.ndarray) -> Outputs:
        return {name: tensor.numpy() for name, tensor in zip(names, graph(torch.from_numpy(images_BCHW)))}

    return run


FORMAT = Format(
    name="safetensors", suffix=".safetensors", write=write, read=read, open=open_file,
    precisions=("fp32", "fp16"), errors=(SafetensorError, RuntimeError, ValueError, KeyError, TypeError, OSError),
)  # fmt: skip
