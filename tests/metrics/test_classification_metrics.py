"""Classification figures (A10, C7): worked by hand, and what must hold for any outputs."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartcash.backend.metrics import ClassificationMetrics

SIX = ["1000", "2000", "5000", "10000", "20000", "50000"]


def judged(outputs, labels, classes, loss=None, probabilities=False):
    metrics = ClassificationMetrics(classes)
    metrics.update(outputs, labels, probabilities=probabilities)
    return metrics.compute(loss)


def one_hot_logits(predicted, classes):
    return 10.0 * np.eye(classes)[predicted]


def test_accuracy_precision_recall_and_f1_of_four_images_are_worked_by_hand():
    # truth 0 0 1 1, predicted 0 1 1 1
    result = judged(one_hot_logits([0, 1, 1, 1], 2), [0, 0, 1, 1], ["1000", "2000"], loss=0.25)
    assert result.accuracy == 3 / 4
    first, second = result.classes
    assert (first.name, first.value, first.support) == ("1000", 1_000, 2)
    assert (first.precision, first.recall, first.f1) == (1.0, 1 / 2, pytest.approx(2 / 3))
    assert (second.precision, second.recall, second.f1) == (pytest.approx(2 / 3), 1.0, pytest.approx(4 / 5))
    assert result.f1 == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert result.confusion == ((1, 1), (0, 2))
    assert result.scalars()["loss"] == 0.25


def test_top_5_is_counted_from_six_classes_on():
    outputs = [[5, 4, 3, 2, 1, 0], [5, 4, 3, 2, 1, 0]]
    result = judged(outputs, [4, 5], SIX)
    assert (result.accuracy, result.accuracy_top5) == (0.0, 0.5)
    fewer = judged([[1, 0]], [0], ["1000", "2000"])
    assert "accuracy_top5" not in fewer.scalars()
    assert "accuracy_top5" not in fewer.to_dict()


def test_the_calibration_error_is_the_gap_between_confidence_and_accuracy():
    # one bin: four answers with confidence 0.9, three of them right
    outputs = [[0.9, 0.1]] * 4
    result = judged(outputs, [0, 0, 0, 1], ["1000", "2000"], probabilities=True)
    assert result.ece == pytest.approx(0.9 - 0.75)
    # two bins: 0.6 and 0.9, each weighted by its share
    outputs = [[0.6, 0.4], [0.9, 0.1], [0.9, 0.1], [0.9, 0.1]]
    result = judged(outputs, [0, 0, 0, 1], ["1000", "2000"], probabilities=True)
    assert result.ece == pytest.approx(0.25 * 0.4 + 0.75 * (0.9 - 2 / 3))


def test_a_class_without_images_is_left_out_of_the_means():
    result = judged(one_hot_logits([0, 2], 3), [0, 0], ["1000", "2000", "5000"])
    assert (result.recall, result.precision) == (0.5, 1.0)
    assert [row.recall for row in result.classes] == [0.5, None, None]
    assert [row.precision for row in result.classes] == [1.0, None, 0.0]
    json.dumps(result.to_dict(), allow_nan=False)


def test_one_class_and_no_image_at_all_are_legal():
    assert judged([[3.0]], [0], ["1000"]).accuracy == 1.0
    empty = ClassificationMetrics(SIX).compute()
    assert empty.scalars() == {}
    json.dumps(empty.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("outputs", "labels", "probabilities", "message"),
    [
        ([[0.0, float("nan")]], [0], False, "finite"),
        ([[0.0, 1.0, 2.0]], [0], False, "fit"),
        ([[0.0, 1.0]], [0, 1], False, "fit"),
        ([[0.0, 1.0]], [2], False, "0 to 1"),
        ([[0.0, 1.0]], [0.5], False, "whole"),
        ([[0.7, 0.7]], [0], True, "sum to one"),
        ([[-0.5, 1.5]], [0], True, "sum to one"),
    ],
)
def test_wrong_input_is_refused_and_not_counted(outputs, labels, probabilities, message):
    metrics = ClassificationMetrics(["1000", "2000"])
    with pytest.raises(ValueError, match=message):
        metrics.update(outputs, labels, probabilities=probabilities)
    assert len(metrics) == 0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 8), st.integers(1, 40))
def test_batches_order_and_processes_change_no_figure(seed, classes, images):
    rng = np.random.default_rng(seed)
    names = [f"name{index}" for index in range(classes)]
    outputs, labels = rng.normal(0, 2, (images, classes)), rng.integers(0, classes, images)
    whole = judged(outputs, labels, names).scalars()

    order = rng.permutation(images)
    assert judged(outputs[order], labels[order], names).scalars() == pytest.approx(whole)

    parts = [ClassificationMetrics(names), ClassificationMetrics(names)]
    for index in range(images):
        parts[index % 2].update(outputs[index : index + 1], labels[index : index + 1])
    parts[0].merge(parts[1])
    assert parts[0].compute().scalars() == pytest.approx(whole)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_logits_and_their_probabilities_give_the_same_figures(seed):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(0, 3, (20, 6)), rng.integers(0, 6, 20)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = judged(logits, labels, SIX).scalars()
    assert judged(probabilities, labels, SIX, probabilities=True).scalars() == pytest.approx(expected)
    assert expected["accuracy_top5"] >= expected["accuracy"]


def test_sure_and_right_answers_score_one():
    result = judged(100 * np.eye(6), range(6), SIX)
    figures = result.scalars()
    assert figures.pop("ece") == pytest.approx(0, abs=1e-9)
    assert set(figures.values()) == {1.0}
    assert result.confusion == tuple(map(tuple, np.eye(6, dtype=int).tolist()))
