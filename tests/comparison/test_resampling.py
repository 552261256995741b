"""Figures and their intervals against references: hotcoco, pycocotools, scipy (D6, D14)."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from answers import classified, detected
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.stats import bootstrap

from smartcash.backend.metrics import ClassificationMetrics, DetectionMetrics
from smartcash.backend.resampling import (
    ClassificationFigures,
    DetectionFigures,
    delta,
    estimate,
    judged_by,
    resamples,
)
from smartcash.backend.seen import Seen


def once(images: int) -> np.ndarray:
    return np.ones((1, images))


def evaluated(seen: Seen) -> DetectionMetrics:
    """The same answers, given to the metrics of training and evaluation."""
    metrics = DetectionMetrics(seen.classes)
    for index in range(len(seen.names)):
        found, truth = seen.of_picture(index)
        metrics.update((found.boxes_N4, found.scores_N, found.labels_N), (truth.boxes_N4, truth.labels_N))
    return metrics


@pytest.mark.parametrize("seed", range(4))
def test_when_every_picture_counts_once_the_figures_are_those_of_an_evaluation(seed: int) -> None:
    """D6: detection, all figures and all classes."""
    seen = detected(seed)
    result = evaluated(seen).compute(threshold=seen.threshold)
    whole, classes = DetectionFigures(seen, seen.threshold).all_figures(once(30))
    assert {name: float(value[0]) for name, value in whole.items()} == pytest.approx(
        {name: getattr(result, name) for name in whole}, abs=1e-9
    )
    assert {"mAP50", "mAP50_95", "exact_sum", "f1", "mean_iou"} <= set(whole)
    for figures, row in zip(classes, result.classes, strict=True):
        for name, value in figures.items():
            assert float(value[0]) == pytest.approx(getattr(row, name), abs=1e-9), (row.name, name)


def test_a_class_without_a_note_has_no_figures_and_does_not_count_in_the_mean() -> None:
    """D6."""
    seen = detected(0, classes=("1000", "2000", "5000")).with_classes(("1000", "2000", "5000", "10000"))
    result = evaluated(seen).compute(threshold=seen.threshold)
    whole, classes = DetectionFigures(seen, seen.threshold).all_figures(once(30))
    assert float(whole["mAP50"][0]) == pytest.approx(result.mAP50, abs=1e-9)
    assert all(np.isnan(values[0]) for values in classes[3].values())
    assert estimate(float("nan"), np.array([np.nan])) is None


@pytest.mark.parametrize("seed", range(2))
def test_when_every_picture_counts_once_a_classifiers_figures_are_those_of_an_evaluation(seed: int) -> None:
    """D6."""
    seen = classified(seed)
    metrics = ClassificationMetrics(seen.classes)
    metrics.update(seen.probabilities_IC, seen.truth.labels_N, probabilities=True)
    result = metrics.compute()
    whole = ClassificationFigures(seen).figures(once(60))
    named = {name: float(value[0]) for name, value in whole.items() if name != "loss"}
    assert named == pytest.approx({name: getattr(result, name) for name in named}, abs=1e-9)
    expected = -np.log(seen.probabilities_IC[np.arange(60), seen.truth.labels_N]).mean()
    assert float(whole["loss"][0]) == pytest.approx(expected)


def coco_map(seen: Seen, pictures: np.ndarray) -> tuple[float, float]:
    """mAP50-95 and mAP50 by pycocotools for these pictures, one that was drawn twice being there twice."""
    images, annotations, results = [], [], []
    for position, index in enumerate(pictures.tolist(), 1):
        found, truth = seen.of_picture(index)
        images.append({"id": position, "width": 500, "height": 500})
        for box, label in zip(truth.boxes_N4, truth.labels_N.tolist()):
            xywh = [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": position, "category_id": label, "bbox": xywh,
                 "area": xywh[2] * xywh[3], "iscrowd": 0}
            )  # fmt: skip
        for box, label, score in zip(found.boxes_N4, found.labels_N.tolist(), found.scores_N.tolist()):
            xywh = [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]
            results.append({"image_id": position, "category_id": label, "bbox": xywh, "score": score})
    categories = [{"id": label, "name": name} for label, name in enumerate(seen.classes)]
    with contextlib.redirect_stdout(io.StringIO()):
        truth_set = COCO()
        truth_set.dataset = {"images": images, "annotations": annotations, "categories": categories}
        truth_set.createIndex()
        evaluation = COCOeval(truth_set, truth_set.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[1])


def test_map_of_every_resample_is_what_pycocotools_says_of_the_drawn_pictures() -> None:
    """D6: nothing is matched anew, and yet no figure differs."""
    seen, weights_RI = detected(3), resamples(30, 25)
    figures = DetectionFigures(seen, seen.threshold).figures(weights_RI)
    for row, weights_I in enumerate(weights_RI.astype(int)):
        whole, at_50 = coco_map(seen, np.repeat(np.arange(30), weights_I))
        assert figures["mAP50_95"][row] == pytest.approx(whole, abs=1e-9)
        assert figures["mAP50"][row] == pytest.approx(at_50, abs=1e-9)


def test_a_large_split_in_pieces_gives_the_same_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """D6."""
    seen, weights_RI = detected(2), resamples(30, 50)
    whole = DetectionFigures(seen, 0.4).figures(weights_RI)
    monkeypatch.setattr("smartcash.backend.resampling._CHUNK", 100)
    pieces = DetectionFigures(seen, 0.4).figures(weights_RI)
    for name, values in whole.items():
        np.testing.assert_array_equal(values, pieces[name])


def test_intervals_are_those_of_scipy() -> None:
    """D6: exact sum (a mean), F1 (a ratio of sums) and accuracy, each against scipy's percentile bootstrap. The two
    draw differently, so the ends may differ by what 1000 resamples leave open."""
    seen = detected(5, images=80)
    judged = DetectionFigures(seen, seen.threshold)
    now, drawn = judged.figures(once(80)), judged.figures(resamples(80))
    assert judged.sum_I is not None
    right, found, support = (
        counts.sum(axis=1) for counts in (judged._right_IC, judged._found_IC, judged.support_IC)
    )

    def f1(right: np.ndarray, found: np.ndarray, support: np.ndarray, axis: int = -1) -> np.ndarray:
        return 2 * right.sum(axis=axis) / (found.sum(axis=axis) + support.sum(axis=axis))

    labels = classified(5)
    classifier = ClassificationFigures(labels)
    how = {"method": "percentile", "n_resamples": 4000, "rng": np.random.default_rng(7)}
    references = {
        "exact_sum": bootstrap((judged.sum_I.astype(float),), np.mean, **how),
        "f1": bootstrap((right, found, support), f1, paired=True, **how),
        "accuracy": bootstrap((classifier.right_I.astype(float),), np.mean, **how),
    }
    ours = {name: estimate(float(now[name][0]), drawn[name]) for name in ("exact_sum", "f1")}
    accuracy = (classifier.figures(weights)["accuracy"] for weights in (once(60), resamples(60)))
    ours["accuracy"] = estimate(float(next(accuracy)[0]), next(accuracy))
    for name, reference in references.items():
        own = ours[name]
        assert own is not None
        assert own.low <= own.value <= own.high
        width = reference.confidence_interval.high - reference.confidence_interval.low
        assert own.low == pytest.approx(reference.confidence_interval.low, abs=0.12 * width), name
        assert own.high == pytest.approx(reference.confidence_interval.high, abs=0.12 * width), name


def test_a_model_is_neither_better_nor_worse_than_itself() -> None:
    """D6."""
    judged = judged_by(detected(1))
    now, drawn = judged.figures(once(30)), judged.figures(resamples(30))
    for name in now:
        side = (float(now[name][0]), drawn[name])
        same = delta(name, 30, side, side)
        assert same is not None
        assert (same.value, same.low, same.high, same.verdict) == (0, 0, 0, "undecided")


def test_better_is_said_where_the_paired_interval_leaves_out_zero_and_a_lower_loss_is_better() -> None:
    """D6."""
    weak, strong = (judged_by(classified(3, 200, sharpness=each)) for each in (1.0, 3.0))
    drawn = resamples(200)
    for name in ("accuracy", "f1", "loss"):
        sides = [
            (float(each.figures(once(200))[name][0]), each.figures(drawn)[name]) for each in (weak, strong)
        ]
        forth, back = delta(name, 200, *sides), delta(name, 200, *reversed(sides))
        assert forth is not None
        assert back is not None
        assert (forth.verdict, back.verdict) == ("better", "worse")
        assert (forth.value < 0) == (name == "loss")
        assert forth.value == pytest.approx(-back.value)


def test_of_equally_good_models_few_are_called_better_or_worse() -> None:
    """D6: the promise of 95 % holds on average (within the noise of 200 pairs)."""
    said = []
    for seed in range(200):
        sides = []
        for each in (2 * seed + 10, 2 * seed + 11):
            judged = judged_by(classified(each, 80))
            figures = judged.figures(np.concatenate([once(80), resamples(80, 300)]))["accuracy"]
            sides.append((float(figures[0]), figures[1:]))
        difference = delta("accuracy", 80, *sides)
        assert difference is not None
        said.append(difference.verdict != "undecided")
    assert 0 < sum(said) <= 24  # 10 expected; 24 has a chance of less than 1 in 10,000


def test_a_few_pictures_prove_nothing() -> None:
    """D6."""
    sides = [(0.2, np.full(1000, 0.2)), (0.9, np.full(1000, 0.9))]
    few, enough = delta("f1", 9, *sides), delta("f1", 10, *sides)
    assert few is not None
    assert enough is not None
    assert (few.verdict, enough.verdict) == ("too_few", "better")
