"""A model's report card: what is known of how good it is, and where it gives way, as plain values for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from smartcash.backend.calibration import Limits, reliability, share_answered
from smartcash.backend.exporters.pace import timed
from smartcash.backend.images import Pixels
from smartcash.backend.metrics import ClassificationMetrics, DetectionMetrics
from smartcash.backend.predictor import Predictor
from smartcash.backend.resampling import (
    LOWER_IS_BETTER,
    DetectionFigures,
    Figures,
    Judged,
    estimate,
    resamples,
)
from smartcash.backend.seen import Seen
from smartcash.domain.banknotes import values_of

OF_CLASSES = {
    "detect": ("ap50", "ap50_95", "precision", "recall", "f1"),
    "classify": ("precision", "recall", "f1"),
}
# what is measured under hardships, the most telling last; boxes round turned notes are loose, so how tight they are
# does not count
ROBUSTNESS = {"detect": ("mAP50", "f1", "exact_sum"), "classify": ("f1", "accuracy")}
CURVE_POINTS = 80
MEASURED_S = 2.0
_SCORES = np.linspace(0.02, 0.98, 49)


def figures_of(judged: Judged) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """All figures of the whole split and of its classes, each with its interval."""
    now, drawn = (
        judged.all_figures(weights) for weights in (np.ones((1, judged.images)), resamples(judged.images))
    )
    names = OF_CLASSES[judged.seen.task]
    classes = []
    for label, (name, value) in enumerate(zip(judged.classes, values_of(judged.classes))):
        support_I = judged.support_IC[:, label]
        counts = {"support": int(support_I.sum()), "images": int((support_I > 0).sum())}
        rows = _estimates(names, now[1][label], drawn[1][label])
        classes.append({"name": name, "value": value, **counts, "metrics": rows})
    return _estimates(now[0], now[0], drawn[0]), classes


def _estimates(names: Sequence[str] | Figures, now: Figures, drawn: Figures) -> list[dict[str, Any]]:
    found = ((name, estimate(float(now[name][0]), drawn[name])) for name in names)
    return [
        {"name": name, "higher_is_better": name not in LOWER_IS_BETTER, "value": each and asdict(each)}
        for name, each in found
    ]


def confusion_of(seen: Seen) -> dict[str, Any]:
    """`counts[truth][predicted]` as an evaluation gives it; for a detector background is last in both."""
    if seen.task == "classify":
        judged = ClassificationMetrics(seen.classes)
        judged.update(seen.probabilities_IC, seen.truth.labels_N, probabilities=True)
        result = judged.compute()
    else:
        metrics = DetectionMetrics(seen.classes)
        for index in range(len(seen.names)):
            found, truth = seen.of_picture(index)
            metrics.update((found.boxes_N4, found.scores_N, found.labels_N), (truth.boxes_N4, truth.labels_N))
        result = metrics.compute(threshold=seen.threshold)
    return {"classes": list(seen.classes), "counts": [list(row) for row in result.confusion]}


def score_curves(judged: DetectionFigures) -> dict[str, Any]:
    """Precision, recall and F1 (with its interval) of all classes over the score threshold, and each class's precision
    over its recall; IoU 0.5."""
    found, right_N = judged.seen.found, judged.right_TN[0]
    once_1I, drawn_RI = np.ones((1, judged.images)), resamples(judged.images)
    support_I = judged.support_IC.sum(axis=1)
    rows: list[dict[str, float | None]] = []
    for score in _SCORES:
        kept_N = found.scores_N >= score
        found_I, right_I = (
            np.bincount(found.image_N[chosen], minlength=judged.images)
            for chosen in (kept_N, kept_N & right_N)
        )

        def f1(weights_RI: np.ndarray) -> np.ndarray:
            whole_R = weights_RI @ (found_I + support_I)  # noqa: B023  (used at once)
            return 2 * (weights_RI @ right_I) / np.maximum(whole_R, 1)  # noqa: B023

        band = estimate(float(f1(once_1I)[0]), f1(drawn_RI))
        assert band is not None
        rows.append(
            {
                "score": float(score),
                "precision": float(right_I.sum() / found_I.sum()) if found_I.any() else None,
                "recall": float(right_I.sum() / max(1.0, support_I.sum())),
                "f1": band.value, "f1_low": band.low, "f1_high": band.high,
            }
        )  # fmt: skip
    classes = [
        {"name": name, **_precision_over_recall(judged, label)}
        for label, name in enumerate(judged.classes)
        if judged.support_IC[:, label].any()
    ]
    return {"all": {name: [row[name] for row in rows] for name in rows[0]}, "classes": classes}


def _precision_over_recall(judged: DetectionFigures, label: int) -> dict[str, list[float]]:
    """The best precision at each recall that is reached, or beyond; at most CURVE_POINTS points."""
    found = judged.seen.found
    rows = np.flatnonzero(found.labels_N == label)
    rows = rows[np.argsort(-found.scores_N[rows], kind="stable")]
    right_N = judged.right_TN[0][rows]
    precision_K = (np.cumsum(right_N) / np.arange(1, len(rows) + 1))[right_N]
    best_K = np.maximum.accumulate(precision_K[::-1])[::-1]
    recall_K = np.arange(1, len(best_K) + 1) / judged.support_IC[:, label].sum()
    chosen = np.unique(np.linspace(0, len(best_K) - 1, min(CURVE_POINTS, len(best_K))).round().astype(int))
    return {
        "recall": [0.0, *recall_K[chosen].tolist()],
        "precision": [*best_K[:1].tolist(), *best_K[chosen].tolist()],
    }


def calibration_of(judged: Judged) -> dict[str, Any] | None:
    """How far scores can be trusted; None without an answer."""
    found = reliability(judged)
    return found and asdict(found)


def robustness_row(judged: Judged) -> dict[str, Any]:
    """What is measured under a hardship, each with its interval."""
    now, drawn = (
        judged.figures(weights) for weights in (np.ones((1, judged.images)), resamples(judged.images))
    )
    # without classes that are worth money there is no sum
    wanted = [name if name in now else "exact_count" for name in ROBUSTNESS[judged.seen.task]]
    return {row["name"]: row["value"] for row in _estimates(wanted, now, drawn)}


def limits_on(judged: Judged, limits: Limits) -> dict[str, Any]:
    """What limits chosen elsewhere give on these pictures."""
    sure, right = share_answered(judged, limits)
    return {"sure": sure, "right_when_sure": right}


def pace_of(predictor: Predictor, image: Pixels, threads: int) -> dict[str, Any]:
    """How long one picture takes on this machine, from its decoded pixels to its notes; ms."""
    taken_s = timed(lambda: predictor(image), MEASURED_S)
    p50, p95 = (1000 * np.percentile(taken_s, (50, 95))).round(2).tolist()
    return {
        "p50_ms": p50,
        "p95_ms": p95,
        "calls": len(taken_s),
        "threads": threads,
        "picture": list(image.shape[1::-1]),
    }
