"""The final table (A10, D15) in both languages."""

import io

import numpy as np
import pytest
from rich.console import Console

from smartcash.backend.metrics import ClassificationMetrics, DetectionMetrics
from smartcash.cli.tables import classification_table, detection_table
from smartcash.utils.i18n import set_language


@pytest.fixture(params=["id", "en"])
def language(request):
    set_language(request.param)
    yield request.param
    set_language(None)


def shown(table):
    console = Console(file=io.StringIO(), width=100)
    console.print(table)
    return console.file.getvalue()


def detected(classes):
    metrics = DetectionMetrics(classes)
    boxes = np.array([[0, 0, 100, 50], [200, 0, 300, 50]])
    metrics.update((boxes, [0.9, 0.8], [0, 1]), (boxes, [0, 1]))
    metrics.update(([], [], []), (boxes[:1], [0]))
    return shown(detection_table(metrics.compute().to_dict()))


def test_the_detection_table_has_a_row_for_each_denomination_and_one_for_all(language):
    page = detected(["001", "050", "100"])
    rows = {line.split("│")[1].strip(): line for line in page.splitlines() if line.startswith("│")}
    everything = {"id": "Semua", "en": "All"}[language]
    assert list(rows) == ["■ Rp1.000", "■ Rp50.000", "■ Rp100.000", everything]
    assert rows["■ Rp1.000"].split("│")[2].strip() == "2"
    assert rows["■ Rp100.000"].count("–") == 5
    assert {"id": "Pecahan", "en": "Denomination"}[language] in page
    assert {"id": "Total rupiah tepat 0.500", "en": "Exact total in Rupiah 0.500"}[language] in page


def test_without_a_class_worth_money_the_sum_is_a_dash(language):
    page = detected(["RBC", "WBC"])
    assert {"id": "Kelas", "en": "Class"}[language] in page
    assert {"id": "Total rupiah tepat –", "en": "Exact total in Rupiah –"}[language] in page


def test_the_classification_table_tells_the_accuracy(language):
    metrics = ClassificationMetrics(["1000", "2000"])
    metrics.update(9 * np.eye(2)[[0, 1, 1, 1]], [0, 0, 1, 1])
    page = shown(classification_table(metrics.compute().to_dict()))
    assert {"id": "Akurasi 0.750", "en": "Accuracy 0.750"}[language] in page
    assert "top-5" not in page
