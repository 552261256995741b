"""What a backbone's model costs on this machine."""

from __future__ import annotations

import statistics

import numpy as np

from smartcash.backend.exporters.pace import timed
from smartcash.services.run_store import RunFolder
from smartcash.worker.models import open_model

PICTURE_PX = (480, 640)  # height, width
MEASURED_S = 2.0


def measure_speed(run: RunFolder) -> dict[str, float]:
    """Of the run's best checkpoint: `latency_ms`, the median time from the pixels of one 640 × 480 picture to its
    notes, on all cores of this process; `parameters`, and `size_mb`, their megabytes in memory."""
    predictor, _ = open_model(str(run.path))
    picture = np.random.default_rng(0).integers(0, 256, (*PICTURE_PX, 3), np.uint8)
    taken_s = timed(lambda: predictor(picture), MEASURED_S)
    weights = list(predictor.model.parameters())
    return {
        "latency_ms": round(1000 * statistics.median(taken_s), 2),
        "parameters": sum(weight.numel() for weight in weights),
        "size_mb": round(sum(weight.numel() * weight.element_size() for weight in weights) / 1e6, 2),
    }
