"""What a format of exported files is, and what it is given to write."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smartcash.backend.exporters.graph import Graph
from smartcash.domain.exports import ExportRequest, Precision

# named outputs of a file or of the model, as arrays
Outputs = Mapping[str, np.ndarray]
# normalised images_BCHW float32 → outputs
Run = Callable[[np.ndarray], Outputs]

# without `nms`; with it, detections of all pictures of the batch together, best first
DETECT_OUTPUTS = ("boxes", "scores")
DETECT_NMS_OUTPUTS = ("image", "box", "score", "label")
CLASSIFY_OUTPUTS = ("probabilities",)

SYSTEM_NAMES = {"Darwin": "macOS"}


@dataclass(frozen=True)
class Suppression:
    """Which candidates become detections: score above `threshold`, then non-maximum suppression within each class
    at `iou`, then over all classes at `same_note_iou` (one note is not two)."""

    threshold: float
    iou: float
    same_note_iou: float


@dataclass(frozen=True)
class Job:
    """One file to write. `calibration_B3HW`: normalised float32 training pictures, for int8 only."""

    graph: Graph
    request: ExportRequest
    image_size: int
    metadata: dict[str, Any]
    suppression: Suppression
    calibration_B3HW: np.ndarray | None = None

    def example(self) -> tuple[Tensor, dict[str, Any] | None]:
        """An input to trace the graph with, and which of its dimensions may vary."""
        batch = self.request.batch
        # two pictures: a dimension of one would be taken for a constant
        images = torch.zeros(2 if batch is None else batch, 3, self.image_size, self.image_size)
        return images, {"images": {0: torch.export.Dim("batch", min=1)}} if batch is None else None

    def calibration_calls(self) -> Iterator[np.ndarray]:
        """The pictures in calls of as many as the file is made for, one by one if that is any number; the last picture
        fills up the last call."""
        assert self.calibration_B3HW is not None
        count, batch = len(self.calibration_B3HW), self.request.batch or 1
        for first in range(0, count, batch):
            yield self.calibration_B3HW[np.minimum(np.arange(first, first + batch), count - 1)]

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what the file gives."""
        if self.graph.task == "classify":
            return CLASSIFY_OUTPUTS
        return DETECT_NMS_OUTPUTS if self.request.nms else DETECT_OUTPUTS


@dataclass(frozen=True)
class Format:
    """A way to write a model into a file.

    write(job, path) writes the file and its `companions` (further suffixes, see `parts`) with the metadata inside.
    read(path) gives the metadata back. open(path, threads) loads it into its own runtime.
    All three raise what is in `errors` for what the library refuses or a file that is damaged.

    `packages`: what reading and running import; `converters`: what writing imports besides. The extra `extra` brings
    both; what only int8 needs, `quantizers`, the extra `<extra>-int8`. `single`: a file takes one picture per call, no
    more. `systems`: where its runtime exists, as `platform.system` names them, () for everywhere."""

    name: str
    suffix: str
    write: Callable[[Job, Path], None]
    read: Callable[[Path], dict[str, Any]]
    open: Callable[[Path, int], Run]
    precisions: tuple[Precision, ...] = ("fp32",)
    nms: bool = False
    single: bool = False
    systems: tuple[str, ...] = ()
    extra: str = ""
    packages: tuple[str, ...] = ()
    converters: tuple[str, ...] = ()
    quantizers: tuple[str, ...] = ()
    companions: tuple[str, ...] = ()
    errors: tuple[type[Exception], ...] = field(default=(RuntimeError, ValueError, KeyError, OSError))

    @property
    def runs_here(self) -> bool:
        """Whether its runtime exists on this system; if not, files can be written but not proved."""
        return not self.systems or platform.system() in self.systems

    @property
    def system_names(self) -> tuple[str, ...]:
        """`systems` as people call them."""
        return tuple(SYSTEM_NAMES.get(name, name) for name in self.systems)

    def parts(self, path: Path) -> list[Path]:
        """The file at `path` and its companions: of `notes.ncnn.param` also `notes.ncnn.bin`."""
        stem = path.name.removesuffix(self.suffix)
        return [path, *(path.with_name(stem + companion) for companion in self.companions)]
