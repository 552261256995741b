"""Every figure of a split as a function of how often each picture counts: the estimate, and its bootstrap.

    judged = DetectionFigures(seen, threshold)
    judged.figures(np.ones((1, images)))          # the figures themselves
    judged.figures(resamples(images, 1000))       # the same for 1000 resamples of the pictures

Pictures are drawn with replacement (Efron 1979), since the notes of one picture are not independent of each other. A
picture that is drawn twice counts twice: nothing is matched anew, so 1000 resamples cost about what one evaluation
does. Two models are held against each other on the same resamples: the interval is that of the paired difference.

Every array of figures is (resamples,), NaN where a figure is not defined in a resample.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from smartcash.backend.metrics import (
    CALIBRATION_BINS,
    MATCH_IOU,
    Floats,
    Ints,
    Objects,
    exact_pictures,
    match,
    overlaps,
)
from smartcash.backend.seen import Seen
from smartcash.domain.banknotes import values_of

RESAMPLES = 1000
CONFIDENCE = 0.95
FEWEST_PICTURES = 10  # with fewer, resampling them says little of others
IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
LOWER_IS_BETTER = ("ece", "loss")
_CHUNK = 8_000_000  # numbers at a time

Figures = dict[str, Floats]
Verdict = Literal["better", "worse", "undecided", "too_few"]


def resamples(images: int, count: int = RESAMPLES, seed: int = 0) -> Floats:
    """(count, images): how often each picture was drawn; each row sums to `images`."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), size=count).astype(np.float64)


@dataclass(frozen=True)
class Estimate:
    """A figure with its percentile bootstrap interval, in which the true one lies with the chance CONFIDENCE."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Delta:
    """How far a model's figure is from the first one's: `better` and `worse` only where the interval of the paired
    difference leaves out 0."""

    value: float
    low: float
    high: float
    verdict: Verdict


def estimate(value: float, resampled_R: Floats) -> Estimate | None:
    """None where the figure is not defined."""
    if np.isnan(value):
        return None
    return Estimate(float(value), *_interval(resampled_R))


def delta(name: str, pictures: int, first: tuple[float, Floats], other: tuple[float, Floats]) -> Delta | None:
    """`other` less `first`, each the figure and its resamples (the same ones); `pictures`: how many it rests on."""
    value = other[0] - first[0]
    if np.isnan(value):
        return None
    low, high = _interval(other[1] - first[1])
    gain = (-high, -low) if name in LOWER_IS_BETTER else (low, high)
    verdict: Verdict = "better" if gain[0] > 0 else "worse" if gain[1] < 0 else "undecided"
    return Delta(float(value), low, high, verdict if pictures >= FEWEST_PICTURES else "too_few")


def _interval(resampled_R: Floats) -> tuple[float, float]:
    outside = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled_R[~np.isnan(resampled_R)], (outside, 1 - outside)).tolist()
    return low, high


class DetectionFigures:
    """A detector's figures on one split; notes are found from the score `threshold` on, or each class from its own."""

    def __init__(self, seen: Seen, threshold: float | Floats) -> None:
        self.seen, self.classes = seen, seen.classes
        self.images = images = len(seen.names)
        count = len(self.classes)
        found, truth = xywh(seen.found), xywh(seen.truth)
        threshold_C = np.broadcast_to(np.asarray(threshold, np.float64), (count,))
        pairs = overlaps(found, truth, MATCH_IOU)
        pairs = pairs.where(found.labels_N[pairs.first_K] == truth.labels_N[pairs.second_K])
        self.right_TN: npt.NDArray[np.bool_] = np.zeros((len(IOUS), len(found)), np.bool_)
        for row, iou in enumerate(IOUS):
            match_N, iou_N = match(pairs.where(pairs.iou_K >= iou), found.scores_N)
            self.right_TN[row] = match_N >= 0
            if row == 0:
                self.match_N, self.iou_N = match_N, iou_N
        self.kept_N = found.scores_N >= threshold_C[found.labels_N]
        right_kept_N = self.right_TN[0] & self.kept_N

        def per_picture(objects: Objects) -> Floats:
            cell_N = objects.image_N * count + objects.labels_N
            return np.bincount(cell_N, minlength=images * count).reshape(images, count).astype(np.float64)

        self.support_IC = per_picture(truth)
        self._found_IC = per_picture(found.where(self.kept_N))
        self._right_IC = per_picture(found.where(right_kept_N))
        self._iou_I = np.bincount(
            found.image_N[right_kept_N], weights=self.iou_N[right_kept_N], minlength=images
        )
        self.exact_I, self.sum_I = exact_pictures(
            found.where(self.kept_N), truth, images, values_of(self.classes)
        )

    def figures(self, weights_RI: Floats) -> Figures:
        """The figures of the whole split."""
        return self.all_figures(weights_RI)[0]

    def all_figures(self, weights_RI: Floats) -> tuple[Figures, list[Figures]]:
        """The figures of the whole split, and those of each class."""
        support_RC, found_RC, right_RC = (
            weights_RI @ counts for counts in (self.support_IC, self._found_IC, self._right_IC)
        )
        ap_CRT = np.stack([self._average_precision(label, weights_RI) for label in range(len(self.classes))])
        total_R = weights_RI.sum(axis=1)
        whole = {
            "mAP50": _mean_defined(ap_CRT[..., 0]),
            "mAP75": _mean_defined(ap_CRT[..., 5]),
            "mAP50_95": _mean_defined(ap_CRT.mean(axis=2)),
            **_precision_recall_f1(right_RC.sum(1), found_RC.sum(1), support_RC.sum(1)),
            "mean_iou": _ratio(weights_RI @ self._iou_I, right_RC.sum(1)),
            "exact_count": weights_RI @ self.exact_I / total_R,
        }
        if self.sum_I is not None:
            whole["exact_sum"] = weights_RI @ self.sum_I / total_R
        of_classes = [
            {
                "ap50": ap_CRT[label, :, 0],
                "ap50_95": ap_CRT[label].mean(axis=1),
                **_precision_recall_f1(right_RC[:, label], found_RC[:, label], support_RC[:, label]),
            }
            for label in range(len(self.classes))
        ]
        return whole, of_classes

    def _average_precision(self, label: int, weights_RI: Floats) -> Floats:
        """COCO's AP of one class: (resamples, IoU thresholds), NaN where a resample has no such note.

        Precision matters only where a box is right: between two of those it falls, and the recall stays."""
        found = self.seen.found
        rows = np.flatnonzero(found.labels_N == label)
        rows = rows[np.argsort(-found.scores_N[rows], kind="stable")]
        right_TN = self.right_TN[:, rows]
        # beyond the last right one nothing counts; what is double at a low IoU may be right at a high one
        needed = int(np.flatnonzero(right_TN.any(axis=0)).max(initial=-1)) + 1
        rows, right_TN = rows[:needed], right_TN[:, :needed]
        support_R = weights_RI @ self.support_IC[:, label]
        ap_RT = np.zeros((len(weights_RI), len(IOUS)))
        step = max(1, _CHUNK // max(1, needed))
        for first in range(0, len(weights_RI), step):
            part = slice(first, first + step)
            weight_RN = weights_RI[part][:, found.image_N[rows]]
            total_RN = weight_RN.cumsum(axis=1)
            for threshold, right_N in enumerate(right_TN):
                right_RK = weight_RN[:, right_N].cumsum(axis=1)
                ap_RT[part, threshold] = _interpolated(right_RK, total_RN[:, right_N], support_R[part])
        ap_RT[support_R == 0] = np.nan
        return ap_RT


class ClassificationFigures:
    """A classifier's figures on one split."""

    def __init__(self, seen: Seen) -> None:
        self.seen, self.classes = seen, seen.classes
        self.images, count = len(seen.names), len(seen.classes)
        probabilities_IC, self.labels_I = seen.probabilities_IC, seen.truth.labels_N
        picture_I = np.arange(self.images)
        order_IC = np.argsort(-probabilities_IC, axis=1, kind="stable")
        self.predicted_I: Ints = order_IC[:, 0]
        self.right_I = self.predicted_I == self.labels_I
        self.confidence_I: Floats = probabilities_IC[picture_I, self.predicted_I]
        self.top5_I = (order_IC[:, :5] == self.labels_I[:, None]).any(axis=1)
        self.loss_I = -np.log(np.maximum(probabilities_IC[picture_I, self.labels_I], 1e-12))
        one_hot = np.eye(count)
        self.support_IC, self._found_IC = one_hot[self.labels_I], one_hot[self.predicted_I]
        self._right_IC = self.support_IC * self._found_IC
        bin_I = np.clip(np.ceil(self.confidence_I * CALIBRATION_BINS).astype(int) - 1, 0, None)
        self._gap_IB = np.eye(CALIBRATION_BINS)[bin_I] * (self.confidence_I - self.right_I)[:, None]

    def figures(self, weights_RI: Floats) -> Figures:
        """The figures of the whole split."""
        return self.all_figures(weights_RI)[0]

    def all_figures(self, weights_RI: Floats) -> tuple[Figures, list[Figures]]:
        """The figures of the whole split, and those of each class. The loss is the mean cross entropy."""
        support_RC, found_RC, right_RC = (
            weights_RI @ counts for counts in (self.support_IC, self._found_IC, self._right_IC)
        )
        total_R = weights_RI.sum(axis=1)
        of_classes = [
            _precision_recall_f1(right_RC[:, label], found_RC[:, label], support_RC[:, label])
            for label in range(len(self.classes))
        ]
        present_CR = support_RC.T > 0  # the means are over the classes that occur in the truth
        means = {
            name: _mean_defined(
                np.where(present_CR, np.stack([figures[name] for figures in of_classes]), np.nan)
            )
            for name in ("precision", "recall", "f1")
        }
        whole = {"accuracy": weights_RI @ self.right_I / total_R}
        if len(self.classes) > 5:
            whole["accuracy_top5"] = weights_RI @ self.top5_I / total_R
        ece_R = np.abs(weights_RI @ self._gap_IB).sum(axis=1) / total_R
        return {**whole, **means, "ece": ece_R, "loss": weights_RI @ self.loss_I / total_R}, of_classes


Judged = DetectionFigures | ClassificationFigures


def judged_by(seen: Seen) -> Judged:
    """A model's figures, a detector's at the threshold that was chosen for it on the validation pictures."""
    return DetectionFigures(seen, seen.threshold) if seen.task == "detect" else ClassificationFigures(seen)


def xywh(objects: Objects) -> Objects:
    """The same rows with their boxes as `metrics` takes them."""
    boxes_N4 = objects.boxes_N4.copy()
    boxes_N4[:, 2:] -= boxes_N4[:, :2]
    return replace(objects, boxes_N4=boxes_N4)


def _interpolated(right_RK: Floats, total_RK: Floats, support_R: Floats) -> Floats:
    """The mean over COCO's 101 recalls of the best precision at that recall or beyond.

    At each right box: the weight of right ones and of all so far. A recall belongs to the first box that reaches it,
    so each box's precision counts as often as it reaches further recalls than the one before."""
    if not right_RK.shape[1]:
        return np.zeros(len(right_RK))
    precision_RK = right_RK / np.maximum(total_RK, 1)
    best_RK = np.maximum.accumulate(precision_RK[:, ::-1], axis=1)[:, ::-1]
    reached_RK = np.searchsorted(RECALLS, right_RK / np.maximum(support_R, 1)[:, None], side="right")
    new_RK = np.diff(reached_RK, axis=1, prepend=0)
    mean_R: Floats = (new_RK * best_RK).sum(axis=1) / len(RECALLS)
    return mean_R


def _precision_recall_f1(right_R: Floats, found_R: Floats, support_R: Floats) -> Figures:
    """As `metrics` defines them: without support only the precision of false finds (0) is."""
    there_R = support_R > 0
    undefined_R = ~there_R & (found_R == 0)
    return {
        "precision": np.where(undefined_R, np.nan, right_R / np.maximum(found_R, 1)),
        "recall": np.where(there_R, right_R / np.maximum(support_R, 1), np.nan),
        "f1": np.where(there_R, 2 * right_R / np.maximum(found_R + support_R, 1), np.nan),
    }


def _ratio(numerator_R: Floats, denominator_R: Floats) -> Floats:
    return np.where(denominator_R > 0, numerator_R / np.maximum(denominator_R, 1), np.nan)


def _mean_defined(figures_CR: Floats) -> Floats:
    """Over the classes that are defined, NaN where none is."""
    defined_CR = ~np.isnan(figures_CR)
    return _ratio(np.where(defined_CR, figures_CR, 0).sum(axis=0), defined_CR.sum(axis=0).astype(np.float64))
