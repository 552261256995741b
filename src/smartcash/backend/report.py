"""What a finished run shows: all figures as JSON and one picture of predictions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from smartcash.backend.builder import Built
from smartcash.backend.data import EvalBatches
from smartcash.backend.detector import Detector
from smartcash.backend.drawing import contact_sheet, draw_boxes
from smartcash.backend.images import read_image, write_image
from smartcash.backend.predictor import Predictor
from smartcash.backend.trainer import Outcome
from smartcash.utils.files import write_bytes

SHOWN = 12


def write_report(folder: Path, built: Built, outcome: Outcome) -> None:
    """`metrics.json` (validation and test, per class, confusion) and `predictions.jpg` into `folder`."""
    folder.mkdir(exist_ok=True)
    figures = {
        "best_epoch": outcome.progress.best_epoch,
        "valid": outcome.best.to_dict() if outcome.best else None,
        "test": outcome.test.to_dict() if outcome.test else None,
    }
    write_bytes(folder / "metrics.json", (json.dumps(figures, indent=2, ensure_ascii=False) + "\n").encode())
    parts = built.parts
    threshold = outcome.best.threshold if outcome.best and isinstance(parts.model, Detector) else 0.5
    predictor = Predictor(parts.averaged.module, built.classes, parts.preprocess, parts.precision, threshold)
    write_image(folder / "predictions.jpg", picture_of(predictor, built.test or built.valid))


def picture_of(predictor: Predictor, batches: EvalBatches, shown: int = SHOWN) -> np.ndarray:
    """Predictions on pictures spread evenly over a split (so over its classes), with the truth dashed."""
    places = np.unique(np.linspace(0, len(batches.samples) - 1, shown).round().astype(int))
    pictures, captions = [], []
    for index in places.tolist():
        sample = batches.sample(index)
        image = read_image(sample.path)
        found = predictor(image)
        if predictor.task == "detect":
            truth = (sample.boxes_N4, sample.labels_N)
            image = draw_boxes(
                image, found.boxes_N4, found.labels_N, found.scores_N, predictor.classes, truth
            )
            captions.append(sample.path.name)
        else:
            guess, truth_name = predictor.classes[found.labels_N[0]], predictor.classes[sample.labels_N[0]]
            mark = "" if guess == truth_name else f" ≠ {truth_name}"
            captions.append(f"{guess} {found.scores_N[0]:.0%}{mark}")
        pictures.append(image)
    return contact_sheet(pictures, columns=4, captions=captions)
