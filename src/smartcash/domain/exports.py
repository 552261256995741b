"""What an export is asked for, and what is said of one afterwards."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from smartcash.domain.errors import ExportRefused

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")

State = Literal["verified", "failed", "unverified"]

# what stands beside every exported file, by what is added to its name
METADATA, PROOF = ".json", ".proof.safetensors"


@dataclass(frozen=True)
class ExportRequest:
    """One file that is wanted. `batch`: pictures per call, None for any number. `image_size`: px, a multiple of 32, None
    for the model's own. `nms`: the file gives finished detections instead of every candidate box.

    Raises ExportRefused for a batch below 1 or another size."""

    format: str
    precision: Precision = "fp32"
    nms: bool = False
    batch: int | None = None
    image_size: int | None = None

    def __post_init__(self) -> None:
        if self.batch is not None and self.batch < 1:
            raise ExportRefused("export_batch", value=self.batch)
        if self.image_size is not None and (self.image_size % 32 or not 64 <= self.image_size <= 2048):
            raise ExportRefused("export_size", value=self.image_size)


@dataclass(frozen=True)
class Proof:
    """An exported file against the model it was made from, each run on the same pictures.

    `state`: "verified", "failed", or "unverified"; `reason`: why not verified, a code with a text in the locales
    ([export.reasons]). `box_px`, `score`: largest differences. `agreement`: share of the pictures whose best class is
    the same; of a file with NMS, of the detections that both sides have. `metric`, `metric_torch`, `metric_file`: its
    name, and its value for the model and for the file. `pictures`: "validation", "other" (the validation split of data
    that are not, or not known to be, those of the training), "drawn", or "reference" for those that travel with the
    file. `limits`: what the differences were held against. `systems`: where a file that cannot be run here could be."""

    state: State
    reason: str = ""
    pictures: str = ""
    count: int = 0
    batches: tuple[int, ...] = ()
    box_px: float | None = None
    score: float | None = None
    agreement: float | None = None
    metric: str = ""
    metric_torch: float | None = None
    metric_file: float | None = None
    limits: dict[str, float] = field(default_factory=dict)
    systems: tuple[str, ...] = ()

    @property
    def drop(self) -> float | None:
        """What the metric loses by the export."""
        if self.metric_torch is None or self.metric_file is None:
            return None
        return self.metric_torch - self.metric_file

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class ExportRecord:
    """One export as `exports.json` keeps it. `file` is the name beside `exports.json` or an absolute path;
    `error` is the message of one that failed. `repeatable`: whether verifying it again compares anything.
    `companions`: names of further files without which this one cannot be loaded."""

    file: str
    format: str
    precision: str
    nms: bool
    batch: int | None
    image_size: int
    state: State
    sha256: str
    size_bytes: int
    checkpoint: str
    checkpoint_sha256: str
    created: str
    seconds: float
    proof: dict[str, Any]
    error: str = ""
    repeatable: bool = True
    companions: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def files(self) -> list[str]:
        """All that belong to it: the file, its companions, its metadata and its proof."""
        return [self.file, *self.companions, self.file + METADATA, self.file + PROOF]
