"""Exports: a trained model as a file for another runtime, with the proof that it says the same.

    made = export(FORMATS["onnx"], predictor, request, lineage, evidence, calibration, Path("notes.onnx"))
    again = verify(Path("notes.onnx"))

Beside the file stand `<file>.json` (the metadata, which are also inside the file, its SHA-256 and the proof) and
`<file>.proof.safetensors` (drawn pictures with the outputs that belong to them). To add a format, add a module to
`known` that defines `FORMAT`.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors import numpy as safe

from smartcash import __version__
from smartcash.backend.backbones import STRIDES
from smartcash.backend.boxes import NMS_IOU
from smartcash.backend.exporters.gate import (
    Evidence,
    Reference,
    first_picture,
    model_run,
    prove,
    prove_again,
    says_anything,
    squares,
)
from smartcash.backend.exporters.graph import Graph
from smartcash.backend.exporters.known import FORMATS
from smartcash.backend.exporters.model import Format, Job, Outputs, Run, Suppression
from smartcash.backend.exporters.pace import pace_of
from smartcash.backend.metrics import SAME_NOTE_IOU
from smartcash.backend.predictor import Predictor
from smartcash.backend.preprocess import Preprocess
from smartcash.backend.samples import SIZE_RANGE_PX, draw_sample
from smartcash.domain.banknotes import values_of
from smartcash.domain.errors import ExportFailed, ExportRefused
from smartcash.domain.exports import METADATA, PROOF, ExportRequest, Proof
from smartcash.utils.files import fsync_folder, reason_of, sha256_of, write_bytes
from smartcash.utils.machine import require_room

DRAFT, LOCK = ".export-", ".lock"  # a folder that is being written, and what its process holds
SMALLER = {"fp32": 1, "fp16": 2, "int8": 4}  # weights in a file, by precision
REFERENCE_PICTURES = 3
REFERENCE_DRAWN = 24  # among so many are those looked for in which a file with NMS finds something
REFERENCE_SEED = 20  # far from the seeds of data sets that people draw


@dataclass(frozen=True)
class Exported:
    """A file that was written, or, with a failed proof, one that was not kept. `repeatable`: whether there is anything
    in the pictures that travel with it for `verify` to compare."""

    path: Path
    proof: Proof
    sha256: str
    size_bytes: int
    image_size: int
    seconds: float
    created: str
    repeatable: bool = True


def format_of(request: ExportRequest) -> Format:
    """The format that is asked for. Raises ExportRefused for one that is not known, for what it cannot do, and for a
    package that is missing."""
    if request.format not in FORMATS:
        raise ExportRefused("export_format", format=request.format, known=", ".join(FORMATS))
    form = FORMATS[request.format]
    check(form, request)
    return form


def check(form: Format, request: ExportRequest, task: str = "detect", *, writing: bool = True) -> None:
    """Raises ExportRefused for what the format cannot do, or a package that is missing; `writing`: also one that only
    makes files."""
    if request.precision not in form.precisions:
        known = ", ".join(form.precisions)
        raise ExportRefused("export_precision", format=form.name, precision=request.precision, known=known)
    if request.nms and task != "detect":
        raise ExportRefused("export_nms_task")
    if request.nms and not form.nms:
        able = ", ".join(name for name, each in FORMATS.items() if each.nms)
        raise ExportRefused("export_nms", format=form.name, known=able)
    if form.single and request.batch not in (None, 1):
        raise ExportRefused("export_one_picture", format=form.name, value=request.batch)
    _installed(form, form.packages, form.extra)
    if writing:
        _installed(form, form.converters, form.extra)
    if writing and request.precision == "int8":
        _installed(form, form.quantizers, f"{form.extra}-int8")


def _installed(form: Format, packages: Sequence[str], extra: str) -> None:
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ExportRefused(
            "export_extra_missing", format=form.name, packages=", ".join(missing), extra=extra
        )


def settled(form: Format, request: ExportRequest) -> ExportRequest:
    """The request as the format can hold it: with one picture per call where it knows no batches."""
    return replace(request, batch=1) if form.single else request


def export(
    form: Format,
    predictor: Predictor,
    request: ExportRequest,
    lineage: Mapping[str, Any],
    evidence: Evidence,
    calibration: Evidence | None,
    target: Path,
) -> Exported:
    """Write, load and prove one file. A proof that fails leaves nothing at `target`; what stood there stays. A file
    whose runtime does not exist on this system is written unverified.

    `predictor`: on the CPU, in fp32. `calibration`: training pictures, for int8. Raises ExportRefused for what the
    format cannot do, ExportFailed when the conversion breaks off or `target` cannot be written, and DataInvalid for a
    picture that cannot be read."""
    check(form, request, predictor.task)
    request = settled(form, request)
    began = time.monotonic()
    predictor = _sized(predictor, request.image_size)
    rule = suppression_of(predictor)
    graph = Graph(predictor.model, half=request.precision == "fp16")
    pictures = None if calibration is None else _calibration(calibration, predictor.preprocess)
    job = Job(graph, request, predictor.preprocess.image_size, {}, rule, pictures)
    job = replace(job, metadata=describe(form, predictor, job, lineage))
    weights = sum(tensor.nbytes for tensor in predictor.model.state_dict().values())
    with _written_beside(target, weights // SMALLER[request.precision]) as draft:
        with warnings.catch_warnings():
            # the converters warn of their own insides, which nobody here can act on
            warnings.simplefilter("ignore")
            with _conversion(form):
                form.write(job, draft)
                metadata = form.read(draft)
            ours = model_run(predictor, request, rule)
            if form.runs_here:
                run = open_export(draft, form, torch.get_num_threads())
                proof = prove(predictor, run, metadata, request, rule, evidence)
                ours = ours if request.precision == "fp32" else run
            else:
                proof = unproved(form)
        sha256, size = _hash(draft, form)
        made = Exported(
            target, proof, sha256, size, job.image_size, round(time.monotonic() - began, 1),
            str(metadata["created"]),
        )  # fmt: skip
        if proof.state != "failed":
            kept = {"metadata": metadata, "sha256": sha256, "size_bytes": size, "proof": proof.to_dict()}
            whole = json.dumps(kept, indent=1, ensure_ascii=False)
            write_bytes(_beside(draft, METADATA), (whole + "\n").encode())
            reference = _reference(ours, predictor, request.batch)
            made = replace(made, repeatable=reference.holds_anything)
            write_bytes(_beside(draft, PROOF), _packed(reference))
            if form.companions:  # of several files a new one beside an old one would be neither
                target.unlink(missing_ok=True)
            (main, end), *companions = zip(form.parts(draft), form.parts(target))
            beside = [(_beside(draft, each), _beside(target, each)) for each in (PROOF, METADATA)]
            for source, place in (*companions, *beside, (main, end)):
                _move(source, place)
            fsync_folder(target.parent)
    return made


def suppression_of(predictor: Predictor) -> Suppression:
    """The rule by which the predictor itself counts notes."""
    return Suppression(predictor.threshold, NMS_IOU, SAME_NOTE_IOU)


def verify(path: Path) -> tuple[Proof, dict[str, Any]]:
    """Prove a file again, on any machine: its SHA-256, the metadata inside it, and its outputs for the pictures that
    travel with it; these only where its runtime exists. Returns the proof and the metadata.

    Raises ExportRefused for a file that is none of ours, one without its companions, or a package that is missing,
    and ExportFailed for one that was changed."""
    form = next((form for form in FORMATS.values() if path.name.endswith(form.suffix)), None)
    beside, proof_path = _beside(path, METADATA), _beside(path, PROOF)
    absent = [each for each in (path, beside, proof_path) if not each.is_file()]
    if form is None or path in absent:
        raise ExportRefused("export_not_ours", path=str(path))
    if absent:
        raise ExportRefused("export_parted", path=str(path), missing=", ".join(each.name for each in absent))
    try:
        kept = json.loads(beside.read_text(encoding="utf-8"))
        request, task = ExportRequest(**kept["metadata"]["request"]), kept["metadata"]["task"]
        sha256 = kept["sha256"]
        reference = _read_reference(proof_path)
    except (ValueError, KeyError, TypeError, SafetensorError, ExportRefused) as error:
        raise ExportFailed("export_changed", path=str(beside), reason=str(error)[:200]) from error
    check(form, request, task, writing=False)
    try:
        intact = _hash(path, form)[0] == sha256
    except FileNotFoundError as error:
        raise ExportRefused("export_not_ours", path=str(path), missing=str(error.filename)) from error
    if not intact:
        raise ExportFailed("export_changed", path=str(path), reason="SHA-256")
    with _conversion(form):
        metadata = form.read(path)
        if metadata != kept["metadata"]:
            raise ExportFailed("export_changed", path=str(beside), reason="metadata")
        if not form.runs_here:
            return unproved(form), metadata
        run = form.open(path, torch.get_num_threads())
        return prove_again(run, metadata, request.precision, request.batch, reference), metadata


def unproved(form: Format) -> Proof:
    """What is said of a file of `form` on a system that has not its runtime."""
    return Proof("unverified", "cannot_run_here", systems=form.system_names)


def open_export(path: Path, form: Format, threads: int) -> Run:
    """A file of `form`, ready to be called, with so many threads. Raises ExportRefused or ExportFailed, which each
    call may raise too."""
    _installed(form, form.packages, form.extra)
    if not form.runs_here:
        raise ExportRefused("export_not_here", format=form.name, systems=", ".join(form.system_names))
    with _conversion(form):
        inner = form.open(path, threads)

    def run(images_BCHW: np.ndarray) -> Outputs:
        with _conversion(form):
            return inner(images_BCHW)

    return run


def describe(form: Format, predictor: Predictor, job: Job, lineage: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a file: all that a program needs to use it, and where it comes from.

    `lineage`: "model" (to build the network again), "lineage" (run, checkpoint, data, code of the training) and
    "tools" (what more is known of the exporting side)."""
    request, size = job.request, job.image_size
    batch: int | str = request.batch or "batch"
    candidates = sum((size // stride) ** 2 for stride in STRIDES)
    classes = len(predictor.classes)
    shapes: dict[str, list[int | str]] = {
        "boxes": [batch, candidates, 4], "scores": [batch, candidates, classes],
        "probabilities": [batch, classes], "image": ["detections"], "box": ["detections", 4],
        "score": ["detections"], "label": ["detections"],
    }  # fmt: skip
    return {
        "smartcash": __version__,
        "format": form.name,
        "task": predictor.task,
        "classes": list(predictor.classes),
        "values_rupiah": list(values_of(predictor.classes)),
        "input": {
            "name": "images", "shape": [batch, 3, size, size], "layout": "NCHW", "dtype": "float32",
            "formula": "(x / 255 - mean) / std", "preprocess": predictor.preprocess.to_dict(),
        },
        "outputs": [{"name": name, "shape": shapes[name]} for name in job.outputs],
        "boxes": "xyxy, px of the input square",
        "nms": {
            "inside": request.nms, "threshold": job.suppression.threshold, "iou": job.suppression.iou,
            "same_note_iou": job.suppression.same_note_iou,
        },
        "precision": request.precision,
        "request": {name: getattr(request, name) for name in ExportRequest.__dataclass_fields__},
        "calibration_pictures": 0 if job.calibration_B3HW is None else len(job.calibration_B3HW),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **lineage,
        "tools": {name: version(name) for name in _tools(form, request)} | lineage["tools"],
    }  # fmt: skip


def _tools(form: Format, request: ExportRequest) -> tuple[str, ...]:
    used = form.quantizers if request.precision == "int8" else ()
    return ("torch", "timm", *form.packages, *form.converters, *used)


def _sized(predictor: Predictor, image_size: int | None) -> Predictor:
    """The predictor at another size of its input."""
    sized = copy.copy(predictor)
    if image_size is not None:
        sized.preprocess = replace(predictor.preprocess, image_size=image_size)
    return sized


def _calibration(evidence: Evidence, preprocess: Preprocess) -> np.ndarray:
    fetched = (evidence.fetch(row)[0] for row in range(len(evidence.pictures)))
    return squares(preprocess, list(fetched))


def _reference(run: Run, predictor: Predictor, batch: int | None) -> Reference:
    """Drawn pictures, a third cut off so that they are not square, with the outputs for each. Of a file with NMS those
    in which it finds something come first: an empty answer proves nothing."""
    size = max(SIZE_RANGE_PX[0], predictor.preprocess.image_size)
    told: list[tuple[np.ndarray, Outputs]] = []
    silent: list[tuple[np.ndarray, Outputs]] = []
    for row in range(REFERENCE_DRAWN):
        drawn, *_ = draw_sample("valid", row, REFERENCE_SEED, predictor.task, size)
        image = np.ascontiguousarray(drawn[: size * 2 // 3])
        outputs = first_picture(run(squares(predictor.preprocess, [image] * (batch or 1))))
        (told if says_anything(outputs) else silent).append((image, outputs))
        if len(told) == REFERENCE_PICTURES:
            break
    images, answers = zip(*[*told, *silent][:REFERENCE_PICTURES])
    return Reference(list(images), list(answers))


def _packed(reference: Reference) -> bytes:
    tensors: dict[str, np.ndarray] = {}
    for row, (image, outputs) in enumerate(zip(reference.images, reference.outputs)):
        tensors[f"{row}/picture"] = image
        for name, values in outputs.items():
            tensors[f"{row}/{name}"] = np.ascontiguousarray(values)
    return safe.save(tensors)


def _read_reference(path: Path) -> Reference:
    images: list[np.ndarray] = []
    outputs: list[Outputs] = []
    tensors = safe.load(path.read_bytes())
    for row in range(REFERENCE_PICTURES):
        its = {
            name.partition("/")[2]: values for name, values in tensors.items() if name.startswith(f"{row}/")
        }
        images.append(its.pop("picture"))
        outputs.append(its)
    return Reference(images, outputs)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _hash(path: Path, form: Format) -> tuple[str, int]:
    """SHA-256 of the file, or of those of it and its companions one after the other; size in bytes."""
    hashes, size = [], 0
    for each in form.parts(path):
        with each.open("rb") as file:
            hashes.append(sha256_of(file))
        size += each.stat().st_size
    return "+".join(hashes), size


def _move(source: Path, end: Path) -> None:
    with source.open("rb") as file:
        os.fsync(file.fileno())
    source.replace(end)


@contextmanager
def _written_beside(target: Path, least_bytes: int) -> Iterator[Path]:
    """A name in a folder of its own beside `target`, gone afterwards; one that a killed export left goes now. There must
    be room for a file of `least_bytes`."""
    try:
        require_room(target.parent, least_bytes)
        target.parent.mkdir(parents=True, exist_ok=True)
        for lock in target.parent.glob(f"{DRAFT}*/{LOCK}"):
            if _is_free(lock):
                shutil.rmtree(lock.parent)
        with (
            tempfile.TemporaryDirectory(prefix=DRAFT, dir=target.parent) as folder,
            FileLock(Path(folder) / LOCK),
        ):
            yield Path(folder) / target.name
    except OSError as error:
        raise ExportFailed("export_unwritable", path=str(target), reason=reason_of(error)) from error


def _is_free(path: Path) -> bool:
    """Whether no living process holds this lock."""
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    lock.release()
    return True


@contextmanager
def _conversion(form: Format) -> Iterator[None]:
    """What the format's library refuses becomes an ExportFailed."""
    try:
        yield
    except form.errors as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise ExportFailed("export_broke", format=form.name, reason=lines[0][:300]) from error


__all__ = [
    "FORMATS", "Evidence", "Exported", "Format", "Graph", "Job", "Suppression", "check", "describe",
    "export", "format_of", "model_run", "open_export", "pace_of", "settled", "suppression_of", "verify",
]  # fmt: skip
