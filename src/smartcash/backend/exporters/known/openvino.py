"""OpenVINO's IR (`.xml` with its weights in `.bin`), converted from the program of torch.export; int8 by NNCF."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from smartcash.backend.exporters.known.pt2 import traced
from smartcash.backend.exporters.model import Format, Job, Outputs, Run

if TYPE_CHECKING:
    import openvino

# Both OpenVINO and NNCF report their use over the network unless somebody declined; this makes them find no reporter.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def write(job: Job, path: Path) -> None:
    import openvino

    model = openvino.convert_model(traced(job))
    for output, name in zip(model.outputs, job.outputs):
        output.get_tensor().set_names({name})
    model.inputs[0].get_tensor().set_names({"images"})
    if job.request.precision == "int8":
        model = quantized(model, job)
    # else a picture of another size may not be refused
    model.reshape([job.request.batch or -1, 3, job.image_size, job.image_size])
    model.set_rt_info(json.dumps(job.metadata), "smartcash")
    openvino.save_model(model, path, compress_to_fp16=job.request.precision == "fp16")


def quantized(model: openvino.Model, job: Job) -> openvino.Model:
    """The model with its convolutions in int8, ranges taken from the calibration pictures. Nothing else is: one
    scale for boxes of 0 … 320 px and another layer's 0 … 1 would break both."""
    import nncf

    calls = list(job.calibration_calls())
    others = {node.get_type_name() for node in model.get_ordered_ops()} - {"Convolution", "GroupConvolution"}
    kept = nncf.IgnoredScope(types=sorted(others), validate=False)
    nncf.set_log_level(logging.ERROR)
    with redirect_stdout(sys.stderr):  # its progress bars
        return nncf.quantize(model, nncf.Dataset(calls), subset_size=len(calls), ignored_scope=kept)


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
    precisions=("fp32", "fp16", "int8"), extra="openvino", packages=("openvino",), quantizers=("nncf",),
    companions=(".bin",),
)  # fmt: skip
