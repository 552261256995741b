"""What a workbench answers: questions about models and the machine, as plain values; those about data sets stand in
`data_answers`, which does not load torch.

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
from typing import Any

import numpy as np
import timm

from smartcash.backend.augment import PRESETS, Augment, resolve_parts
from smartcash.backend.backbones import SHORT_NAMES, weights_at_hand
from smartcash.backend.builder import choose_image_size
from smartcash.backend.data import Pictures, kept_side
from smartcash.backend.exporters import FORMATS as EXPORTS
from smartcash.backend.images import decode_image
from smartcash.backend.predictor import Predictor
from smartcash.backend.preprocess import Preprocess
from smartcash.domain.config import TrainConfig
from smartcash.domain.errors import RunNotResumable
from smartcash.domain.exports import ExportRecord, ExportRequest
from smartcash.handlers.checkpoint import CheckpointManager
from smartcash.handlers.doctor import examine as examine_installation
from smartcash.handlers.model_versions import ModelVersions
from smartcash.services.run_store import find_run, home
from smartcash.services.thresholds import thresholds_of
from smartcash.utils.files import sha256_of
from smartcash.utils.logger import get_logger
from smartcash.worker.data_answers import boxes_of, data_set, jpeg_of, values_by_class
from smartcash.worker.exporting import export_model
from smartcash.worker.facts import backbone_problems, torch_facts
from smartcash.worker.models import open_model

Values = Mapping[str, Any]


# --- data sets


def augment_pictures(values: Values, count: int, epoch: int) -> Values:
    """Training pictures as an epoch of this configuration would see them, with their boxes."""
    config = TrainConfig.parse(values)
    data = data_set(config.data.path, config.data.format, config.task, config.seed)
    parts = resolve_parts(config.augment, data.task)
    size = choose_image_size(data) if config.data.image_size == "auto" else config.data.image_size
    preprocess = Preprocess(size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), config.data.resize)
    pictures = Pictures(data.splits["train"], kept_side(size), keep=False)
    augment = Augment(parts, preprocess, config.seed)
    rows = []
    for index in np.linspace(0, len(pictures) - 1, min(count, len(pictures))).round().astype(int).tolist():
        image, boxes, labels = augment(epoch, index, pictures)
        height, width = image.shape[:2]
        rows.append(
            {
                "name": pictures.samples[index].path.name, "width": width, "height": height,
                "boxes": boxes_of(data, boxes, labels), "jpeg": jpeg_of(image),
            }
        )  # fmt: skip
    return {"classes": list(data.classes), "values": values_by_class(data.classes), "pictures": rows}


# --- models


@lru_cache(maxsize=2)
def _predictor(path: str, sha256: str, limits: str) -> Predictor:
    """Kept by the content of its file and when its limits were chosen: an alias that moved brings another one."""
    return open_model(path)[0]


def predict(
    model: str, name: str, picture: str, threshold: float | None = None, abstain: float | None = None
) -> Values:
    """What a model says of a picture (its name, and its bytes in base64), what money it counts there, and how long it
    took, ms."""
    path = _model_file(model)
    with path.open("rb") as file:
        sha256 = sha256_of(file)
    limits = thresholds_of(path, sha256)
    predictor = _predictor(str(path), sha256, limits.created if limits else "")
    image = decode_image(base64.b64decode(picture), name)
    began = time.perf_counter()
    limits_C = predictor.limits(threshold)
    seen = predictor(image, predictor.lowest(limits_C, abstain))  # once, for both
    said = predictor.describe(predictor.reaching(limits_C, seen))
    ms = (time.perf_counter() - began) * 1000
    height, width = image.shape[:2]
    return {
        "file": name, **said, **predictor.counted(limits_C, seen, abstain),
        "threshold": predictor.threshold if threshold is None else threshold, "width": width, "height": height,
        "ms": round(ms, 1), "values": values_by_class(predictor.classes), "model": {"name": model, "sha256": sha256},
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
    "device": torch_facts,
    "doctor": doctor,
    "export": export,
    "export_formats": export_formats,
    "predict": predict,
    "problems_of_backbone": problems_of_backbone,
    "register_version": register_version,
}
