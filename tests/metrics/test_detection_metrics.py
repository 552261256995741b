"""Detection figures (A10, D15, C7): COCO's own numbers, the threshold, and the exact sum."""

import contextlib
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from smartcash.backend.metrics import DetectionMetrics

NOTHING = ([], [], [])
NO_TRUTH = ([], [])


def random_set(seed, images, boxes, truths, classes, decimals=6):
    """Predictions and truths of `images` pictures; some of the pictures have no box, some no truth."""
    rng = np.random.default_rng(seed)
    pictures = []
    for _ in range(images):
        count = rng.integers(0, truths + 1)
        truth = rng.uniform(0, 400, (count, 4))
        truth[:, 2:] = truth[:, :2] + rng.uniform(5, 150, (count, 2))
        truth_labels = rng.integers(0, classes, count)
        found = rng.integers(0, boxes + 1)
        box = rng.uniform(0, 400, (found, 4))
        box[:, 2:] = box[:, :2] + rng.uniform(5, 150, (found, 2))
        labels = rng.integers(0, classes, found)
        if count and found:
            near = rng.random(found) < 0.8
            origin = rng.integers(0, count, found)
            shift = rng.normal(0, 1, (found, 4)) * rng.uniform(0, 15, (found, 1))
            box = np.where(near[:, None], truth[origin] + shift, box)
            box[:, 2:] = np.maximum(box[:, 2:], box[:, :2])  # a box without area is legal
            labels = np.where(near & (rng.random(found) < 0.8), truth_labels[origin], labels)
        scores = np.round(rng.random(found), decimals)
        pictures.append(((box, scores, labels), (truth, truth_labels)))
    return pictures


def judged(pictures, classes, threshold=None):
    metrics = DetectionMetrics(classes)
    for predictions, truths in pictures:
        metrics.update(predictions, truths)
    return metrics.compute(threshold)


def reference_ap(pictures, count):
    """pycocotools' AP by IoU threshold and class, (10, classes), NaN without truth."""

    def xywh(box):
        return [box[0], box[1], box[2] - box[0], box[3] - box[1]]

    truth = {
        "images": [{"id": image} for image in range(len(pictures))],
        "categories": [{"id": index} for index in range(count)],
        "annotations": [],
    }
    found = []
    for image, ((boxes, scores, labels), (truth_boxes, truth_labels)) in enumerate(pictures):
        for box, label in zip(truth_boxes, truth_labels):
            annotation = {"image_id": image, "category_id": int(label), "bbox": xywh(box), "iscrowd": 0}
            area = annotation["bbox"][2] * annotation["bbox"][3]
            truth["annotations"].append({"id": len(truth["annotations"]) + 1, "area": area, **annotation})
        found += [
            {"image_id": image, "category_id": int(label), "bbox": xywh(box), "score": float(score)}
            for box, score, label in zip(boxes, scores, labels)
        ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.params.maxDets = [100]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 0, 0]
    return np.where(precision[0, 0] < 0, np.nan, precision.mean(axis=1))


@pytest.mark.parametrize(
    ("images", "boxes", "truths", "classes", "decimals"),
    [
        (1, 5, 3, 1, 6),
        (30, 12, 6, 3, 6),
        (25, 20, 5, 7, 1),  # scores with one decimal: ties everywhere
        (40, 8, 3, 60, 6),  # most classes are rare, some absent
        (3, 400, 60, 1, 6),  # more boxes than COCO counts
        (20, 30, 1, 2, 6),  # many images without truth
    ],
)
def test_average_precision_is_that_of_pycocotools(images, boxes, truths, classes, decimals):
    for seed in range(3):
        pictures = random_set(seed + 1, images, boxes, truths, classes, decimals)
        if not sum(len(found[1]) for found, _ in pictures):
            continue  # pycocotools itself refuses an empty list of results
        expected = reference_ap(pictures, classes)
        result = judged(pictures, [f"name{index}" for index in range(classes)])
        for row, ap in zip(result.classes, expected.T):
            assert row.ap50 == (None if np.isnan(ap[0]) else pytest.approx(ap[0], abs=1e-9))
            assert row.ap50_95 == (None if np.isnan(ap[0]) else pytest.approx(ap.mean(), abs=1e-9))
        assert result.mAP50 == pytest.approx(np.nanmean(expected[0]), abs=1e-9)
        assert result.mAP75 == pytest.approx(np.nanmean(expected[5]), abs=1e-9)
        assert result.mAP50_95 == pytest.approx(np.nanmean(expected), abs=1e-9)


def test_nothing_is_printed(capfd):
    judged(random_set(0, 5, 5, 3, 2), ["a", "b"])
    assert capfd.readouterr() == ("", "")


# ---------------------------------------------------------------- worked by hand


def note(x, y=0.0, width=100.0, height=50.0):
    return [x, y, x + width, y + height]


def test_the_exact_sum_of_four_images_is_counted_by_hand():
    classes = ["1000", "50000"]
    pictures = [
        # right: one note of each; a weak false find stays below the threshold
        (([note(0), note(200), note(400)], [0.9, 0.8, 0.1], [0, 1, 1]), ([note(0), note(200)], [0, 1])),
        # wrong class: Rp50.000 instead of Rp1.000
        (([note(0)], [0.9], [1]), ([note(0)], [0])),
        # one note found twice, as both classes: counted once, as the better one
        (([note(0), note(2)], [0.9, 0.7], [1, 0]), ([note(0)], [1])),
        # background, nothing found
        (NOTHING, NO_TRUTH),
    ]
    result = judged(pictures, classes, threshold=0.5)
    assert result.exact_sum == 3 / 4
    assert result.exact_count == 3 / 4
    assert [row.value for row in result.classes] == [1_000, 50_000]


def test_errors_that_cancel_out_leave_the_sum_exact_but_not_the_count():
    found = ([note(0), note(200)], [0.9, 0.9], [0, 0])
    truth = ([note(0)], [1])
    result = judged([(found, truth)], ["1000", "2000"])
    assert (result.exact_sum, result.exact_count) == (1.0, 0.0)


def test_a_class_without_a_value_does_not_change_the_sum():
    found = ([note(0), note(200)], [0.9, 0.9], [0, 1])
    result = judged([(found, ([note(0)], [0]))], ["1000", "hand"])
    assert (result.exact_sum, result.exact_count) == (1.0, 0.0)


def test_a_threshold_from_the_validation_set_is_used_unchanged():
    pictures = [(([note(0), note(200)], [0.9, 0.3], [0, 0]), ([note(0), note(200)], [0, 0]))]
    assert judged(pictures, ["1000"]).exact_sum == 1.0
    strict = judged(pictures, ["1000"], threshold=0.5)
    assert (strict.threshold, strict.best_threshold) == (0.5, 0.15)
    assert (strict.exact_sum, strict.precision, strict.recall) == (0.0, 1.0, 0.5)
    assert strict.mAP50 == pytest.approx(1.0)  # AP needs no threshold


def test_without_a_class_worth_money_there_is_no_exact_sum():
    result = judged([(NOTHING, ([note(0)], [0]))], ["RBC", "WBC"])
    assert "exact_sum" not in result.scalars()
    assert "exact_sum" not in result.to_dict()
    assert result.scalars()["exact_count"] == 0.0


def test_the_best_threshold_lies_half_way_between_the_last_right_and_the_first_wrong_find():
    found = ([note(0), note(200), note(400), note(600)], [0.9, 0.6, 0.2, 0.1], [0, 0, 0, 0])
    result = judged([(found, ([note(0), note(200)], [0, 0]))], ["1000"])
    assert result.threshold == pytest.approx(0.4)
    assert (result.precision, result.recall, result.f1) == (1.0, 1.0, 1.0)
    assert result.classes[0].best_threshold == pytest.approx(0.4)


def test_each_class_has_its_own_best_threshold_beside_the_common_one():
    found = ([note(0), note(200), note(400), note(600)], [0.9, 0.8, 0.3, 0.25], [0, 0, 1, 0])
    truth = ([note(0), note(200), note(400)], [0, 0, 1])
    result = judged([(found, truth)], ["1000", "2000"])
    assert result.threshold == pytest.approx(0.275)
    assert [row.best_threshold for row in result.classes] == pytest.approx([0.525, 0.15])
    assert [row.best_f1 for row in result.classes] == [1.0, 1.0]


def test_precision_recall_and_f1_count_all_classes_together():
    # 3 truths; 2 finds kept at 0.5: one right, one of the wrong class
    found = ([note(0), note(200), note(400)], [0.9, 0.8, 0.1], [0, 0, 1])
    truth = ([note(0), note(200), note(400)], [0, 1, 1])
    result = judged([(found, truth)], ["1000", "2000"], threshold=0.5)
    assert (result.precision, result.recall, result.f1) == (1 / 2, 1 / 3, 2 / 5)
    first, second = result.classes
    assert (first.support, first.precision, first.recall) == (1, 1 / 2, 1.0)
    assert (second.support, second.precision, second.recall, second.f1) == (2, 0.0, 0.0, 0.0)


def test_the_confusion_matrix_shows_wrong_classes_misses_and_false_finds():
    found = ([note(0), note(200), note(600)], [0.9, 0.8, 0.7], [0, 0, 1])
    truth = ([note(0), note(200), note(400)], [0, 1, 1])
    result = judged([(found, truth)], ["1000", "2000"], threshold=0.5)
    assert result.confusion == ((1, 0, 0), (1, 0, 1), (0, 1, 0))


def test_mean_iou_is_that_of_the_right_boxes():
    found = ([note(0), [200, 0, 300, 40]], [0.9, 0.8], [0, 0])
    result = judged([(found, ([note(0), note(200)], [0, 0]))], ["1000"])
    assert result.mean_iou == pytest.approx((1.0 + 0.8) / 2)


def test_the_better_scored_of_two_boxes_takes_the_truth():
    found = ([[0, 0, 100, 40], note(0)], [0.9, 0.8], [0, 0])
    result = judged([(found, ([note(0)], [0]))], ["1000"], threshold=0.5)
    assert (result.precision, result.mean_iou) == (1 / 2, pytest.approx(0.8))
    assert result.exact_count == 1.0  # for the sum, the two are one note


# ---------------------------------------------------------------- empty and wrong


def test_no_image_at_all_defines_no_figure():
    result = DetectionMetrics(["1000"]).compute()
    assert result.scalars() == {"threshold": 0.5}
    json.dumps(result.to_dict(), allow_nan=False)


def test_no_predictions_at_all_are_worth_nothing_but_are_no_error():
    result = judged([(NOTHING, ([note(0)], [0])), (NOTHING, NO_TRUTH)], ["1000", "2000"])
    scalars = result.scalars()
    assert [scalars[key] for key in ("mAP50", "mAP50_95", "precision", "recall", "f1")] == [0.0] * 5
    assert (result.threshold, result.mean_iou, result.exact_sum) == (0.5, None, 0.5)
    assert result.classes[1].ap50 is None
    json.dumps(result.to_dict(), allow_nan=False)


def test_a_set_of_background_images_has_no_ap_but_an_exact_sum():
    result = judged([(([note(0)], [0.9], [0]), NO_TRUTH), (NOTHING, NO_TRUTH)], ["1000"])
    assert (result.mAP50, result.recall, result.f1) == (None, None, None)
    assert (result.precision, result.exact_sum) == (0.0, 0.5)


def test_a_class_with_no_truth_is_left_out_of_the_mean():
    found = ([note(0), note(200)], [0.9, 0.95], [0, 1])
    result = judged([(found, ([note(0)], [0]))], ["1000", "2000"])
    assert result.mAP50 == pytest.approx(1.0)
    absent = result.classes[1]
    assert (absent.ap50, absent.support, absent.recall, absent.best_threshold) == (None, 0, None, None)


@pytest.mark.parametrize(
    ("predictions", "truths", "message"),
    [
        (([note(0)], [float("nan")], [0]), NO_TRUTH, "finite"),
        (([[0, 0, float("inf"), 1]], [0.5], [0]), NO_TRUTH, "finite"),
        (([note(0)], [0.5, 0.6], [0]), NO_TRUTH, "fit"),
        (([note(0)], [0.5], [2]), NO_TRUTH, "0 to 1"),
        (([note(0)], [0.5], [-1]), NO_TRUTH, "0 to 1"),
        (([note(0)], [0.5], [0.5]), NO_TRUTH, "whole"),
        (([[50, 50, 10, 10]], [0.5], [0]), NO_TRUTH, "xyxy"),
        (NOTHING, ([note(0)], [2]), "truths"),
        (NOTHING, ([note(0)], [0, 1]), "fit"),
    ],
)
def test_wrong_input_is_refused_and_not_counted(predictions, truths, message):
    metrics = DetectionMetrics(["1000", "2000"])
    with pytest.raises(ValueError, match=message):
        metrics.update(predictions, truths)
    assert len(metrics) == 0


def test_arrays_of_the_caller_are_not_changed():
    boxes, scores, labels = np.array([note(10)], np.float32), np.array([0.5]), np.array([0])
    DetectionMetrics(["1000"]).update((boxes, scores, labels), (boxes, labels))
    assert boxes.tolist() == [note(10)]


# ---------------------------------------------------------------- invariants

CLASSES = ["001", "010", "100"]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_the_order_of_the_images_changes_no_figure(seed, random):
    pictures = random_set(seed, 8, 6, 4, 3)
    shuffled = random.sample(pictures, len(pictures))
    before, after = judged(pictures, CLASSES), judged(shuffled, CLASSES)
    assert before.confusion == after.confusion
    assert after.scalars() == pytest.approx(before.scalars(), abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_perfect_predictions_score_one_everywhere(seed):
    rng = np.random.default_rng(seed)
    pictures = []
    for count in (2, 0, *rng.integers(0, 5, 4)):
        # far enough apart that no two of them are the same note
        boxes = np.array([note(150 * index, 70 * index) for index in range(count)]).reshape(-1, 4)
        labels = rng.integers(0, 3, count)
        pictures.append(((boxes, rng.uniform(0.1, 1, count), labels), (boxes, labels)))
    scalars = judged(pictures, CLASSES).scalars()
    threshold = scalars.pop("threshold")
    assert 0 < threshold < 1
    assert scalars == pytest.approx(dict.fromkeys(scalars, 1.0))  # COCO adds an epsilon of 2e-16
    assert {"mAP50", "mAP75", "mAP50_95", "f1", "mean_iou", "exact_count", "exact_sum"} <= set(scalars)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_figures_of_two_processes_merged_are_those_of_one(seed):
    pictures = random_set(seed, 9, 6, 4, 3)
    halves = [DetectionMetrics(CLASSES), DetectionMetrics(CLASSES)]
    for index, picture in enumerate(pictures):
        halves[index >= 5].update(*picture)
    halves[0].merge(halves[1])
    assert halves[0].compute() == judged(pictures, CLASSES)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_no_threshold_gives_a_better_f1_than_the_best(seed):
    pictures = random_set(seed, 6, 6, 4, 3, decimals=1)
    best = judged(pictures, CLASSES)
    for threshold in np.linspace(0, 1, 21):
        other = judged(pictures, CLASSES, threshold)
        assert (other.f1 or 0) <= (best.f1 or 0) + 1e-12
        assert other.best_threshold == best.best_threshold
    counted = np.array(best.confusion)
    assert counted[:3].sum() == best.support


def test_sets_of_other_classes_cannot_be_merged():
    with pytest.raises(ValueError, match="differ"):
        DetectionMetrics(["1000"]).merge(DetectionMetrics(["2000"]))
