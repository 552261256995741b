"""What is kept of a model's answers, its mistakes by kind, calibration and limits (D6, D14)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from answers import classified, detected, objects

from smartcash.backend.calibration import choose_limits, promise, reliability, share_answered
from smartcash.backend.comparison import agreement_of, most_telling
from smartcash.backend.mistakes import KINDS, find_mistakes, mistakes_of
from smartcash.backend.resampling import DetectionFigures, judged_by
from smartcash.backend.seen import Seen, read_seen, write_seen
from smartcash.handlers.model_versions import ModelVersions
from smartcash.services.run_store import RunFolder
from smartcash.services.thresholds import Thresholds, thresholds_of, write_thresholds
from smartcash.worker import evaluate_model
from smartcash.worker.answers import predict

ABOUT = {"checkpoint": "ab", "data": "cd", "split": "test"}
NOTE = [100.0, 100.0, 200.0, 150.0]


# ---------------------------------------------------------------- kept answers


@pytest.mark.parametrize("seen", [detected(0), classified(0)], ids=["detect", "classify"])
def test_kept_answers_are_judged_like_fresh_ones(tmp_path: Path, seen: Seen) -> None:
    """D6."""
    path = tmp_path / "seen" / "test.safetensors"
    write_seen(path, seen, ABOUT)
    again = read_seen(path, ABOUT)
    assert again is not None
    assert (again.classes, again.names, again.task, again.threshold) == (
        seen.classes, seen.names, seen.task, seen.threshold,
    )  # fmt: skip
    once = np.ones((1, len(seen.names)))
    for name, value in judged_by(seen).figures(once).items():
        assert judged_by(again).figures(once)[name] == pytest.approx(value, abs=1e-6)


def test_answers_about_something_else_or_damaged_ones_are_not_taken(tmp_path: Path) -> None:
    """D6: another checkpoint or other data; any altered byte; a file cut short; no file of this kind."""
    path = tmp_path / "test.safetensors"
    write_seen(path, detected(0, images=4), ABOUT)
    assert read_seen(path, {**ABOUT, "checkpoint": "ef"}) is None
    assert read_seen(path, {**ABOUT, "data": "ef"}) is None
    assert read_seen(tmp_path / "none.safetensors", ABOUT) is None
    whole = path.read_bytes()
    for place in range(0, len(whole), 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert read_seen(path, ABOUT) is None, place
    for length in (0, 7, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert read_seen(path, ABOUT) is None, length
    path.write_bytes(whole)
    assert read_seen(path, ABOUT) is not None


def test_classes_are_matched_by_name() -> None:
    """D6: two models may know the same classes in another order, or further ones."""
    for seen in (detected(1), classified(1)):
        once = np.ones((1, len(seen.names)))
        turned = seen.with_classes(("further", *reversed(seen.classes)))
        before, after = judged_by(seen).all_figures(once), judged_by(turned).all_figures(once)
        for name, value in before[0].items():
            assert after[0][name] == pytest.approx(value, abs=1e-9, nan_ok=True), name
        for name, value in before[1][0].items():
            assert after[1][-1][name] == pytest.approx(value, nan_ok=True), name


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("box", "label", "kind", "missed"),
    [
        (NOTE, 0, "", False),
        (NOTE, 1, "wrong_class", False),
        ([100.0, 100.0, 140.0, 150.0], 0, "badly_placed", False),  # IoU 0.4
        ([100.0, 100.0, 140.0, 150.0], 1, "both", True),
        ([300.0, 300.0, 400.0, 350.0], 0, "background", True),
        ([195.0, 100.0, 295.0, 150.0], 0, "background", True),  # IoU 0.03
    ],
)
def test_each_kind_of_mistake_is_told_from_the_others(
    box: list[float], label: int, kind: str, missed: bool
) -> None:
    """D14: the definitions of TIDE (Bolya et al. 2020), section 2.2."""
    found = find_mistakes(objects([(0, box, label, 0.9)]), objects([(0, NOTE, 0, 1.0)]), 1)
    assert found.kind_N == (kind,)
    assert found.missed_M.tolist() == [missed]
    assert found.unfound_M.tolist() == [kind != ""]
    assert found.counts() == {**dict.fromkeys(KINDS, 0), **({kind: 1} if kind else {}), "missed": int(missed)}


def test_of_two_boxes_on_a_note_the_surer_one_is_right_and_the_other_double() -> None:
    """D14."""
    moved = [110.0, 100.0, 210.0, 160.0]
    found = find_mistakes(objects([(0, moved, 0, 0.5), (0, NOTE, 0, 0.9)]), objects([(0, NOTE, 0, 1.0)]), 1)
    assert found.kind_N == ("double", "")


def test_the_pictures_shown_are_those_where_models_differ_most_and_none_without_a_mistake() -> None:
    """D6."""
    truth = objects([(index, NOTE, 0, 1.0) for index in range(4)])
    good = find_mistakes(objects([(0, NOTE, 0, 0.9), (1, NOTE, 0, 0.9), (2, NOTE, 0, 0.9)]), truth, 4)
    bad = find_mistakes(objects([(0, NOTE, 0, 0.9), (1, NOTE, 1, 0.9)]), truth, 4)
    assert most_telling([good, bad]) == [1, 2, 3]  # 1: missed and a wrong find; 3: both miss it, so last
    assert agreement_of([good, bad]) == {"all_right": 1, "all_wrong": 1, "only": [2, 0]}


def test_a_classifiers_mistakes_are_wrong_classes() -> None:
    """D14."""
    judged = judged_by(classified(2))
    found = mistakes_of(judged)
    wrong = int((~judged.right_I).sum())  # type: ignore[union-attr]
    assert wrong
    assert found.counts() == {**dict.fromkeys(KINDS, 0), "wrong_class": wrong}


# ---------------------------------------------------------------- calibration and limits


def certain(shares: dict[float, float], count: int = 200) -> Seen:
    """A classifier of two classes that is certain by so much and right in that share of `count` pictures each."""
    rows, truth = [], []
    for certainty, share in shares.items():
        for position in range(count):
            image = len(truth)
            rows += [(image, [0.0] * 4, 0, certainty), (image, [0.0] * 4, 1, 1 - certainty)]
            truth.append((image, [0.0] * 4, 0 if position < share * count else 1, 1.0))
    return Seen(
        "classify", ("a", "b"), tuple(map(str, range(len(truth)))), 0.5, objects(rows), objects(truth)
    )


def test_a_model_that_is_right_as_often_as_it_says_is_calibrated() -> None:
    """D14."""
    found = reliability(judged_by(certain({0.6: 0.6, 0.9: 0.9})))
    assert found is not None
    assert found.ece.value == pytest.approx(0, abs=1e-9)
    assert found.count == (200, 200)
    assert found.certainty == pytest.approx((0.6, 0.9))
    assert [each.value for each in found.right] == pytest.approx([0.6, 0.9])


def test_a_model_that_says_too_much_is_not() -> None:
    """D14: the error is the mean gap, weighted by how many answers each bin holds."""
    found = reliability(judged_by(certain({0.7: 0.5, 0.9: 0.9})))
    assert found is not None
    assert found.ece.value == pytest.approx(0.1)
    assert found.ece.low < 0.1 < found.ece.high


def test_a_detectors_boxes_are_calibrated_once_each() -> None:
    """D14: of two boxes on the same place only the surer one is an answer."""
    seen = Seen(
        "detect", ("1000", "2000"), ("a",), 0.4,
        objects([(0, NOTE, 0, 0.8), (0, NOTE, 1, 0.6), (0, [0.0, 0.0, 9.0, 9.0], 0, 0.04)]),
        objects([(0, NOTE, 0, 1.0)]),
    )  # fmt: skip
    found = reliability(judged_by(seen))
    assert found is not None
    assert found.count == (1,)
    assert found.ece.value == pytest.approx(0.2)
    assert reliability(judged_by(replace(seen, found=objects([])))) is None


def test_the_limit_of_abstaining_is_the_smallest_that_keeps_the_promise() -> None:
    """D14: half of the answers with 0.7 are wrong, all with 0.95 right: so 0.7 is not answered, 0.95 is."""
    seen = certain({0.7: 0.5, 0.95: 1.0})
    limits = choose_limits(judged_by(seen))
    assert limits.reached
    assert limits.abstain == pytest.approx((0.7 + 0.95) / 2)
    assert (limits.sure, limits.right_when_sure) == (0.5, 1.0)
    assert share_answered(judged_by(seen), limits) == (0.5, 1.0)


def test_a_promise_that_no_limit_keeps_is_not_made() -> None:
    """D14."""
    limits = choose_limits(judged_by(certain({0.7: 0.5, 0.95: 0.8})))
    assert not limits.reached
    assert limits.right_when_sure == pytest.approx(0.8)


def test_a_detector_abstains_at_least_below_its_threshold_and_rare_classes_have_the_common_one() -> None:
    """D14."""
    judged = judged_by(detected(4, images=60))
    assert isinstance(judged, DetectionFigures)
    limits = choose_limits(judged)
    assert limits.abstain >= limits.score
    assert limits.curve["sure"] == sorted(limits.curve["sure"], reverse=True)
    few = choose_limits(judged_by(detected(4, images=8)))
    assert set(few.classes.values()) == {few.score}


LIMITS = Thresholds(
    "ab" * 32,
    "detect",
    "valid",
    "cd",
    40,
    0.4,
    {"1000": 0.5},
    0.6,
    0.99,
    True,
    0.9,
    1.0,
    "2026-11-01T08:00:00+00:00",
)


@pytest.mark.parametrize(
    ("sure", "images", "share"), [(1.0, 10, 0.7411), (0.0, 10, 0.05), (0.5, 400, 0.9851), (1.0, 400, 0.9925)]
)
def test_limits_promise_no_more_than_their_pictures_bear(sure: float, images: int, share: float) -> None:
    """D3: the lower ends that Clopper and Pearson give for n right of n, one-sided, at 95 %."""
    assert promise(sure, images) == pytest.approx(share, abs=1e-4)


def test_limits_are_found_beside_the_model_they_were_chosen_for_and_for_no_other(tmp_path: Path) -> None:
    """D14: beside a version's model, or in the report folder of a run."""
    version, run = tmp_path / "models" / "v1" / "model.pth", tmp_path / "run" / "weights" / "best.pth"
    for model, folder in ((version, version.parent), (run, tmp_path / "run" / "report")):
        folder.mkdir(parents=True)
        assert thresholds_of(model, LIMITS.sha256) is None
        write_thresholds(folder, LIMITS)
        assert thresholds_of(model, LIMITS.sha256) == LIMITS
        assert thresholds_of(model, "0" * 64) is None


def test_altered_limits_are_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """D14: a limit that somebody lowered by hand is named and left alone, as is what is no such file."""
    write_thresholds(tmp_path, LIMITS)
    path = tmp_path / "thresholds.json"
    facts = json.loads(path.read_text())
    for text in (json.dumps({**facts, "abstain": 0.1}), "[]", "{", json.dumps({**facts, "more": 1}), ""):
        path.write_text(text)
        capsys.readouterr()
        assert thresholds_of(tmp_path / "model.pth", LIMITS.sha256) is None
        assert "thresholds.json" in capsys.readouterr().err


def test_the_page_tries_a_model_with_the_limits_that_its_report_chose(
    trained: Callable[..., RunFolder], home: Path, notes: Path
) -> None:
    """D14, D15: the newest ones, also when the model was tried before; an evaluation keeps its own threshold."""
    version = ModelVersions(home).register_run(trained(1))
    picture = base64.b64encode(next(notes.rglob("*.jpg")).read_bytes()).decode()
    before = predict("v1", "a.jpg", picture)["threshold"]
    for score, created in ((0.3, "2026-11-01T00:00:00+00:00"), (0.4, "2026-11-02T00:00:00+00:00")):
        classes = dict.fromkeys(version.classes, score)
        limits = replace(LIMITS, sha256=version.sha256, score=score, classes=classes, created=created)
        write_thresholds(home / "models" / "v1", limits)
        assert predict("v1", "a.jpg", picture)["threshold"] == score
    assert evaluate_model("v1", str(notes), "test")["threshold"] == pytest.approx(before)
