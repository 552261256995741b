"""How fast a file or a model answers."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from smartcash.backend.exporters.model import Run

WARM_UP_CALLS = 3
FEWEST_CALLS = 10
TOGETHER = 8


def pace_of(run: Run, image_size: int, batch: int | None, seconds: float) -> dict[str, float | int]:
    """Latency of one call (ms; p50 and p95) with one picture, or with as many as the file is made for, and pictures
    per second in calls of eight. About `seconds` for each of the two, at least ten calls."""
    single = _calls(run, batch or 1, image_size, seconds)
    many = batch or TOGETHER
    together = single if batch else _calls(run, many, image_size, seconds)
    return {
        "batch": batch or 1,
        "calls": len(single),
        "p50_ms": round(1000 * float(np.percentile(single, 50)), 2),
        "p95_ms": round(1000 * float(np.percentile(single, 95)), 2),
        "images_per_s": round(many / float(np.median(together)), 1),
    }


def _calls(run: Run, pictures: int, image_size: int, seconds: float) -> list[float]:
    images = np.random.default_rng(0).standard_normal((pictures, 3, image_size, image_size), np.float32)
    return timed(lambda: run(images), seconds)


def timed(call: Callable[[], object], seconds: float) -> list[float]:
    """How long each of several calls took, s: for about `seconds`, after a few that are not counted."""
    for _ in range(WARM_UP_CALLS):
        call()
    taken: list[float] = []
    while len(taken) < FEWEST_CALLS or sum(taken) < seconds:
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return taken
