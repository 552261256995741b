"""Core ML: an ML program in a package, which is a folder and travels as a zip; it runs on macOS only."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smartcash.backend.exporters.known.pt2 import traced
from smartcash.backend.exporters.model import Format, Job, Outputs, Run

aten = torch.ops.aten

SPECIFICATION = "Data/com.apple.CoreML/model.mlmodel"  # in every package


def write(job: Job, path: Path) -> None:
    with _quiet():
        import coremltools

        half = job.request.precision == "fp16"
        images, _ = job.example()
        package = path.with_suffix("")
        converted = coremltools.convert(
            program(job), convert_to="mlprogram",
            inputs=[coremltools.TensorType("images", images.shape)],
            outputs=[coremltools.TensorType(name) for name in job.outputs],
            compute_precision=getattr(coremltools.precision, "FLOAT16" if half else "FLOAT32"),
            package_dir=str(package), skip_model_load=True,
        )  # fmt: skip
    specification = converted.get_spec()
    specification.description.metadata.userDefined["smartcash"] = json.dumps(job.metadata)
    (package / SPECIFICATION).write_bytes(specification.SerializeToString())
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(each for each in package.rglob("*") if each.is_file()):
            archive.write(file, file.relative_to(package.parent))


def program(job: Job) -> torch.export.ExportedProgram:
    """The graph in the operators that the converter knows; in fp32 throughout, as it sets the precision itself."""
    graph = copy.deepcopy(job.graph).float()
    graph.dtype = torch.float32
    return traced(replace(job, graph=graph)).run_decompositions({aten.matmul.default: column_product})


def column_product(left: Tensor, right: Tensor) -> Tensor:
    """A product with a vector as one with a matrix of one column: Core ML has no other."""
    if right.ndim != 1:
        return NotImplemented
    return aten.matmul.default(left, right.unsqueeze(-1)).squeeze(-1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars, and without what coremltools says of a torch that is newer than it and, on other systems
    than macOS, of its own parts that are missing."""
    with redirect_stderr(io.StringIO()):
        yield


def specification_of(path: Path) -> Any:
    """The specification in the package, on any system."""
    with _quiet():
        from coremltools.proto import Model_pb2

    with zipfile.ZipFile(path) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(f".mlpackage/{SPECIFICATION}"))
        return Model_pb2.Model.FromString(archive.read(name))


def read(path: Path) -> dict[str, Any]:
    description = specification_of(path).description
    metadata: dict[str, Any] = json.loads(description.metadata.userDefined["smartcash"])
    for told, features in (
        ([metadata["input"]], description.input),
        (metadata["outputs"], description.output),
    ):
        named = {each.name: list(each.type.multiArrayType.shape) for each in features}
        if named != {each["name"]: each["shape"] for each in told}:
            raise ValueError(f"{path.name}: {named}")
    return metadata


def open_file(path: Path, threads: int) -> Run:
    with _quiet():
        import coremltools
    with TemporaryDirectory(prefix="smartcash-") as folder:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
        (package,) = Path(folder).glob("*.mlpackage")
        # the other units compute in 16 bits, whatever the file holds
        model = coremltools.models.MLModel(str(package), compute_units=coremltools.ComputeUnit.CPU_ONLY)

    def run(images_BCHW: np.ndarray) -> Outputs:
        outputs: dict[str, np.ndarray] = model.predict({"images": images_BCHW})
        return outputs

    return run


FORMAT = Format(
    name="coreml", suffix=".mlpackage.zip", write=write, read=read, open=open_file,
    precisions=("fp32", "fp16"), single=True, systems=("Darwin",), extra="coreml", packages=("coremltools",),
    errors=(RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError, OSError,
            zipfile.BadZipFile),
)  # fmt: skip
