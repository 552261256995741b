"""OpenVINO's IR (`.xml` with its weights in `.bin`), converted from the program of torch.export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from smartcash.backend.exporters.known.pt2 import traced
from smartcash.backend.exporters.model import Format, Job, Outputs, Run


def write(job: Job, path: Path) -> None:
    import openvino

    model = openvino.convert_model(traced(job))
    for output, name in zip(model.outputs, job.outputs):
        output.get_tensor().set_names({name})
    model.inputs[0].get_tensor().set_names({"images"})
    model.set_rt_info(json.dumps(job.metadata), "smartcash")
    openvino.save_model(model, path, compress_to_fp16=job.request.precision == "fp16")


def read(path: Path) -> dict[str, Any]:
    import openvino

    metadata: dict[str, Any] = json.loads(
        openvino.Core().read_model(path).get_rt_info("smartcash").astype(str)
    )
    return metadata


def open_file(path: Path, threads: int) -> Run:
    import openvino

    # the default is bf16 on a CPU that has it, whatever the file holds
    how = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.Core().compile_model(path, "CPU", how)

    def run(images_BCHW: np.ndarray) -> Outputs:
        return {output.any_name: values for output, values in compiled(images_BCHW).items()}

    return run


FORMAT = Format(
    name="openvino", suffix=".xml", write=write, read=read, open=open_file,
    precisions=("fp32", "fp16"), extra="openvino", packages=("openvino",), companions=(".bin",),
)  # fmt: skip
