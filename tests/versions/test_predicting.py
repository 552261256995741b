"""`smartcash predict` on pictures, videos and folders, in every form of answer."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import smartcash
from smartcash.backend.video import Frame, Video, VideoFile
from smartcash.cli import main
from smartcash.domain.errors import DataInvalid
from smartcash.handlers.model_versions import ModelVersions
from smartcash.services.run_store import RunFolder

FRAMES, FRAMES_PER_S = 10, 5.0


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Ten grey frames that grow lighter, five a second."""
    path = tmp_path / "notes 100%02d.mp4"  # a name that OpenCV would take for a pattern
    with VideoFile(path, FRAMES_PER_S) as file:
        for number in range(FRAMES):
            file.write(np.full((64, 96, 3), 20 * number, np.uint8))
    return path


def test_a_video_is_written_whole_and_read_frame_by_frame(video: Path, tmp_path: Path) -> None:
    """D15: order, times and pixels; only every n-th where that is asked for; no partial file is left."""
    with Video(video) as read:
        assert read.frames_per_s == FRAMES_PER_S
        frames = list(read.frames())
    assert [frame.number for frame in frames] == list(range(FRAMES))
    assert [frame.time_s for frame in frames] == pytest.approx(
        [n / FRAMES_PER_S for n in range(FRAMES)], abs=0.01
    )
    for frame in frames:
        assert frame.image_HW3.shape == (64, 96, 3)
        assert abs(float(frame.image_HW3.mean()) - 20 * frame.number) < 4
    with Video(video) as read:
        assert [frame.number for frame in read.frames(every=4)] == [0, 4, 8]
    assert [path.name for path in tmp_path.iterdir()] == [video.name]


def test_what_is_no_video_and_a_camera_that_is_not_there_are_said(tmp_path: Path) -> None:
    """A34."""
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    for source in (text, tmp_path / "missing.mp4"):
        with pytest.raises(DataInvalid) as refused:
            Video(source)
        assert refused.value.code == "video_unreadable"
    with pytest.raises(DataInvalid) as refused:
        Video(97)
    assert refused.value.code == "camera_missing"


def test_what_was_seen_until_an_interruption_is_kept(tmp_path: Path) -> None:
    """A34: Ctrl-C is how a camera ends."""
    path = tmp_path / "seen.mp4"
    with pytest.raises(KeyboardInterrupt), VideoFile(path, 5) as file:
        for _ in range(3):
            file.write(np.zeros((32, 32, 3), np.uint8))
        raise KeyboardInterrupt
    with Video(path) as read:
        assert len(list(read.frames())) == 3
    with VideoFile(tmp_path / "nothing.mp4", 5):
        pass
    assert [each.name for each in tmp_path.iterdir()] == ["seen.mp4"]


def test_a_folder_with_pictures_and_videos_becomes_json_csv_and_drawings(
    home: Path,
    outspoken: Callable[[int], RunFolder],
    video: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """D15: one answer per picture and per frame; what cannot be read is an error of its own; names are no formulas."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    video.rename(folder / "video.mp4")
    Image.fromarray(np.full((50, 70, 3), 90, np.uint8)).save(folder / "photo.png")
    (folder / "=1+1.mov").write_text("no video")
    version = ModelVersions(home).register_run(outspoken(2))
    drawn, table = tmp_path / "drawn", tmp_path / "out.csv"
    options = ["--every", "3", "--frames", "2", "--device", "cpu", "--csv", str(table), "--out", str(drawn)]
    with pytest.raises(SystemExit) as ended:
        main(["predict", "v1", str(folder), "--json", *options])
    assert ended.value.code == 1, "one of them could not be read"
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(Path(each["file"]).name, each.get("frame"), "error" in each) for each in answers] == [
        ("=1+1.mov", None, True),
        ("photo.png", None, False),
        ("video.mp4", 0, False),
        ("video.mp4", 3, False),
    ]
    for answer in answers[1:]:
        assert answer["found"] and {row["class"] for row in answer["found"]} == {version.classes[2]}
    assert sorted(path.name for path in drawn.iterdir()) == ["photo.jpg", "video.mp4"]
    with Video(drawn / "video.mp4") as read:
        frames: list[Frame] = list(read.frames())
    assert len(frames) == 2 and read.frames_per_s == pytest.approx(FRAMES_PER_S / 3, rel=0.01)
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    found = sum(len(answer["found"]) for answer in answers[1:])
    assert len(rows) == found + 1
    assert rows[0]["error"] and rows[1]["class"] == version.classes[2] and float(rows[1]["x2"]) <= 70
    with pytest.raises(SystemExit) as ended:
        main(["predict", "v1", "--camera", "97", "--device", "cpu"])
    assert ended.value.code == 1
    with pytest.raises(SystemExit) as ended:
        main(["predict", "v1"])
    assert ended.value.code == 2


def test_a_model_is_found_in_another_home_and_a_folder_of_folders_is_not_passed_over_in_silence(
    home: Path,
    outspoken: Callable[[int], RunFolder],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A34, D15: `--home` as in the other commands; what holds no picture itself is named with what is in it."""
    ModelVersions(home).register_run(outspoken(2))
    photos = tmp_path / "photos"
    (photos / "5rb").mkdir(parents=True)
    Image.fromarray(np.full((50, 70, 3), 90, np.uint8)).save(photos / "5rb" / "photo.png")
    monkeypatch.setenv("SMARTCASH_HOME", str(tmp_path / "elsewhere"))
    for command in ("predict", "count"):
        with pytest.raises(SystemExit) as ended:
            main([command, "v1", str(photos), "--home", str(home)])
        assert ended.value.code == 2 and "5rb" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["predict", "v1", str(photos / "5rb"), "--home", str(home), "--device", "cpu"])
    assert ended.value.code == 0 and "photo.png" in capsys.readouterr().out
    (photos / "10rb").mkdir()
    with pytest.raises(SystemExit) as ended:
        main(["predict", "v1", *map(str, sorted(photos.iterdir())), "--home", str(home), "--device", "cpu"])
    told = capsys.readouterr()
    assert ended.value.code == 0 and "photo.png" in told.out and "10rb" in told.err


def test_pictures_that_are_all_missing_are_named_before_a_model_is_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A33, D15."""
    for command in ("predict", "count"):
        with pytest.raises(SystemExit) as ended:
            main([command, "no-such-model", str(tmp_path / "foto.jpg"), "--home", str(tmp_path)])
        told = capsys.readouterr().err
        assert ended.value.code == 2 and "foto.jpg" in told and "no-such-model" not in told


def test_a_model_by_its_alias_looks_at_a_picture_in_three_lines_of_python(
    home: Path, outspoken: Callable[[int], RunFolder], tmp_path: Path
) -> None:
    """D15: file, array and Pillow image; the count says the same notes, and when it is not sure."""
    versions = ModelVersions(home)
    version = versions.register_run(outspoken(3))
    versions.apply(versions.check_promote(1, "produksi"))
    pixels = np.full((64, 64, 3), 120, np.uint8)
    cv2.imwrite(str(tmp_path / "photo.png"), pixels)

    model = smartcash.load("produksi")
    seen = model.predict(tmp_path / "photo.png")
    counted = model.count(pixels)

    assert {row["class"] for row in seen["found"]} == {
        version.classes[3]
    } and model.classes == version.classes
    notes = {row["class"]: row["notes"] for row in counted["counts"] if row["notes"]}
    assert notes == {version.classes[3]: len(seen["found"])}
    assert counted["total_rupiah"] == seen["total_rupiah"] and counted["sure"]
    assert not model.count(pixels, abstain=1.0)["sure"]
    none = model.count(pixels, threshold=1.0)
    assert none["total_rupiah"] == 0 and not none["sure"], "what scores half of the threshold is a doubt"
