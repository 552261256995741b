"""Models by alias, counting money, and a real training that registers itself."""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import smartcash
from smartcash.backend.predictor import Outcome, Predictor, Prepared
from smartcash.backend.samples import write_samples
from smartcash.cli import count as count_command
from smartcash.cli import main
from smartcash.cli.count import total
from smartcash.domain.config import TrainConfig
from smartcash.domain.errors import CheckpointCorrupt, DataInvalid, RunNotFound, VersionNotFound
from smartcash.handlers.model_versions import ModelVersions
from smartcash.services.run_store import RunFolder
from smartcash.services.thresholds import Thresholds, write_thresholds
from smartcash.worker import answers, count_files, open_model, train

NOTES = ("1000", "10000", "100000")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Coloured noise, the same every time."""
    pixels = np.random.default_rng(1).integers(0, 256, (70, 90, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


class Scripted(Predictor):
    """Says of every picture what it was told to say; notes below the asked threshold are left out, as always."""

    def __init__(self, task: str, scores: dict[str, float]) -> None:
        self.said, self.classes, self.threshold = task, NOTES, 0.4
        self.scores = scores
        self.class_thresholds, self.abstain = {}, None

    @property
    def task(self) -> Any:
        return self.said

    def __call__(self, image_HW3: np.ndarray, threshold: float | None = None) -> Outcome:
        limit = self.threshold if threshold is None else threshold
        kept = [
            (score, self.classes.index(name))
            for name, score in self.scores.items()
            if self.said == "classify" or score >= limit
        ]
        scores, labels = (
            (np.array(column) for column in zip(*kept)) if kept else (np.zeros(0), np.zeros(0, int))
        )
        boxes = np.zeros((0 if self.said == "classify" else len(kept), 4), np.float32)
        return Outcome(boxes, scores, labels.astype(int))


def counted(
    task: str, scores: dict[str, float], abstain: float | None = None
) -> tuple[int | None, bool, list[str]]:
    facts = Scripted(task, scores).count(np.zeros((4, 4, 3), np.uint8), abstain)
    return facts["total_rupiah"], facts["sure"], [row["class"] for row in facts["doubts"]]


def test_a_count_is_not_sure_when_a_possible_note_is_in_doubt() -> None:
    """D15: counted from 0.4 on, in doubt from 0.2 on."""
    sure = {"1000": 0.9, "100000": 0.5}
    assert counted("detect", sure) == (101_000, True, [])
    assert counted("detect", {**sure, "10000": 0.19}) == (101_000, True, [])
    assert counted("detect", {**sure, "10000": 0.2}) == (101_000, False, ["10000"])
    assert counted("detect", {**sure, "10000": 0.2}, abstain=0.0) == (101_000, True, [])
    assert counted("detect", sure, abstain=0.6) == (101_000, False, ["100000"]), "counted, but doubtful"
    assert counted("detect", {}) == (0, True, [])
    assert counted("classify", {"10000": 0.9}) == (10_000, True, [])
    assert counted("classify", {"10000": 0.1}) == (10_000, False, ["10000"])


def test_what_a_report_has_chosen_is_used_class_by_class() -> None:
    """D14, D15: limits of each class, and an abstain threshold; what the user says wins, as a whole."""
    model = Scripted("detect", {"1000": 0.5, "10000": 0.5, "100000": 0.9})
    model.class_thresholds, model.abstain = {"1000": 0.6, "10000": 0.3, "100000": 0.4}, 0.55
    picture = np.zeros((4, 4, 3), np.uint8)

    def said(**asked: float) -> tuple[int, list[str], float]:
        facts = model.count(picture, **asked)
        return facts["total_rupiah"], [row["class"] for row in facts["doubts"]], facts["abstain"]

    assert said() == (110_000, ["1000", "10000"], 0.55)
    assert said(abstain=0.1) == (110_000, [], 0.1)
    assert said(threshold=0.45) == (111_000, ["1000", "10000"], 0.55)
    assert model.reaching(model.limits(), model(picture, 0.0)).labels_N.tolist() == [1, 2]


def test_a_note_that_only_the_users_threshold_leaves_out_is_in_doubt() -> None:
    """D15: it scores more than the limit of doubt, and nothing else would speak of it."""
    model = Scripted("detect", {"1000": 0.95, "10000": 0.7, "100000": 0.35})
    model.threshold, model.abstain = 0.4, 0.3
    picture = np.zeros((4, 4, 3), np.uint8)

    def said(**asked: float) -> tuple[int, bool, list[str]]:
        facts = model.count(picture, **asked)
        return facts["total_rupiah"], facts["sure"], [row["class"] for row in facts["doubts"]]

    assert said() == (11_000, True, []), "chosen limits: a report has judged them as they are"
    assert said(threshold=0.9) == (1_000, False, ["10000", "100000"])
    assert said(threshold=0.9, abstain=0.6) == (1_000, False, ["10000"])
    assert said(threshold=0.3) == (111_000, True, [])
    assert said(threshold=0.9, abstain=0.0) == (1_000, True, []), "0 never abstains"
    model.abstain = None  # then the limit is the model's own threshold, not the one asked for
    assert said(threshold=0.9) == (1_000, False, ["10000"])
    assert said(threshold=0.3) == (111_000, False, ["100000"])


def test_doubts_are_told_line_by_line_the_likeliest_first_and_not_all(english: None) -> None:
    """D15: a picture of many notes stays readable; JSON has everything."""
    counts = [{"class": name, "value": int(name), "notes": 1} for name in NOTES]
    doubts = [{"class": NOTES[each % 3], "score": each / 100, "value": 1} for each in range(20, 60)]
    facts = {"file": "a.jpg", "counts": counts, "total_rupiah": 111_000, "sure": False, "doubts": doubts}
    first, *lines, last = count_command._line(facts).splitlines()
    assert first == "a.jpg: 1 × Rp1.000, 1 × Rp10.000, 1 × Rp100.000  =  Rp111.000  ⚠ not sure; in doubt:"
    assert lines[0] == "    Rp100.000  59%" and len(lines) == count_command.SHOWN_DOUBTS
    assert last == f"    and {40 - len(lines)} more (--json lists all)"
    facts["doubts"] = doubts[:1]
    assert count_command._line(facts).splitlines()[1:] == ["    Rp100.000  20%"]


def test_the_total_is_that_of_all_pictures() -> None:
    """D15."""
    looked = [Scripted("detect", scores) for scores in ({"1000": 0.9}, {"1000": 0.9, "10000": 0.3})]
    whole = total([each.count(np.zeros((4, 4, 3), np.uint8)) for each in looked])
    assert {row["class"]: row["notes"] for row in whole["counts"]} == {"1000": 2, "10000": 0, "100000": 0}
    assert (whole["total_rupiah"], whole["pictures"], whole["not_sure"]) == (2000, 2, 1)


def test_a_rolled_back_alias_predicts_the_very_same_as_before(
    home: Path, real: Callable[[int], RunFolder], photo: Path
) -> None:
    """A17, D5: byte for byte, and another version predicts something else; also after its run is gone."""
    versions = ModelVersions(home)

    def seen() -> bytes:
        outcome = open_model("produksi", "cpu")[0](pixels, 0.0)
        return b"".join(part.tobytes() for part in (outcome.boxes_N4, outcome.scores_N, outcome.labels_N))

    pixels = np.asarray(Image.open(photo))
    run = real(1)
    versions.register_run(run)
    versions.register_run(real(2))
    versions.apply(versions.check_promote(1, "produksi"))
    file = home / "models/produksi/model.pth"
    before, bytes_before = seen(), file.read_bytes()
    versions.apply(versions.check_promote(2, "produksi"))
    assert seen() != before and file.read_bytes() != bytes_before
    run.path.rename(home / "gone")
    versions.apply(versions.check_rollback("produksi"), significant=True)
    assert seen() == before and file.read_bytes() == bytes_before
    assert before, "an empty answer would prove nothing"


def test_a_model_opens_by_alias_number_run_and_file(
    home: Path, real: Callable[[int], RunFolder], photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A15; in Python a file, an array and a Pillow image are the same picture."""
    run = real(3)
    versions = ModelVersions(home)
    version = versions.register_run(run)
    versions.apply(versions.check_promote(1, "produksi"))
    (best,) = run.weights.glob("*.pth")
    opened = [open_model(name, "cpu")[0] for name in ("produksi", "v1", run.id, run.id[:8], str(best))]
    image = Image.open(photo)
    answers = [model.predict(image, 0.001) for model in opened]
    model = smartcash.load("produksi", "cpu")
    answers += [model.predict(each, 0.001) for each in (photo, str(photo), np.asarray(image))]
    assert answers[0]["found"] and all(answer == answers[0] for answer in answers)
    assert model.threshold == version.threshold == 0.4
    with pytest.raises(ValueError):
        model.predict(np.zeros((4, 4)))  # type: ignore[arg-type]
    with pytest.raises(VersionNotFound):
        open_model("v7")
    with pytest.raises(RunNotFound):
        open_model("kandidat")
    with (home / "models/v1/model.pth").open("r+b") as file:
        file.seek(5000)
        file.write(b"damage")
    with pytest.raises(CheckpointCorrupt):
        open_model("produksi")


def test_counting_agrees_with_predicting_and_names_what_cannot_be_read(
    home: Path,
    real: Callable[[int], RunFolder],
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    english: None,
) -> None:
    """D15, B29: the notes of predict at the model's own threshold; a picture that fails does not end the rest."""
    ModelVersions(home).register_run(real(4))
    model = open_model("v1", "cpu")[0]
    scores = [row["score"] for row in model.predict(photo, 0.0)["found"]]
    model.threshold = sorted(scores)[-5]
    found = [row["class"] for row in model.predict(photo)["found"]]
    facts = model.count(np.asarray(Image.open(photo)))
    assert {row["class"]: row["notes"] for row in facts["counts"] if row["notes"]} == {
        name: found.count(name) for name in found
    }
    junk = tmp_path / "=1+1.png"
    junk.write_bytes(b"no picture")
    pictures = [str(photo), str(junk), str(tmp_path / "missing.png")]
    assert [("error" in each) for each in count_files("v1", list(map(Path, pictures)))] == [False, True, True]
    with pytest.raises(SystemExit) as ended:
        main(["count", "v1", *pictures, "--json", "--csv", str(tmp_path / "out.csv")])
    assert ended.value.code == 1
    answer = json.loads(capsys.readouterr().out)
    assert (len(answer["pictures"]), answer["total"]["pictures"]) == (3, 1)
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["sure"] for row in rows] == ["true", "", ""]
    assert rows[0]["total_rupiah"] == str(answer["total"]["total_rupiah"])
    with pytest.raises(SystemExit):
        main(["count", "v1", str(photo)])
    assert "Together" in capsys.readouterr().out
    with pytest.raises(DataInvalid):
        model.predict(junk)


def test_trying_a_picture_runs_the_network_once_and_says_what_predict_and_count_say(
    home: Path, real: Callable[[int], RunFolder], photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D15: with the model's own limits and with others."""
    ModelVersions(home).register_run(real(5))
    model = open_model("v1", "cpu")[0]
    looked: list[int] = []

    def together(self: Predictor, pictures: Sequence[Prepared]) -> list[Outcome]:
        looked.append(len(pictures))
        return whole(self, pictures)

    whole = Predictor.together
    picture, pixels = base64.b64encode(photo.read_bytes()).decode(), np.asarray(Image.open(photo))
    for threshold, abstain in ((None, None), (0.001, None), (0.6, None), (0.01, 0.02), (0.3, 0.0)):
        expected = model.predict(pixels, threshold) | model.count(pixels, abstain, threshold)
        with monkeypatch.context() as counted:
            counted.setattr(Predictor, "together", together)
            said = answers.predict("v1", photo.name, picture, threshold, abstain)
        assert {key: said[key] for key in expected} == expected
        assert (said["file"], said["measured"]) == (photo.name, abstain is not None)
        (told,) = count_files("v1", [photo], abstain=abstain, threshold=threshold)
        assert {key: said[key] for key in told if key != "file"} == {
            key: told[key] for key in told if key != "file"
        }
    assert looked == [1] * 5


def test_chosen_limits_belong_to_one_checkpoint_and_are_read_with_it(
    home: Path, real: Callable[[int], RunFolder], photo: Path
) -> None:
    """D14, D15: beside the version; those of another checkpoint, or altered ones, are not used."""
    version = ModelVersions(home).register_run(real(5))
    scores = [row["score"] for row in smartcash.load("v1", "cpu").predict(photo, 0.0)["found"]]
    middle = sorted(scores)[len(scores) // 2]
    classes = {name: middle + 1e-5 * number for number, name in enumerate(version.classes)}
    chosen = Thresholds(
        version.sha256, "detect", "valid", "c0ffee", 40, 0.3, classes, 0.7, 0.99, True, 0.9, 1.0, "2026-11-22"
    )
    write_thresholds(Path(version.path), chosen)
    model = smartcash.load("v1", "cpu")
    assert (model.threshold, dict(model.class_thresholds), model.abstain) == (0.3, classes, 0.7)
    found = model.predict(photo)["found"]
    assert found and all(row["score"] >= classes[row["class"]] - 1e-4 for row in found)
    write_thresholds(Path(version.path), replace(chosen, sha256="0" * 64))
    assert (smartcash.load("v1", "cpu").threshold, smartcash.load("v1", "cpu").abstain) == (0.4, None)


@pytest.mark.slow
def test_a_finished_training_is_a_version_and_one_that_cannot_be_registered_is_still_finished(
    home: Path, tmp_path: Path
) -> None:
    """A15, A18, B31: it has the run's figures; a hindrance is a warning, and is made good for later."""
    write_samples(tmp_path / "notes", images=20, seed=3, size_px=96)
    config = TrainConfig.parse({
        "data": {"path": str(tmp_path / "notes"), "image_size": 64, "batch_size": 4, "workers": 0},
        "model": {"backbone": "mobilenetv4_conv_small", "pretrained": False},
        "training": {"epochs": 1}, "runtime": {"threads": 1},
    })  # fmt: skip
    run, outcome = train(config, home)
    (version,) = ModelVersions(home).versions()
    assert (version.run, version.epoch) == (run.id, outcome.progress.best_epoch)
    assert version.metrics["test"] == run.description()["test"]
    assert version.data["content_hash"] == run.description()["data"]["content_hash"]
    assert open_model("v1")[0].classes == version.classes

    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "models").write_text("a file where the folder should be")
    hindered, _ = train(config, tmp_path / "other")
    assert hindered.description()["state"] == "finished"
    assert "version_failed" in hindered.events.read_text(encoding="utf-8")
    (tmp_path / "other" / "models").unlink()
    (made,) = ModelVersions(tmp_path / "other").register_missing()
    assert made.run == hindered.id
