"""NCNN (`.ncnn.param` with its weights in `.ncnn.bin`), converted by pnnx; it knows no batches."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smartcash.backend.exporters.model import Format, Job, Outputs, Run


def write(job: Job, path: Path) -> None:
    import pnnx

    images, _ = job.example()
    script = path.with_suffix(".pt")
    torch.jit.trace(job.graph, images).save(str(script))
    param, weights, about = FORMAT.parts(path)
    shape = ",".join(map(str, images.shape))
    told = subprocess.run(
        [pnnx.EXEC_PATH, script, f"inputshape=[{shape}]", f"ncnnparam={param}", f"ncnnbin={weights}", "fp16=0"],
        cwd=path.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if told.returncode or not weights.is_file():
        raise ValueError((told.stderr or told.stdout).strip()[-300:])
    about.write_text(json.dumps(job.metadata), encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    metadata: dict[str, Any] = json.loads(FORMAT.parts(path)[2].read_text(encoding="utf-8"))
    return metadata


def open_file(path: Path, threads: int) -> Run:
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    # by default weights, maps and arithmetic are of 16 bits where the CPU can
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    param, weights, _ = FORMAT.parts(path)
    if net.load_param(str(param)) or net.load_model(str(weights)):
        raise ValueError(f"{param.name}, {weights.name}")
    names = [output["name"] for output in read(path)["outputs"]]

    def run(images_BCHW: np.ndarray) -> Outputs:
        with net.create_extractor() as extractor:
            extractor.input("in0", ncnn.Mat(images_BCHW[0]).clone())
            return {
                name: np.array(extractor.extract(f"out{place}")[1])[None] for place, name in enumerate(names)
            }

    return run


FORMAT = Format(
    name="ncnn", suffix=".ncnn.param", write=write, read=read, open=open_file, single=True, extra="ncnn",
    packages=("ncnn",), converters=("pnnx",), companions=(".ncnn.bin", ".ncnn.json"),
)  # fmt: skip
