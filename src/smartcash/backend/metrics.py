"""What a model is worth: figures for detection and classification from plain arrays.

Both collectors work alike: `update` after every image or batch, `compute` at the end; no torch in here.
Boxes are xyxy in pixels, labels are indices into `classes`. A figure that is not defined (an AP without any
truth, a recall without support) is None and never NaN.

Detection follows COCO (101-point interpolated AP, at most 100 boxes per image and class, mean over the
classes that occur in the truth), computed by hotcoco straight from arrays. Around it:

- *threshold*: the score at which F1 of all classes together is best, half-way down to the next lower score,
  so that it does not sit on a single detection. On the test set pass the validation set's:
  `compute(threshold=…)`.
- *precision, recall, F1, mean IoU, confusion* at that threshold and IoU 0.5. Matching is COCO's: in score
  order every box takes the free truth that it overlaps most.
- *exact_sum*: the share of images whose total in Rupiah is counted exactly, and *exact_count*: the share in
  which every class is counted exactly; both at the threshold, after suppressing boxes of any class that
  overlap a better one by IoU 0.7, so that no note is counted twice. `domain.banknotes` says what a class is
  worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from hotcoco import COCO, COCOeval, Params
from hotcoco.primitives import bbox_iou

from smartcash.domain.banknotes import values_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Predictions = tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike]
Truths = tuple[npt.ArrayLike, npt.ArrayLike]

MATCH_IOU = 0.5
SAME_NOTE_IOU = 0.7
MAX_DETECTIONS = 100
CALIBRATION_BINS = 15
UNKNOWN_THRESHOLD = 0.5  # where nothing was found right, no score is better than another


# ---------------------------------------------------------------- results


@dataclass(frozen=True)
class ClassDetection:
    """One class of a detection result; precision, recall and F1 at the result's threshold."""

    name: str
    value: int | None
    support: int
    ap50: float | None
    ap50_95: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    best_threshold: float | None
    best_f1: float | None


@dataclass(frozen=True)
class DetectionResult:
    """All figures of a detector on one set. `confusion[truth][predicted]`, background last in both."""

    images: int
    support: int
    mAP50: float | None
    mAP75: float | None
    mAP50_95: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    threshold: float
    best_threshold: float
    mean_iou: float | None
    exact_count: float | None
    exact_sum: float | None
    classes: tuple[ClassDetection, ...]
    confusion: tuple[tuple[int, ...], ...]

    def scalars(self) -> dict[str, float]:
        """The defined figures for the epoch log; without a class worth money there is no `exact_sum`."""
        names = ("mAP50", "mAP75", "mAP50_95", "precision", "recall", "f1", "threshold", "mean_iou")
        return _defined(self, (*names, "exact_count", "exact_sum"))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; undefined figures are None; `exact_sum` is left out where no class is worth money."""
        return _without_missing(asdict(self), "exact_sum")


@dataclass(frozen=True)
class ClassClassification:
    """One class of a classification result."""

    name: str
    value: int | None
    support: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class ClassificationResult:
    """All figures of a classifier on one set. `confusion[truth][predicted]`; precision, recall and F1 are
    means over the classes that occur in the truth; `ece` is the expected calibration error."""

    images: int
    accuracy: float | None
    accuracy_top5: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    ece: float | None
    loss: float | None
    classes: tuple[ClassClassification, ...]
    confusion: tuple[tuple[int, ...], ...]

    def scalars(self) -> dict[str, float]:
        """The defined figures for the epoch log."""
        return _defined(self, ("accuracy", "accuracy_top5", "precision", "recall", "f1", "ece", "loss"))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; undefined figures are None, and `accuracy_top5` is left out below six classes."""
        return _without_missing(asdict(self), "accuracy_top5")


def _defined(result: object, names: tuple[str, ...]) -> dict[str, float]:
    figures = {name: getattr(result, name) for name in names}
    return {name: figure for name, figure in figures.items() if figure is not None}


def _without_missing(facts: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: fact for key, fact in facts.items() if key != name or fact is not None}


# ---------------------------------------------------------------- detection


@dataclass(frozen=True)
class Objects:
    """The boxes of all images in one table; a row is an image index, xywh box (COCO's form), label, score."""

    image_N: Ints
    boxes_N4: Floats
    labels_N: Ints
    scores_N: Floats

    def where(self, chosen_N: npt.NDArray[Any]) -> Objects:
        """The chosen rows (a mask or indices)."""
        return Objects(
            self.image_N[chosen_N], self.boxes_N4[chosen_N], self.labels_N[chosen_N], self.scores_N[chosen_N]
        )

    def __len__(self) -> int:
        return len(self.image_N)


@dataclass(frozen=True)
class Pairs:
    """Overlapping boxes of two tables in the same image: row in the first, row in the second, their IoU."""

    first_K: Ints
    second_K: Ints
    iou_K: Floats

    def where(self, chosen_K: npt.NDArray[np.bool_]) -> Pairs:
        return Pairs(self.first_K[chosen_K], self.second_K[chosen_K], self.iou_K[chosen_K])


class DetectionMetrics:
    """Collects the predictions and truths of a set, image by image, and judges them together."""

    def __init__(self, classes: Sequence[str]) -> None:
        if not classes:
            raise ValueError("DetectionMetrics needs at least one class")
        self.classes = tuple(classes)
        self._predictions: list[tuple[Floats, Ints, Floats]] = []
        self._truths: list[tuple[Floats, Ints, Floats]] = []

    def __len__(self) -> int:
        """The number of images so far."""
        return len(self._truths)

    def update(self, predictions: Predictions, truths: Truths) -> None:
        """Add one image: `(boxes_N4, scores_N, labels_N)` and `(boxes_M4, labels_M)`, each may be empty.

        Raises ValueError for shapes that do not fit, values that are not finite, boxes that are not xyxy and
        labels that are no index into `classes`; the image is then not counted.
        """
        predicted = self._checked("predictions", *predictions)
        boxes, labels = truths
        true = self._checked("truths", boxes, np.ones(np.shape(labels)), labels)
        self._predictions.append(predicted)
        self._truths.append(true)

    def merge(self, other: DetectionMetrics) -> None:
        """Add the images that another process has collected."""
        if other.classes != self.classes:
            raise ValueError(f"classes differ: {self.classes} and {other.classes}")
        self._predictions += other._predictions
        self._truths += other._truths

    def compute(self, threshold: float | None = None) -> DetectionResult:
        """The figures of all images so far, at the given score threshold (None: the best on this set)."""
        predictions, truths = _table(self._predictions), _table(self._truths)
        images, count = len(self), len(self.classes)
        support_C = np.bincount(truths.labels_N, minlength=count)
        ap_TC = _average_precision(predictions, truths, images, count)

        pairs = overlaps(predictions, truths, MATCH_IOU)
        same_class = predictions.labels_N[pairs.first_K] == truths.labels_N[pairs.second_K]
        match_N, iou_N = match(pairs.where(same_class), predictions.scores_N)
        right_N = match_N >= 0

        best, _ = best_threshold(predictions.scores_N, right_N, len(truths))
        at = best if threshold is None else float(threshold)
        kept_N = predictions.scores_N >= at
        right_kept_N = right_N & kept_N

        values = values_of(self.classes)
        rows = []
        for index, name in enumerate(self.classes):
            of_class_N = predictions.labels_N == index
            support = int(support_C[index])
            class_best, class_f1 = best_threshold(
                predictions.scores_N[of_class_N], right_N[of_class_N], support
            )
            found, right = int((kept_N & of_class_N).sum()), int((right_kept_N & of_class_N).sum())
            rows.append(
                ClassDetection(
                    name,
                    values[index],
                    support,
                    _mean(ap_TC[0, index : index + 1]),
                    _mean(ap_TC[:, index]),
                    *_precision_recall_f1(right, found, support),
                    class_best if support else None,
                    class_f1 if support else None,
                )
            )

        exact_count, exact_sum = _exactness(predictions.where(kept_N), truths, images, values)
        return DetectionResult(
            images,
            len(truths),
            _mean(ap_TC[0]),
            _mean(ap_TC[5]),
            _mean(ap_TC),
            *_precision_recall_f1(int(right_kept_N.sum()), int(kept_N.sum()), len(truths)),
            at,
            best,
            _mean(iou_N[right_kept_N]),
            exact_count,
            exact_sum,
            tuple(rows),
            _confusion(predictions, truths, pairs, kept_N, count),
        )

    def _checked(
        self, what: str, boxes: npt.ArrayLike, scores: npt.ArrayLike, labels: npt.ArrayLike
    ) -> tuple[Floats, Ints, Floats]:
        """Boxes as xywh, labels and scores of one image, or ValueError."""
        scores_N = np.array(scores, np.float64)
        boxes_N4 = np.array(boxes, np.float64).reshape(-1, 4)
        labels_N = np.array(labels)
        if scores_N.ndim != 1 or not len(boxes_N4) == len(scores_N) == labels_N.size or labels_N.ndim != 1:
            raise ValueError(
                f"{what}: {boxes_N4.shape} boxes, {scores_N.shape} scores, {labels_N.shape} labels do not fit"
            )
        if not len(boxes_N4):
            return boxes_N4, np.zeros(0, np.int64), scores_N
        if not np.isfinite(scores_N).all() or not np.isfinite(boxes_N4).all():
            raise ValueError(f"{what}: a box or score is not a finite number")
        boxes_N4[:, 2:] -= boxes_N4[:, :2]
        if boxes_N4[:, 2:].min() < 0:
            raise ValueError(f"{what}: a box ends before it begins; boxes are xyxy")
        if labels_N.dtype.kind not in "iu" or labels_N.min() < 0 or labels_N.max() >= len(self.classes):
            raise ValueError(f"{what}: labels must be whole numbers from 0 to {len(self.classes) - 1}")
        return boxes_N4, labels_N.astype(np.int64), scores_N


def _table(per_image: list[tuple[Floats, Ints, Floats]]) -> Objects:
    if not per_image:
        return Objects(np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0))
    boxes, labels, scores = zip(*per_image)
    image_N = np.repeat(np.arange(len(per_image)), [len(one) for one in labels])
    return Objects(image_N, np.concatenate(boxes), np.concatenate(labels), np.concatenate(scores))


def _average_precision(predictions: Objects, truths: Objects, images: int, classes: int) -> Floats:
    """COCO's AP for the IoU thresholds 0.50, 0.55 … 0.95: (10, classes), NaN for classes without truth."""
    if not len(truths):
        return np.full((10, classes), np.nan)
    truth = COCO.from_arrays(
        [{"id": index, "width": 1, "height": 1} for index in range(images)],
        [{"id": index, "name": str(index)} for index in range(classes)],
        truths.image_N,
        truths.labels_N,
        truths.boxes_N4,
    )
    found = np.column_stack(
        (predictions.image_N, predictions.boxes_N4, predictions.scores_N, predictions.labels_N)
    )
    evaluation = COCOeval(truth, truth.load_res(found), "bbox")
    params = Params(iou_type="bbox")
    params.max_dets = [MAX_DETECTIONS]
    params.area_rng, params.area_rng_lbl = [[0, 1e10]], ["all"]
    evaluation.params = params
    evaluation.evaluate()
    evaluation.accumulate()
    curves: dict[str, Floats] = evaluation.eval or {}
    ap_TC = curves["precision"][..., 0, 0].mean(axis=1)  # from (threshold, recall, class, area, max_dets)
    has_truth_C = np.bincount(truths.labels_N, minlength=classes) > 0
    return np.where(has_truth_C, ap_TC, np.nan)


def overlaps(first: Objects, second: Objects, min_iou: float) -> Pairs:
    """All pairs of the same image with at least `min_iou`."""
    both = np.intersect1d(first.image_N, second.image_N)
    parts = []
    for begin, end, from_, to in zip(
        np.searchsorted(first.image_N, both, "left"),
        np.searchsorted(first.image_N, both, "right"),
        np.searchsorted(second.image_N, both, "left"),
        np.searchsorted(second.image_N, both, "right"),
    ):
        iou_AB = bbox_iou(
            first.boxes_N4[begin:end], second.boxes_N4[from_:to], np.zeros(to - from_, np.bool_)
        )
        rows, columns = np.nonzero(iou_AB >= min_iou)
        parts.append((rows + begin, columns + from_, iou_AB[rows, columns]))
    if not parts:
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    return Pairs(*(np.concatenate(column) for column in zip(*parts)))


def match(pairs: Pairs, scores_N: Floats) -> tuple[Ints, Floats]:
    """COCO's greedy matching: the matched truth (or −1) and the IoU with it, for every prediction."""
    match_N = np.full(len(scores_N), -1)
    iou_N = np.zeros(len(scores_N))
    taken: set[int] = set()
    order = np.lexsort((-pairs.iou_K, pairs.first_K, -scores_N[pairs.first_K]))
    done = -1
    for row, truth, iou in zip(
        pairs.first_K[order].tolist(), pairs.second_K[order].tolist(), pairs.iou_K[order].tolist()
    ):
        if row != done and truth not in taken:
            match_N[row], iou_N[row], done = truth, iou, row
            taken.add(truth)
    return match_N, iou_N


def best_threshold(scores_N: Floats, right_N: npt.NDArray[np.bool_], support: int) -> tuple[float, float]:
    """The score threshold with the best F1, and that F1."""
    if not right_N.any():
        return UNKNOWN_THRESHOLD, 0.0
    order = np.argsort(-scores_N, kind="stable")
    score_N = scores_N[order]
    last_of_equals_N = np.append(score_N[1:] < score_N[:-1], True)
    f1_N = 2 * np.cumsum(right_N[order]) / (np.arange(1, len(order) + 1) + support)
    best = int(np.argmax(np.where(last_of_equals_N, f1_N, -1)))
    lowest_kept = float(score_N[best])
    next_lower = float(score_N[best + 1]) if best + 1 < len(score_N) else 0.0
    middle = (lowest_kept + next_lower) / 2
    return (middle if middle > next_lower else lowest_kept), float(f1_N[best])


def _confusion(
    predictions: Objects, truths: Objects, pairs: Pairs, kept_N: npt.NDArray[np.bool_], classes: int
) -> tuple[tuple[int, ...], ...]:
    """Counts by (truth, predicted), matched whatever the class; index `classes` is the background."""
    match_N, _ = match(pairs.where(kept_N[pairs.first_K]), predictions.scores_N)
    missed_M = np.ones(len(truths), np.bool_)
    missed_M[match_N[match_N >= 0]] = False
    truth_N = np.append(truths.labels_N, classes)[match_N]  # −1, unmatched, is the last: background
    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    np.add.at(matrix, (truth_N[kept_N], predictions.labels_N[kept_N]), 1)
    matrix[:classes, classes] = np.bincount(truths.labels_N[missed_M], minlength=classes)
    return tuple(map(tuple, matrix.tolist()))


def _exactness(
    kept: Objects, truths: Objects, images: int, values: Sequence[int | None]
) -> tuple[float | None, float | None]:
    """The shares of images with every class, and with the sum in Rupiah, counted exactly."""
    if not images:
        return None, None
    count_I, sum_I = exact_pictures(kept, truths, images, values)
    return float(count_I.mean()), None if sum_I is None else float(sum_I.mean())


def exact_pictures(
    kept: Objects, truths: Objects, images: int, values: Sequence[int | None]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_] | None]:
    """In which images every class, and the sum in Rupiah, is counted exactly (None: no class is worth money)."""
    once = kept.where(once_each(kept))

    def counts(objects: Objects) -> Ints:
        flat = np.bincount(objects.image_N * len(values) + objects.labels_N, minlength=images * len(values))
        return flat.reshape(images, len(values))

    difference_IC = counts(once) - counts(truths)
    exact_I = (difference_IC == 0).all(axis=1)
    if all(value is None for value in values):
        return exact_I, None
    worth_C = np.array([value or 0 for value in values], np.int64)
    return exact_I, difference_IC @ worth_C == 0


def once_each(objects: Objects) -> npt.NDArray[np.bool_]:
    """Non-maximum suppression whatever the class: which rows stay."""
    rank_N = np.empty(len(objects), np.int64)
    rank_N[np.argsort(-objects.scores_N, kind="stable")] = np.arange(len(objects))
    pairs = overlaps(objects, objects, SAME_NOTE_IOU)
    downward = pairs.where(rank_N[pairs.first_K] < rank_N[pairs.second_K])
    order = np.argsort(rank_N[downward.first_K], kind="stable")
    stays_N = np.ones(len(objects), np.bool_)
    for better, worse in zip(downward.first_K[order].tolist(), downward.second_K[order].tolist()):
        if stays_N[better]:
            stays_N[worse] = False
    return stays_N


# ---------------------------------------------------------------- classification


class ClassificationMetrics:
    """Collects the outputs of a classifier, batch by batch, and judges them together."""

    def __init__(self, classes: Sequence[str]) -> None:
        if not classes:
            raise ValueError("ClassificationMetrics needs at least one class")
        self.classes = tuple(classes)
        self._confusion_CC = np.zeros((len(classes), len(classes)), np.int64)
        self._in_top5 = 0
        self._bin_B3 = np.zeros((CALIBRATION_BINS, 3))  # count, sum of confidence, number right

    def __len__(self) -> int:
        """The number of images so far."""
        return int(self._confusion_CC.sum())

    def update(
        self, outputs_NC: npt.ArrayLike, labels_N: npt.ArrayLike, *, probabilities: bool = False
    ) -> None:
        """Add a batch of logits, or of probabilities if so marked; it may be empty.

        Raises ValueError for shapes that do not fit, outputs that are not finite, labels that are no index
        into `classes`, and probabilities that do not sum to one; the batch is then not counted.
        """
        outputs, labels = np.array(outputs_NC, np.float64), np.array(labels_N)
        count = len(self.classes)
        if outputs.ndim != 2 or outputs.shape[1] != count or labels.shape != outputs.shape[:1]:
            raise ValueError(f"{outputs.shape} outputs, {labels.shape} labels and {count} classes do not fit")
        if not len(labels):
            return
        if not np.isfinite(outputs).all():
            raise ValueError("an output is not a finite number")
        if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= count:
            raise ValueError(f"labels must be whole numbers from 0 to {count - 1}")
        if probabilities and (outputs.min() < 0 or np.abs(outputs.sum(axis=1) - 1).max() > 1e-2):
            raise ValueError("probabilities must be at least 0 and sum to one")
        if not probabilities:
            outputs = np.exp(outputs - outputs.max(axis=1, keepdims=True))
            outputs /= outputs.sum(axis=1, keepdims=True)

        order_NC = np.argsort(-outputs, axis=1, kind="stable")
        predicted_N = order_NC[:, 0]
        np.add.at(self._confusion_CC, (labels, predicted_N), 1)
        self._in_top5 += int((order_NC[:, :5] == labels[:, None]).any(axis=1).sum())
        confidence_N = outputs[np.arange(len(labels)), predicted_N]
        bin_N = np.clip(np.ceil(confidence_N * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
        facts_N3 = np.stack((np.ones(len(labels)), confidence_N, predicted_N == labels), axis=1)
        np.add.at(self._bin_B3, bin_N, facts_N3)

    def merge(self, other: ClassificationMetrics) -> None:
        """Add the batches that another process has collected."""
        if other.classes != self.classes:
            raise ValueError(f"classes differ: {self.classes} and {other.classes}")
        self._confusion_CC += other._confusion_CC
        self._in_top5 += other._in_top5
        self._bin_B3 += other._bin_B3

    def compute(self, loss: float | None = None) -> ClassificationResult:
        """The figures of all batches so far; `loss` is the caller's mean loss, carried along.

        The expected calibration error is Guo et al. 2017, eq. 3, over 15 bins of equal width.
        """
        images, matrix = len(self), self._confusion_CC
        rows = [
            ClassClassification(
                name,
                value,
                int(matrix[index].sum()),
                *_precision_recall_f1(
                    int(matrix[index, index]), int(matrix[:, index].sum()), int(matrix[index].sum())
                ),
            )
            for index, (name, value) in enumerate(zip(self.classes, values_of(self.classes)))
        ]
        present = [row for row in rows if row.support]
        has_top5 = images and len(self.classes) > 5
        return ClassificationResult(
            images,
            float(np.trace(matrix) / images) if images else None,
            self._in_top5 / images if has_top5 else None,
            _mean([row.precision for row in present]),
            _mean([row.recall for row in present]),
            _mean([row.f1 for row in present]),
            float(np.abs(self._bin_B3[:, 1] - self._bin_B3[:, 2]).sum() / images) if images else None,
            loss,
            tuple(rows),
            tuple(map(tuple, matrix.tolist())),
        )


# ---------------------------------------------------------------- shared


def _precision_recall_f1(
    right: int, found: int, support: int
) -> tuple[float | None, float | None, float | None]:
    """Precision is 0 where nothing was found although there was something to find; without support only the
    precision of false finds (0) is defined."""
    if not support:
        return (0.0 if found else None), None, None
    return right / max(found, 1), right / support, 2 * right / (found + support)


def _mean(figures: Floats | Sequence[float | None]) -> float | None:
    """The mean of the defined figures (neither None nor NaN), or None."""
    array = np.asarray(figures, np.float64)
    defined = array[~np.isnan(array)]
    return float(defined.mean()) if defined.size else None
