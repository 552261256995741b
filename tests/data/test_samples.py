"""The drawn sample set: `smartcash data sample`, rows A1, D10 and D16."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from smartcash.backend import samples
from smartcash.backend.samples import CLASS_NAMES, SPLITS, draw_sample, write_samples
from smartcash.backend.specimens import SIDES, SPECIMENS, draw_specimen, mark_mask
from smartcash.domain.errors import DataInvalid
from smartcash.utils.i18n import LANGUAGES

SIZE_PX = 160


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detection set of 70 pictures."""
    out = tmp_path_factory.mktemp("samples") / "notes"
    write_samples(out, images=70, seed=3, size_px=SIZE_PX)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def labels(folder: Path, split: str) -> dict[str, list[list[float]]]:
    """File stem → rows of class id and cxcywh, as fractions."""
    return {
        path.stem: [[float(word) for word in line.split()] for line in path.read_text().splitlines()]
        for path in sorted((folder / "labels" / split).glob("*.txt"))
    }


def test_the_same_command_in_another_process_writes_the_same_bytes(drawn: Path, tmp_path: Path) -> None:
    """D1: the same seed draws the same bytes."""
    out = tmp_path / "again"
    command = [sys.executable, "-W", "error", "-m", "smartcash", "data", "sample", "--out", str(out)]
    options = ["--images", "70", "--seed", "3", "--size", str(SIZE_PX), "--lang", "id"]
    environment = os.environ | {"PYTHONHASHSEED": "77"}
    answer = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, check=True)
    assert "70 gambar" in answer.stdout
    first, again = contents(drawn), contents(out)
    assert first.keys() == again.keys()
    assert [name for name in first if first[name] != again[name]] == []


def test_a_picture_does_not_depend_on_how_many_are_drawn(drawn: Path, tmp_path: Path) -> None:
    """D1: by counting: a picture does not depend on how many are drawn."""
    write_samples(tmp_path / "few", images=10, seed=3, size_px=SIZE_PX)
    few, many = contents(tmp_path / "few"), contents(drawn)
    pictures = [name for name in few if name.endswith(".jpg")]
    assert len(pictures) == 10
    assert all(few[name] == many[name] for name in pictures)


def test_another_seed_draws_other_pictures() -> None:
    """D16: `--seed S`."""
    assert not np.array_equal(
        draw_sample("train", 0, 1, "detect", SIZE_PX)[0], draw_sample("train", 0, 2, "detect", SIZE_PX)[0]
    )


def test_boxes_are_the_hull_of_the_visible_pixels_and_every_note_is_seen_well_enough(drawn: Path) -> None:
    """D16: partial cover, several notes in a picture; no label for what cannot be seen."""
    written = labels(drawn, "train")
    most = 0
    for index in range(30):
        _, notes, _ = draw_sample("train", index, 3, "detect", SIZE_PX)
        most = max(most, len(notes))
        rows = written[f"{index:04d}"]
        assert len(rows) == len(notes)
        for note, (class_id, *cxcywh) in zip(notes, rows, strict=True):
            ys, xs = np.nonzero(note.visible)
            hull = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            assert note.box_xyxy() == hull
            cx, cy, width, height = (value * SIZE_PX for value in cxcywh)
            corners = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
            assert corners == pytest.approx(hull, abs=1e-3)
            assert class_id == note.class_id
            assert note.visible.sum() >= 0.35 * note.area_px
    assert most >= 4


def test_no_pixel_belongs_to_two_notes() -> None:
    """D16: what lies above hides what lies below."""
    for index in range(12):
        _, notes, _ = draw_sample("valid", index, 0, "detect", SIZE_PX)
        if notes:
            assert np.sum([note.visible for note in notes], axis=0).max() == 1


def test_a_set_of_seventy_shows_every_denomination_in_every_split_and_pictures_without_a_note(
    drawn: Path,
) -> None:
    """D16: seven denominations; an empty label is a background image and legal."""
    empty = 0
    for split, count in (("train", 50), ("valid", 10), ("test", 10)):
        found = labels(drawn, split)
        assert len(found) == count
        assert {int(row[0]) for rows in found.values() for row in rows} == set(range(len(CLASS_NAMES)))
        empty += sum(not rows for rows in found.values())
    assert empty >= 2  # one in twenty


def test_the_layout_is_yolo_and_every_label_lies_inside_its_picture(drawn: Path) -> None:
    """D16: reads YOLO/Ultralytics (`data.yaml`, train/valid/test)."""
    described = (drawn / "data.yaml").read_text()
    assert all(
        f'"{name}"' in described for name in ("1000", "2000", "5000", "10000", "20000", "50000", "100000")
    )
    assert "path: .\n" in described and "nc: 7\n" in described
    for split in SPLITS:
        found = labels(drawn, split)
        pictures = sorted((drawn / "images" / split).glob("*.jpg"))
        assert [picture.stem for picture in pictures] == list(found)
        assert cv2.imread(str(pictures[0])).shape == (SIZE_PX, SIZE_PX, 3)
        for class_id, cx, cy, width, height in (row for rows in found.values() for row in rows):
            assert class_id in range(len(CLASS_NAMES))
            assert width > 0 and height > 0
            assert cx - width / 2 >= -1e-6 and cx + width / 2 <= 1 + 1e-6
            assert cy - height / 2 >= -1e-6 and cy + height / 2 <= 1 + 1e-6
    assert not (drawn / samples.UNFINISHED).exists()


def test_most_notes_are_large_enough_to_read(drawn: Path) -> None:
    """D16: a fair test of the pipeline."""
    sides = [max(row[3:]) for split in SPLITS for rows in labels(drawn, split).values() for row in rows]
    assert np.mean(np.array(sides) >= 0.2) > 0.95


def test_the_classification_set_has_a_folder_per_denomination(tmp_path: Path) -> None:
    """D16: `--task classify`, a folder per class with splits; row A28."""
    summary = write_samples(tmp_path / "classes", images=70, task="classify", size_px=96)
    for split in SPLITS:
        folders = sorted((tmp_path / "classes" / split).iterdir())
        assert {folder.name for folder in folders} == set(CLASS_NAMES)
        assert all(any(folder.glob("*.jpg")) for folder in folders)
    assert summary.notes == summary.images == 70
    assert sum(summary.per_class.values()) == 70
    _, notes, _ = draw_sample("train", 0, 0, "classify", 96)
    left, top, right, bottom = notes[0].box_xyxy()
    assert max(right - left, bottom - top) > 0.5 * 96


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("specimen", SPECIMENS, ids=lambda specimen: specimen.name)
def test_every_side_of_every_note_bears_the_word_spesimen(specimen: samples.Specimen, side: str) -> None:
    """D16: plainly marked as specimens, not reproductions."""
    gray = cv2.cvtColor(draw_specimen(specimen.value, side), cv2.COLOR_RGB2GRAY).astype(float)
    letters = mark_mask(specimen, side)
    around = cv2.dilate(letters, np.ones((9, 9), np.uint8))
    assert letters.shape == gray.shape
    assert (letters > 250).mean() > 0.03
    assert gray[letters > 250].mean() < gray[(around > 0) & (letters == 0)].mean() - 12


def test_denominations_differ_in_colour_and_sides_differ_in_drawing() -> None:
    """D16: seven denominations with colour, numeral, pattern; both sides."""
    tints = {
        specimen.name: np.mean([draw_specimen(specimen.value, side).mean((0, 1)) for side in SIDES], axis=0)
        for specimen in SPECIMENS
    }
    for name, tint in tints.items():
        assert min(np.linalg.norm(tint - other) for key, other in tints.items() if key != name) > 15
    for specimen in SPECIMENS:
        obverse, reverse = (draw_specimen(specimen.value, side).astype(float) for side in SIDES)
        assert np.abs(obverse - reverse).mean() > 15


def test_the_readme_of_the_set_tells_in_both_languages_what_it_is(drawn: Path) -> None:
    """D16: own notes, marked; free to use."""
    said = (drawn / "README.txt").read_text(encoding="utf-8")
    assert "bukan alat pembayaran" in said and "no means of payment" in said
    assert "--seed 3" in said and "MIT" in said


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"images": 9}, "samples_too_few"),
        ({"task": "segment"}, "samples_task_unknown"),
        ({"size_px": 20}, "samples_size_out_of_range"),
        ({"seed": -1}, "samples_seed_negative"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_before_a_file_is_written(
    tmp_path: Path, arguments: dict[str, int | str], code: str
) -> None:
    """Row D16: an error names the value, and no option of the command line: in Python there is none."""
    with pytest.raises(DataInvalid) as caught:
        write_samples(tmp_path / "out", **arguments)
    assert caught.value.code == code
    for language in LANGUAGES:
        message = caught.value.message(language)
        assert str(*arguments.values()) in message and "--" not in message
    assert not (tmp_path / "out").exists()


def test_a_folder_with_files_in_it_is_left_alone(tmp_path: Path) -> None:
    """Row D16."""
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(DataInvalid) as caught:
        write_samples(tmp_path)
    assert caught.value.code == "samples_out_not_empty"
    assert str(tmp_path) in caught.value.message("id")
    assert contents(tmp_path) == {"mine.txt": b"keep"}


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """Row D16."""
    (tmp_path / "file").write_text("")
    with pytest.raises(DataInvalid) as caught:
        write_samples(tmp_path / "file")
    assert caught.value.code == "samples_out_not_a_folder"
    with pytest.raises(DataInvalid) as caught:
        write_samples(tmp_path / "file" / "below")
    assert caught.value.code == "samples_out_not_writable"
    assert "below" in caught.value.message("en")


def test_an_interrupted_drawing_leaves_nothing_that_looks_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D16: never a half-written data set; the same command can be given again."""
    drawn_so_far: Counter[str] = Counter()

    def interrupted(*arguments: object) -> object:
        drawn_so_far["pictures"] += 1
        if drawn_so_far["pictures"] == 5:
            raise KeyboardInterrupt
        return draw_sample(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(samples, "draw_sample", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_samples(tmp_path / "out", images=10, size_px=96)
    assert contents(tmp_path / "out") == {}
    assert write_samples(tmp_path / "out", images=10, size_px=96).images == 10
