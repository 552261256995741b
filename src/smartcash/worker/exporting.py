"""Exports: written, proved against the model, measured, recorded."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smartcash.backend.data import Pictures, kept_side
from smartcash.backend.exporters import (
    FORMATS,
    Evidence,
    Exported,
    export,
    format_of,
    model_run,
    open_export,
    pace_of,
    settled,
    suppression_of,
    verify,
)
from smartcash.backend.formats import Sample, read_dataset
from smartcash.backend.predictor import Predictor
from smartcash.backend.samples import SIZE_RANGE_PX, write_samples
from smartcash.domain.config import TrainConfig
from smartcash.domain.errors import DataInvalid, ExportFailed, ExportRefused
from smartcash.domain.exports import ExportRecord, ExportRequest, Proof
from smartcash.handlers.exports import Exports, version_exports
from smartcash.services.run_store import RunFolder, home
from smartcash.services.version_store import VersionStore
from smartcash.utils.files import sha256_of
from smartcash.utils.i18n import text
from smartcash.utils.logger import get_logger
from smartcash.utils.machine import available_cores
from smartcash.worker.data import load_data
from smartcash.worker.facts import git_revision, now
from smartcash.worker.models import load_state

# how many pictures an export is proved and, for int8, calibrated with
PROOF_PICTURES, CALIBRATION_PICTURES, DRAWN_PICTURES = 200, 128, 48


@dataclass(frozen=True)
class ExportSource:
    """What is exported: the model in fp32 on the CPU, the name of its checkpoint, the content hash of the data it was
    trained with ("" if not known), and where exports of it go."""

    predictor: Predictor
    checkpoint: str
    config: TrainConfig
    data_hash: str
    lineage: dict[str, Any]
    exports: Exports

    @property
    def sha256(self) -> str:
        """Of the checkpoint."""
        return str(self.lineage["lineage"]["checkpoint_sha256"])

    @classmethod
    def open(cls, name: str, interface: str) -> ExportSource:
        """The checkpoint at a path, a version or alias, or the best one of a run. What is exported of a version belongs
        to the run that it came from; where that is gone, to `exports/v3` of the home. Raises as `load_state`."""
        state, path = load_state(name)
        predictor = Predictor.from_state(state, device="cpu", precision="fp32")
        config = TrainConfig.parse(state["config"])
        with path.open("rb") as file:
            sha256 = sha256_of(file)
        origin = _origin_of(path)
        data_hash = str(state.get("data_hash", origin.data))
        lineage = {
            "model": {**config.model.model_dump(mode="json"), "pretrained": False},
            "lineage": {
                "run": origin.run, "checkpoint": origin.checkpoint, "checkpoint_sha256": sha256,
                "epoch": state.get("epoch"), "config_hash": config.hash(), "data": data_hash, "git": origin.git,
            },
            "tools": {"git": git_revision()},
        }  # fmt: skip
        exports = Exports(origin.folder, origin.home, origin.run, interface)
        return cls(predictor, origin.checkpoint, config, data_hash, lineage, exports)


@dataclass(frozen=True)
class _Origin:
    """Where a checkpoint comes from, "" for what is not known, and the folder for exports of it."""

    run: str
    checkpoint: str
    data: str
    git: str
    folder: Path
    home: Path


def _origin_of(path: Path) -> _Origin:
    """Raises VersionNotFound, VersionRefused for a version's folder whose record cannot be read."""
    folder = path.absolute().parent
    store = VersionStore(folder.parent.parent)
    if folder.parent == store.folder and store.book().next_number > 1 and store.knows(folder.name):
        version = store.find(folder.name)
        exports = version_exports(version, store.home).folder
        data = str(version.data.get("content_hash", ""))
        return _Origin(version.run, version.checkpoint, data, version.code, exports, store.home)
    if (folder.parent / "run.json").is_file():
        run = RunFolder(folder.parent)
        facts = run.description()
        data = str((facts.get("data") or {}).get("content_hash", ""))
        place = run.path / "exports"
        return _Origin(run.id, path.name, data, str(facts.get("git") or ""), place, run.path.parent.parent)
    return _Origin("", path.name, "", "", folder / "exports", home())


def export_model(
    name: str, requests: Sequence[ExportRequest], out: Path | None = None, *, interface: str = "python"
) -> Iterator[ExportRecord | ExportRefused]:
    """Write the model of a run, version or checkpoint in each of the forms asked for, prove each file, and record it.

    A form that cannot be had gives its ExportRefused, and the others go on; what broke off or did not pass the
    gate gives a record with the state "failed". Files go to `<run>/exports`, or to `out` (one request only).
    Raises RunNotFound, VersionNotFound, a CheckpointError, DataInvalid for a picture that is gone meanwhile, or
    ExportRefused for an `out` with another suffix."""
    refused: dict[ExportRequest, ExportRefused] = {}
    for request in requests:
        try:
            format_of(request)
        except ExportRefused as error:
            refused[request] = error
    if len(refused) == len(requests):  # nothing is loaded for that
        yield from refused.values()
        return
    if out is not None:
        (request,) = requests
        suffix = FORMATS[request.format].suffix
        if not out.name.endswith(suffix):
            raise ExportRefused("export_suffix", path=str(out), format=request.format, suffix=suffix)
    source = ExportSource.open(name, interface)
    needed = any(request.precision == "int8" for request in requests)
    with gathered(source, calibration=needed) as (evidence, calibration):
        for request in requests:
            if request in refused:
                yield refused[request]
                continue
            form = FORMATS[request.format]
            request = settled(form, request)
            size = request.image_size or source.predictor.preprocess.image_size
            target = out or source.exports.folder / export_name(source, request, size, form.suffix)
            pictures = calibration if request.precision == "int8" else None
            began = time.monotonic()
            try:
                made = export(form, source.predictor, request, source.lineage, evidence, pictures, target)
            except ExportRefused as error:  # such as NMS for a classifier, which only the model tells
                yield error
                continue
            except ExportFailed as error:
                seconds = round(time.monotonic() - began, 1)
                made = Exported(target, Proof("failed", error.code), "", 0, size, seconds, now())
                record = record_of(source, request, made, str(error))
            else:
                record = record_of(source, request, made)
                get_logger("exports").info(text("export.written", path=str(target)))
            source.exports.add(record)
            yield record


def record_of(source: ExportSource, request: ExportRequest, made: Exported, error: str = "") -> ExportRecord:
    """What is kept of one export."""
    inside = made.path.parent == source.exports.folder
    return ExportRecord(
        file=made.path.name if inside else str(made.path.absolute()), format=request.format,
        precision=request.precision, nms=request.nms, batch=request.batch, image_size=made.image_size,
        state=made.proof.state, sha256=made.sha256, size_bytes=made.size_bytes,
        checkpoint=source.checkpoint, checkpoint_sha256=source.lineage["lineage"]["checkpoint_sha256"],
        created=made.created, seconds=made.seconds, proof=made.proof.to_dict(), error=error,
        repeatable=made.repeatable,
        companions=[part.name for part in FORMATS[request.format].parts(made.path)[1:]] if inside else [],
    )  # fmt: skip


def export_name(source: ExportSource, request: ExportRequest, image_size: int, suffix: str) -> str:
    """`efficientnet_lite0-320-fp16-nms-b4.onnx`: what sets it apart from the usual form is in the name; so is the
    beginning of the checkpoint's SHA-256 where a file of another checkpoint has that name already."""
    special: list[str] = [request.precision] if request.precision != "fp32" else []
    special += ["nms"] if request.nms else []
    special += [f"b{request.batch}"] if request.batch else []
    backbone = re.sub(r"[^\w.]+", "_", source.config.model.backbone)
    stem = "-".join([backbone, str(image_size), *special])
    there = {record.file: record.checkpoint_sha256 for record in source.exports.present()}
    if there.get(stem + suffix, source.sha256) != source.sha256:
        stem += f"-{source.sha256[:8]}"
    return stem + suffix


@contextmanager
def gathered(source: ExportSource, *, calibration: bool) -> Iterator[tuple[Evidence, Evidence | None]]:
    """Pictures for the gate, and for int8: of the run's own data set where it can be read and has the same classes
    (kind "validation" when it is also the same data, else "other"), else drawn ones (kind "drawn")."""
    config, predictor = source.config, source.predictor
    longest = kept_side(predictor.preprocess.image_size)

    def evidence(kind: str, samples: Sequence[Sample], count: int, labelled: bool) -> Evidence:
        spread = np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int).tolist()
        return Evidence(kind, Pictures([samples[row] for row in spread], longest, keep=False), labelled)

    task = predictor.task
    try:
        data = load_data(config)  # every picture decoded, as before the training
    except DataInvalid:
        data = None
    if data is not None and data.classes == predictor.classes and "valid" in data.splits:
        kind = "validation" if data.content_hash == source.data_hash else "other"
        own = evidence(kind, data.splits["valid"], PROOF_PICTURES, True)
        yield (
            own,
            evidence("train", data.splits["train"], CALIBRATION_PICTURES, True) if calibration else None,
        )
        return
    with tempfile.TemporaryDirectory(prefix="smartcash-") as folder:
        path = Path(folder) / "drawn"
        size = max(SIZE_RANGE_PX[0], predictor.preprocess.image_size)
        write_samples(path, images=DRAWN_PICTURES, task=task, size_px=size)
        drawn = read_dataset(path, task=task)
        labelled = set(drawn.classes) <= set(predictor.classes)
        order = np.array([predictor.classes.index(each) if labelled else 0 for each in drawn.classes])
        samples = [replace(sample, labels_N=order[sample.labels_N]) for sample in drawn.samples]
        half = len(samples) // 2
        yield (
            evidence("drawn", samples[:half], PROOF_PICTURES, labelled),
            evidence("drawn", samples[half:], CALIBRATION_PICTURES, labelled) if calibration else None,
        )


def benchmark_exports(name: str, *, seconds: float = 3.0, threads: int = 0) -> Iterator[dict[str, Any]]:
    """Latency, throughput, size and accuracy of the model of a run and of each of its exported files, as plain
    values; a file that cannot be run gives {"file", "error"}. The model's own row has the size of its weights alone, as
    files have them, and the accuracy that a proof measured, if there is one. `threads`: 0 for all cores given to this
    process."""
    source = ExportSource.open(name, "python")
    threads = threads or available_cores()
    torch.set_num_threads(threads)
    predictor = source.predictor
    size = predictor.preprocess.image_size
    run = model_run(predictor, ExportRequest("torch"), suppression_of(predictor))
    records = source.exports.present()
    first = {
        "file": source.checkpoint, "format": "torch", "precision": "fp32", "image_size": size, "state": "",
        "size_bytes": sum(tensor.nbytes for tensor in predictor.model.state_dict().values()),
        **_own_metric(source, records), "drop": None,
    }  # fmt: skip
    yield {**first, **pace_of(run, size, None, seconds), "threads": threads}
    for record in records:
        form = FORMATS[record.format]
        try:
            run = open_export(source.exports.folder / record.file, form, threads)
            pace = pace_of(run, record.image_size, record.batch, seconds)
        except (ExportRefused, ExportFailed) as error:
            yield {"file": record.file, "error": str(error)}
            continue
        proof = Proof(**record.proof)
        yield {
            "file": record.file, "format": record.format, "precision": record.precision,
            "image_size": record.image_size, "state": record.state, "size_bytes": record.size_bytes,
            "metric": proof.metric, "value": proof.metric_file, "drop": proof.drop, **pace, "threads": threads,
        }  # fmt: skip


def _own_metric(source: ExportSource, records: Sequence[ExportRecord]) -> dict[str, Any]:
    """The model's own accuracy as the newest proof of a file without NMS measured it."""
    size = source.predictor.preprocess.image_size
    for record in reversed(records):
        proof = Proof(**record.proof)
        mine = record.checkpoint_sha256 == source.sha256 and (record.nms, record.image_size) == (False, size)
        if mine and proof.metric_torch is not None:
            return {"metric": proof.metric, "value": proof.metric_torch}
    return {"metric": "", "value": None}


def verify_export(path: Path) -> tuple[Proof, dict[str, Any]]:
    """Prove an exported file again, see `exporters.verify`. Raises ExportRefused or ExportFailed."""
    return verify(path)
