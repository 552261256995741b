"""What a workbench answers: questions about data sets, models and the machine, as plain values.

To add a question, write a function of plain values and name it in QUESTIONS. What is slow to open (a model, a data
set) is kept for the next question.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import timm

from smartcash.backend.augment import PRESETS, Augment, resolve_parts
from smartcash.backend.backbones import SHORT_NAMES, weights_at_hand
from smartcash.backend.builder import choose_image_size
from smartcash.backend.data import Pictures, kept_side
from smartcash.backend.exporters import FORMATS as EXPORTS
from smartcash.backend.formats import DataSet, Sample, facts_of, read_dataset, task_named
from smartcash.backend.health import examine
from smartcash.backend.images import Pixels, decode_image, read_image
from smartcash.backend.predictor import Predictor
from smartcash.backend.preprocess import Preprocess
from smartcash.backend.samples import write_samples
from smartcash.domain.banknotes import values_of
from smartcash.domain.config import TrainConfig
from smartcash.domain.errors import DataInvalid, RunNotResumable
from smartcash.domain.exports import ExportRecord, ExportRequest
from smartcash.handlers.checkpoint import CheckpointManager
from smartcash.handlers.doctor import examine as examine_installation
from smartcash.handlers.model_versions import ModelVersions
from smartcash.services.event_log import finite
from smartcash.services.run_store import find_run, home
from smartcash.services.thresholds import thresholds_of
from smartcash.utils.files import sha256_of
from smartcash.utils.logger import get_logger
from smartcash.worker.exporting import export_model
from smartcash.worker.facts import backbone_problems, torch_facts
from smartcash.worker.models import open_model

SHOWN_FINDINGS = 500
JPEG_QUALITY = 85

Values = Mapping[str, Any]


# --- data sets


@lru_cache(maxsize=4)
def _data_set(path: str, form: str, task: str, seed: int) -> DataSet:
    return read_dataset(path, task=task_named(task), format=form, seed=seed)


def check_data(path: str, form: str = "auto", task: str = "auto", seed: int = 0) -> Values:
    """Everything that the health checks find, and what is in each split."""
    _data_set.cache_clear()  # asked again, because something was put right
    data = examine(_data_set(path, form, task, seed))
    findings = sorted(
        data.report.findings, key=lambda each: ("error", "warning", "note").index(each.severity)
    )
    return {
        **facts_of(data), "values": _values(data.classes), "findings_total": len(findings),
        "findings": [finding.to_dict() for finding in findings[:SHOWN_FINDINGS]],
    }  # fmt: skip


def draw_samples(path: str, images: int, task: Literal["detect", "classify"]) -> Values:
    """Draw a data set of specimen notes into a new folder, as `smartcash data sample` does."""
    summary = write_samples(Path(path), images=images, task=task)
    return {"images": summary.images, "notes": summary.notes, "seconds": round(summary.seconds, 1)}


def list_pictures(
    path: str, split: str, label: str = "", offset: int = 0, limit: int = 24,
    form: str = "auto", task: str = "auto", seed: int = 0,
) -> Values:  # fmt: skip
    """A page of a split's pictures with their boxes; those with the class `label`, if one is named."""
    data = _data_set(path, form, task, seed)
    samples = _split(data, split)
    chosen = list(range(len(samples)))
    if label:
        if label not in data.classes:
            raise DataInvalid("classes_differ", unknown=label, known=", ".join(data.classes))
        number = data.classes.index(label)
        chosen = [index for index in chosen if number in samples[index].labels_N]
    page = chosen[offset : offset + limit]
    rows = [{"index": index, **_described(data, samples[index])} for index in page]
    return {
        "total": len(chosen),
        "classes": list(data.classes),
        "values": _values(data.classes),
        "pictures": rows,
    }


def show_picture(
    path: str, split: str, index: int, size: int, form: str = "auto", task: str = "auto", seed: int = 0
) -> str:
    """One picture as a JPEG of at most `size` px, in base64."""
    samples = _split(_data_set(path, form, task, seed), split)
    if not 0 <= index < len(samples):
        raise DataInvalid("picture_absent", path=path, split=split, index=index, count=len(samples))
    return _jpeg(_shrunk(read_image(samples[index].path), size))


def augment_pictures(values: Values, count: int, epoch: int) -> Values:
    """Training pictures as an epoch of this configuration would see them, with their boxes."""
    config = TrainConfig.parse(values)
    data = _data_set(config.data.path, config.data.format, config.task, config.seed)
    parts = resolve_parts(config.augment, data.task)
    size = choose_image_size(data) if config.data.image_size == "auto" else config.data.image_size
    preprocess = Preprocess(size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), config.data.resize)
    pictures = Pictures(data.splits["train"], kept_side(size), keep=False)
    augment = Augment(parts, preprocess, config.seed)
    rows = []
    for index in np.linspace(0, len(pictures) - 1, min(count, len(pictures))).round().astype(int).tolist():
        image, boxes, labels = augment(epoch, index, pictures.fetch, len(pictures))
        height, width = image.shape[:2]
        rows.append(
            {
                "name": pictures.samples[index].path.name, "width": width, "height": height,
                "boxes": _boxes(data, boxes, labels), "jpeg": _jpeg(image),
            }
        )  # fmt: skip
    return {"classes": list(data.classes), "values": _values(data.classes), "pictures": rows}


def _split(data: DataSet, split: str) -> tuple[Sample, ...]:
    if split not in data.splits:
        raise DataInvalid("split_missing", path=str(data.source), split=split, splits=", ".join(data.splits))
    return data.splits[split]


def _described(data: DataSet, sample: Sample) -> Values:
    width, height = sample.size
    boxes = _boxes(data, sample.boxes_N4, sample.labels_N)
    return {"name": sample.path.name, "width": width, "height": height, "boxes": boxes}


def _boxes(data: DataSet, boxes_N4: np.ndarray, labels_N: np.ndarray) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"class": data.classes[label]} for label in labels_N.tolist()]
    for row, box in zip(rows, boxes_N4.tolist()):
        row["box_xyxy"] = [round(side, 1) for side in box]
    return rows


def _values(classes: tuple[str, ...]) -> dict[str, int | None]:
    return dict(zip(classes, values_of(classes)))


def _shrunk(image: Pixels, longest_px: int) -> Pixels:
    height, width = image.shape[:2]
    ratio = longest_px / max(height, width)
    if ratio >= 1:
        return image
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def _jpeg(image: Pixels) -> str:
    _, written = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    return base64.b64encode(written.tobytes()).decode()


# --- models


@lru_cache(maxsize=2)
def _predictor(path: str, sha256: str, limits: str) -> Predictor:
    """Kept by the content of its file and when its limits were chosen: an alias that moved brings another one."""
    return open_model(path)[0]


def predict(model: str, picture: str, threshold: float | None = None, abstain: float | None = None) -> Values:
    """What a model says of a picture (its bytes in base64), what money it counts there, and how long it took, ms."""
    path = _model_file(model)
    with path.open("rb") as file:
        sha256 = sha256_of(file)
    limits = thresholds_of(path, sha256)
    predictor = _predictor(str(path), sha256, limits.created if limits else "")
    image = decode_image(base64.b64decode(picture), "picture")
    began = time.perf_counter()
    limits_C = predictor.limits(threshold)
    seen = predictor(image, predictor.lowest(limits_C, abstain))  # once, for both
    said = predictor.describe(predictor.reaching(limits_C, seen))
    ms = (time.perf_counter() - began) * 1000
    height, width = image.shape[:2]
    return {
        **said, **predictor.counted(limits_C, seen, abstain),
        "threshold": predictor.threshold if threshold is None else threshold, "width": width, "height": height,
        "ms": round(ms, 1), "values": _values(predictor.classes), "model": {"name": model, "sha256": sha256},
    }  # fmt: skip


def _model_file(model: str) -> Path:
    """The file of a version or alias, else the best checkpoint of a run."""
    versions = ModelVersions()
    if versions.store.knows(model):
        return versions.store.model_file(versions.find(model))
    run = find_run(model)
    with CheckpointManager(output_dir=str(run.weights), logger=get_logger("checkpoint")) as manager:
        best = manager.find_best_checkpoint()
    if best is None:
        raise RunNotResumable("run_without_checkpoint", run=run.id, folder=str(run.weights))
    return Path(best)


def register_version(run: str) -> Values:
    """Make a run's best checkpoint a model version."""
    return ModelVersions(interface="web").register_run(find_run(run)).to_dict()


def export(model: str, request: Values) -> Values:
    """Write a model in one form and prove it: the record, see `export_model`. Raises ExportRefused."""
    (made,) = export_model(model, [ExportRequest(**request)], interface="web")
    if not isinstance(made, ExportRecord):
        raise made
    return made.to_dict()


# --- the machine and what is installed


def doctor(deep: bool = False) -> Values:
    """Everything that the doctor finds, with its words."""
    found = list(examine_installation(home(), torch_facts(), deep=deep))
    return {"healthy": not any(each.wrong for each in found), "findings": [each.to_dict() for each in found]}


def augment_presets() -> Values:
    """Each preset's parts, by task."""
    presets: dict[str, dict[str, Any]] = {}
    for task, by_name in PRESETS.items():
        for name, chosen in by_name.items():
            presets.setdefault(name, {})[task] = vars(chosen)
    return presets


def backbones() -> Values:
    """Short names, which of them have their weights here, and every network of timm that gives feature maps."""
    here = weights_at_hand()
    short = [{"name": name, "timm": full, "weights": name in here} for name, full in SHORT_NAMES.items()]
    return {"short": short, "names": _timm_names()}


def problems_of_backbone(name: str) -> list[Values]:
    """What is wrong with the name of a backbone."""
    return [asdict(problem) for problem in backbone_problems(name)]


@lru_cache(maxsize=1)
def _timm_names() -> list[str]:
    return list(timm.list_models())


def export_formats() -> list[Values]:
    """The forms that a model can be written in, and whether their packages are installed."""
    return [
        {
            "name": form.name, "suffix": form.suffix, "precisions": list(form.precisions),
            "nms": form.nms, "extra": form.extra, "installed": all(map(_is_installed, (*form.packages, *form.converters))),
        }
        for form in EXPORTS.values()
    ]  # fmt: skip


def _is_installed(package: str) -> bool:
    return find_spec(package) is not None


QUESTIONS: dict[str, Callable[..., Any]] = {
    "augment_pictures": augment_pictures,
    "augment_presets": augment_presets,
    "backbones": backbones,
    "check_data": check_data,
    "device": torch_facts,
    "doctor": doctor,
    "draw_samples": draw_samples,
    "export": export,
    "export_formats": export_formats,
    "list_pictures": list_pictures,
    "predict": predict,
    "problems_of_backbone": problems_of_backbone,
    "register_version": register_version,
    "show_picture": show_picture,
}


def answer(question: str, facts: Mapping[str, Any]) -> Any:
    """The answer to one of QUESTIONS as plain JSON values. Raises SmartCashError, or KeyError for another question."""
    return finite(QUESTIONS[question](**facts))
