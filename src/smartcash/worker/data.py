"""The data set of a configuration: read, described, previewed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from smartcash.backend.augment import Augment, resolve_parts
from smartcash.backend.builder import choose_image_size
from smartcash.backend.data import Pictures, kept_side
from smartcash.backend.drawing import contact_sheet, draw_boxes
from smartcash.backend.formats import DataSet, read_dataset, verify_images
from smartcash.backend.images import write_image
from smartcash.backend.preprocess import Preprocess
from smartcash.domain.config import TrainConfig
from smartcash.domain.errors import DataInvalid


def load_data(config: TrainConfig) -> DataSet:
    """The data set of a configuration, every picture decoded once so that none fails in epoch 7."""
    task = None if config.task == "auto" else config.task
    data = read_dataset(
        config.data.path, task=task, format=config.data.format, seed=config.seed, strict=config.data.strict
    )
    data = verify_images(data)
    if config.data.strict and (problems := data.report.problems("error", "warning")):
        raise DataInvalid("data_strict", problems, path=config.data.path)
    return data


def facts_of(data: DataSet) -> dict[str, Any]:
    """What a run records of its data."""
    return {
        "data": {
            "path": str(data.source.absolute()),
            "format": data.format,
            "task": data.task,
            "classes": list(data.classes),
            "images": {split: len(samples) for split, samples in data.splits.items()},
            "content_hash": data.content_hash,
            "split_seed": data.split_seed,
            "findings": data.report.counts(),
        }
    }


def preview_data(config: TrainConfig, out: Path, count: int = 24) -> Path:
    """A contact sheet of augmented training samples with their boxes, as the first epoch would see them."""
    data = load_data(config)
    parts = resolve_parts(config.augment, data.task)
    size = choose_image_size(data) if config.data.image_size == "auto" else config.data.image_size
    preprocess = Preprocess(size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), config.data.resize)
    pictures = Pictures(data.splits["train"], kept_side(size), keep=False)
    augment = Augment(parts, preprocess, config.seed)
    sheet, captions = [], []
    for index in np.linspace(0, len(pictures) - 1, min(count, len(pictures))).round().astype(int).tolist():
        image, boxes, labels = augment(0, index, pictures)
        if data.task == "detect":
            image = draw_boxes(image, boxes, labels, None, data.classes)
        sheet.append(image)
        captions.append(
            pictures.samples[index].path.name if data.task == "detect" else data.classes[labels[0]]
        )
    write_image(out, contact_sheet(sheet, columns=6, captions=captions))
    return out
