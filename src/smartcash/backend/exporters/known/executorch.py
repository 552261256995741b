"""ExecuTorch (`.pte`) with its XNNPACK kernels, from the program of torch.export; for one picture per call."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smartcash.backend.exporters.known.pt2 import traced
from smartcash.backend.exporters.model import Format, Job, Outputs, Run

aten = torch.ops.aten


def write(job: Job, path: Path) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    images, _ = job.example()
    with torch.no_grad():
        program = torch.export.export(untied(traced(job).module()), (images,))
    program = program.run_decompositions(
        {aten.split_with_sizes.default: slices, aten.split.Tensor: equal_parts}
    )
    # what the file knows of itself is a method of its own, which takes nothing and gives a text
    lowered = to_edge_transform_and_lower(
        program, partitioner=[XnnpackPartitioner()], constant_methods={"smartcash": json.dumps(job.metadata)}
    )
    path.write_bytes(lowered.to_executorch().buffer)


def slices(x: Tensor, sizes: Sequence[int], dim: int = 0) -> list[Tensor]:
    """What a split gives. ExecuTorch's own split refuses maps that XNNPACK has laid out channels last, as those of
    CSP backbones; slices go to XNNPACK too."""
    return [aten.slice.Tensor(x, dim, end - size, end) for size, end in zip(sizes, accumulate(sizes))]


def equal_parts(x: Tensor, size: int, dim: int = 0) -> list[Tensor]:
    """A split into parts of `size`, the last one smaller where it does not divide."""
    whole = x.shape[dim]
    return slices(x, [min(size, whole - start) for start in range(0, whole, size)], dim)


def untied(module: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """Every use of a tensor gets a tensor of its own, in place. XNNPACK's fusion keeps one folded weight per
    convolution: of one with a batch norm for each level, all levels would get the norm of the last."""
    for node in list(module.graph.nodes):
        if node.op != "get_attr":
            continue
        tensor = _attribute(module, node.target)
        for place, user in enumerate(list(node.users)[1:]):
            name = f"{node.target}_{place}".replace(".", "_")
            module.register_buffer(name, tensor.detach().clone())
            with module.graph.inserting_before(user):
                user.replace_input_with(node, module.graph.get_attr(name))
    module.recompile()
    return module


def _attribute(module: torch.fx.GraphModule, name: str) -> Tensor:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part)
    assert isinstance(found, Tensor)
    return found


def _method(path: Path, name: str) -> Any:
    from executorch.runtime import Runtime, Verification

    program = Runtime.get().load_program(path, verification=Verification.InternalConsistency)
    return program.load_method(name)


def read(path: Path) -> dict[str, Any]:
    metadata: dict[str, Any] = json.loads(_method(path, "smartcash").execute([])[0])
    return metadata


def open_file(path: Path, threads: int) -> Run:
    from executorch.extension.pybindings import portable_lib

    portable_lib._unsafe_reset_threadpool(threads)  # of the process; before a method is loaded
    forward, names = _method(path, "forward"), [output["name"] for output in read(path)["outputs"]]

    def run(images_BCHW: np.ndarray) -> Outputs:
        # what it gives lies in memory that the next call writes over
        found = forward.execute([torch.from_numpy(images_BCHW)])
        return {name: tensor.numpy().copy() for name, tensor in zip(names, found)}

    return run


FORMAT = Format(
    name="executorch", suffix=".pte", write=write, read=read, open=open_file, single=True,
    extra="executorch", packages=("executorch",),
)  # fmt: skip
