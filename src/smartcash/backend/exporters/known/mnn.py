"""MNN, converted from ONNX by MNN's own converter."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from smartcash.backend.exporters.known.onnx import converted
from smartcash.backend.exporters.model import Format, Job, Outputs, Run

if TYPE_CHECKING:
    import onnx

# MNN's hint WINOGRAD_MEMORY_LEVEL. At its default of 3, large tiles cost a 3×3 convolution three digits (Winograd's
# algorithm, Lavin & Gray 2016; larger tiles round more); at 2 it is as exact as torch
WINOGRAD_LEVEL, SMALL_TILES = 3, 2


def write(job: Job, path: Path) -> None:
    plain = path.with_suffix(".onnx")
    model = converted(job)
    columns_for_vectors(model)
    plain.write_bytes(model.SerializeToString())
    # a process of its own: the converter writes to standard output from C++; not MNN.tools, which reports to a server
    told = subprocess.run(
        [sys.executable, "-c", "import sys, _tools; _tools.mnnconvert(sys.argv)",
         "-f", "ONNX", "--modelFile", plain, "--MNNModel", path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    plain.unlink()
    if told.returncode or not path.is_file():
        raise ValueError((told.stderr or told.stdout).strip()[-300:])
    FORMAT.parts(path)[1].write_text(json.dumps(job.metadata), encoding="utf-8")


def columns_for_vectors(model: onnx.ModelProto) -> None:
    """Products with a constant vector become products with a matrix of one column, squeezed, in place: MNN cannot
    squeeze its result of the former."""
    from onnx import helper, numpy_helper

    constants = {each.name: each for each in model.graph.initializer}
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        vector = constants.get(node.input[1]) if node.op_type == "MatMul" else None
        model.graph.node.append(node)
        if vector is not None and len(vector.dims) == 1:
            name, (output,) = f"{node.name}/column", node.output
            column = numpy_helper.to_array(vector)[:, None]
            model.graph.initializer.append(numpy_helper.from_array(column, name))
            model.graph.initializer.append(numpy_helper.from_array(np.int64([-1]), f"{name}/axis"))
            model.graph.node[-1].input[1], model.graph.node[-1].output[0] = name, f"{name}/product"
            model.graph.node.append(
                helper.make_node("Squeeze", [f"{name}/product", f"{name}/axis"], [output])
            )


@contextmanager
def _told_aside() -> Iterator[None]:
    """What MNN writes to standard output from C++ goes to standard error, so that `--json` stays JSON."""
    c, kept = ctypes.CDLL("ucrtbase" if sys.platform == "win32" else None), os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        c.fflush(None)
        os.dup2(kept, 1)
        os.close(kept)


def read(path: Path) -> dict[str, Any]:
    metadata: dict[str, Any] = json.loads(FORMAT.parts(path)[1].read_text(encoding="utf-8"))
    return metadata


def open_file(path: Path, threads: int) -> Run:
    names = [output["name"] for output in read(path)["outputs"]]
    with _told_aside():
        import MNN

        manager = MNN.nn.create_runtime_manager(
            ({"backend": "CPU", "numThread": threads, "precision": "high"},)
        )
        manager.set_hint(WINOGRAD_LEVEL, SMALL_TILES)
        module = MNN.nn.load_module_from_file(str(path), ["images"], names, runtime_manager=manager)

    def run(images_BCHW: np.ndarray) -> Outputs:
        with _told_aside():
            images = MNN.expr.const(images_BCHW, list(images_BCHW.shape), MNN.expr.NCHW)
            found = [np.array(values.read()) for values in module.forward([images])]
        if len(found) != len(names):
            raise ValueError(f"{path.name}: {len(found)} of {len(names)} outputs")
        return dict(zip(names, found))

    return run


FORMAT = Format(
    name="mnn", suffix=".mnn", write=write, read=read, open=open_file, extra="mnn", packages=("MNN",),
    converters=("onnx", "onnxscript"), companions=(".mnn-about.json",),
)  # fmt: skip
