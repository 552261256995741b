"""Data sets in every format, with everything strange in them. Rows D9 (data health), A28 (each step checked)."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from smartcash.backend.formats import (
    FORMATS,
    DataSet,
    Task,
    verify_images,
    write_dataset,
)
from smartcash.backend.formats import read_dataset as read_dataset_silently
from smartcash.backend.formats.files import Listing, natural_key, read_yaml
from smartcash.backend.formats.known.yolo import read_marks
from smartcash.backend.formats.model import KINDS, Findings
from smartcash.domain.errors import DataInvalid
from smartcash.utils.i18n import LANGUAGES, catalogue

Draw = Callable[..., Path]


def read_dataset(path: Path, **options: object) -> DataSet:
    """Reads, and says every finding in every language, so that no text lacks one of its facts."""
    data = read_dataset_silently(path, **options)  # type: ignore[arg-type]
    for finding in data.report.findings:
        for language in LANGUAGES:
            assert len(finding.message(language)) > 20
    return data


def boxes_of(dataset: DataSet) -> dict[str, list[tuple[str, list[float]]]]:
    """stem → [(class name, box)], for comparing data sets."""
    return {
        sample.path.stem: [
            (dataset.classes[label], [round(value, 2) for value in box])
            for label, box in zip(sample.labels_N.tolist(), sample.boxes_N4.tolist())
        ]
        or [(dataset.classes[label], []) for label in sample.labels_N.tolist()]
        for sample in dataset.samples
    }


def findings_of(dataset: DataSet, code: str) -> list[tuple[str, str | None]]:
    return [(finding.where, finding.value) for finding in dataset.report.findings if finding.code == code]


def label(root: Path, split: str, index: int) -> Path:
    return root / "labels" / split / f"{split}_{index}.txt"


# --- every format --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_a_data_set_written_in_a_format_is_recognised_and_read_back_the_same(
    tmp_path: Path, yolo: Path, draw: Draw, name: str
) -> None:
    for index in range(2):  # the same name in two splits, and a picture in a strange kind
        draw(yolo / "images" / ("train", "valid")[index] / "twice.png", 90 + index)
        label(yolo, ("train", "valid")[index], 0).with_name("twice.txt").write_text("1 0.4 0.4 0.123 0.2\n")
    original = read_dataset(yolo)
    if FORMATS[name].task == "classify":
        original = read_dataset(_folders(tmp_path / "folders", draw))
    write_dataset(original, tmp_path / "out", format=name)
    back = read_dataset(tmp_path / "out")
    assert (back.format, back.task, back.classes) == (name, FORMATS[name].task, original.classes)
    assert {split: len(found) for split, found in back.splits.items()} == {
        split: len(found) for split, found in original.splits.items()
    }
    by_digest = {sample.digest: sample for sample in original.samples}
    for sample in back.samples:
        expected = by_digest[sample.digest]
        np.testing.assert_allclose(sample.boxes_N4, expected.boxes_N4, atol=1e-3)
        np.testing.assert_array_equal(sample.labels_N, expected.labels_N)
        assert sample.size == expected.size
    assert not back.report.of("error", "warning")


@pytest.mark.parametrize("name", FORMATS)
def test_a_zip_of_any_format_reads_like_the_folder(
    tmp_path: Path, yolo: Path, draw: Draw, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMARTCASH_CACHE", str(tmp_path / "cache"))
    source = yolo if FORMATS[name].task == "detect" else _folders(tmp_path / "folders", draw)
    write_dataset(read_dataset(source), tmp_path / "out", format=name)
    (tmp_path / "around").mkdir()
    (tmp_path / "around" / "README.md").write_text("Downloaded from somewhere.")
    shutil.copytree(tmp_path / "out", tmp_path / "around" / "My Notes v3")
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "around")
    first = read_dataset(tmp_path / "packed.zip")
    assert first.content_hash == read_dataset(tmp_path / "out").content_hash
    assert first.root.is_relative_to(tmp_path / "cache")
    assert read_dataset(tmp_path / "packed.zip").root == first.root


def _folders(root: Path, draw: Draw) -> Path:
    seed = 50
    for split, count in (("train", 3), ("valid", 1), ("test", 1)):
        for name in ("1000", "2000", "10000"):
            for index in range(count):
                draw(root / split / name / f"{index}.jpg", seed)
                seed += 1
    return root


def test_every_finding_has_its_words_in_both_languages() -> None:
    for language in LANGUAGES:
        texts = catalogue(language)
        assert {f"problems.{code}" for code in KINDS} <= set(texts)
        assert {f"data.done.{done}" for _, done in KINDS.values()} <= set(texts)


# --- YOLO layouts --------------------------------------------------------------------------------------


def test_yolo_boxes_are_pixels_of_the_upright_picture(yolo: Path) -> None:
    data = read_dataset(yolo)
    assert data.classes == ("1000", "2000") and data.split_seed is None
    assert boxes_of(data)["train_1"] == [("2000", [24.0, 12.0, 40.0, 36.0])]
    sample = data.splits["train"][0]
    assert sample.size == (64, 48)
    assert sample.boxes_N4.dtype == np.float32 and sample.labels_N.dtype == np.int64
    assert not data.report.findings


def test_exif_rotation_counts_before_the_fractions(yolo: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = yolo / "images" / "train" / "train_0.jpg"
    Image.open(path).save(path, exif=exif)
    sample = next(sample for sample in read_dataset(yolo).samples if sample.path.stem == "train_0")
    assert sample.size == (48, 64)
    assert sample.boxes_N4.tolist() == [[18, 16, 30, 48]]


@pytest.mark.parametrize(
    "yaml",
    [
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 2\nnames: ['1000', '2000']",
        "path: /content/datasets/notes\ntrain: train/images\nval: valid/images\ntest: test/images\n"
        "names: {0: 1000, 1: 2000}",
        "train: C:\\Users\\x\\notes\\train\\images\nval: valid\ntest: test\nnames:\n  0: 1000\n  1: 2000",
        "train: [train/images]\nval: [./valid/images/]\ntest: test/images\nnames: [1000, 2000]",
        "\ufefftrain: train/images\r\nval: valid/images\r\ntest: test/images\r\nnames: [1000, 2000]\r\n",
    ],
    ids=["roboflow", "absolute", "windows", "lists", "bom-crlf"],
)
def test_paths_in_a_yaml_are_found_whatever_machine_wrote_them(yolo: Path, yaml: str) -> None:
    expected = boxes_of(read_dataset(yolo))
    for split in ("train", "valid", "test"):
        for kind in ("images", "labels"):
            (yolo / split).mkdir(exist_ok=True)
            (yolo / kind / split).rename(yolo / split / kind)
    (yolo / "data.yaml").write_bytes(yaml.encode())
    for path in (yolo, yolo / "data.yaml"):
        data = read_dataset(path)
        assert boxes_of(data) == expected and data.classes == ("1000", "2000")
        assert not data.report.findings


def test_a_yaml_may_name_lists_of_pictures(yolo: Path) -> None:
    for split in ("train", "valid", "test"):
        names = [f"./images/{split}/{path.name}" for path in sorted((yolo / "images" / split).iterdir())]
        (yolo / f"{split}.txt").write_text("\n".join([*names, "./images/none.jpg"]) + "\n")
    (yolo / "data.yaml").write_text("train: train.txt\nval: valid.txt\ntest: test.txt\nnames: [1000, 2000]\n")
    data = read_dataset(yolo)
    assert {split: len(found) for split, found in data.splits.items()} == {"train": 4, "valid": 2, "test": 2}
    assert findings_of(data, "data_image_missing")[0] == ("train.txt:5", "./images/none.jpg")


def test_folders_without_a_yaml_need_only_a_classes_txt(yolo: Path) -> None:
    expected = boxes_of(read_dataset(yolo))
    (yolo / "data.yaml").unlink()
    (yolo / "classes.txt").write_text("1000\n2000\n")
    assert boxes_of(read_dataset(yolo)) == expected
    (yolo / "classes.txt").unlink()
    data = read_dataset(yolo)
    assert data.classes == ("0", "1") and findings_of(data, "data_classes_guessed")


def test_pictures_and_labels_may_lie_in_one_folder(tmp_path: Path, yolo: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in [*yolo.rglob("*.jpg"), *yolo.rglob("*.txt")]:
        shutil.copy(path, flat)
    (flat / "classes.txt").write_text("1000\n2000\n")
    data = read_dataset(flat)
    assert data.format == "yolo" and len(data.samples) == 8 and data.split_seed == 0


def test_numeric_names_keep_their_text_and_order(yolo: Path) -> None:
    (yolo / "data.yaml").write_text("train: images/train\nval: images/valid\nnames: [1.000, 001, no]\n")
    assert read_dataset(yolo).classes == ("1.000", "001", "no")


def test_nc_alone_names_classes_by_number(yolo: Path) -> None:
    (yolo / "data.yaml").write_text("train: images/train\nval: images/valid\nnc: 2\n")
    data = read_dataset(yolo)
    assert data.classes == ("0", "1") and findings_of(data, "data_classes_guessed")


@pytest.mark.parametrize(
    "content",
    [
        "names: [a\ntrain: x",
        "a: &a [x, x]\nnames: [" + ", ".join(["*a"] * 200) + "]",
        "names: " + "[" * 200 + "]" * 200,
        "names: !!python/object/apply:os.system ['true']\n" + "x" * 2**20,
    ],
    ids=["broken", "aliases", "deep", "large"],
)
def test_hostile_or_broken_yaml_is_refused_with_its_reason(yolo: Path, content: str) -> None:
    (yolo / "data.yaml").write_text(content)
    with pytest.raises(DataInvalid, match=r"data\.yaml"):
        read_dataset(yolo)


def test_yaml_tags_run_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("names: !!python/object/apply:os.system ['touch never']\n")
    assert read_yaml(tmp_path / "a.yaml") == {"names": ["touch never"]}


# --- strange annotations -------------------------------------------------------------------------------

STRANGE_LINES = {
    "0 0.5 0.5 0 0.5": "data_box_zero",
    "0 0.5 0.5 -0.2 0.5": "data_box_negative",
    "0 nan 0.5 0.2 0.2": "data_box_not_finite",
    "0 1e999 0.5 0.2 0.2": "data_box_not_finite",
    "0 320 240 100 80": "data_box_pixels",
    "0 1.5 0.5 0.2 0.2": "data_box_outside",
    "7 0.5 0.5 0.2 0.2": "data_class_range",
    "-1 0.5 0.5 0.2 0.2": "data_class_range",
    "0.5 0.5 0.5 0.2 0.2": "data_class_range",
    "0 0.5 0.5 0.2": "data_line_broken",
    "0 0.1 0.1 0.2 0.1 0.2 0.2 0.3": "data_line_broken",
    "note 0.5 0.5 0.2 0.2": "data_line_broken",
}


@pytest.mark.parametrize("line", STRANGE_LINES)
def test_a_bad_line_is_dropped_and_reported_with_file_line_and_value(yolo: Path, line: str) -> None:
    label(yolo, "train", 0).write_text(f"0 0.5 0.5 0.25 0.5\n{line}\n")
    data = read_dataset(yolo)
    (finding,) = data.report.findings
    assert finding.code == STRANGE_LINES[line]
    assert (finding.file, finding.line) == ("labels/train/train_0.txt", 2)
    assert finding.value in line and finding.done == "dropped"
    assert len(boxes_of(data)["train_0"]) == 1
    with pytest.raises(DataInvalid) as caught:
        read_dataset(yolo, strict=True)
    assert [problem.code for problem in caught.value.problems] == [finding.code]


@pytest.mark.parametrize(
    ("line", "code", "box"),
    [
        ("0 0.9 0.5 0.4 0.5", "data_box_clipped", [44.8, 12, 64, 36]),
        ("0 0,5 0,5 0,25 0,5", "data_line_comma", [24, 12, 40, 36]),
        ("0,0.5,0.5,0.25,0.5", "data_line_comma", [24, 12, 40, 36]),
        ("0 0.5 0.5 0.25 0.5 0.93", "data_line_confidence", [24, 12, 40, 36]),
        ("0 0.25 0.25 0.75 0.25 0.5 0.75", "data_polygon", [16, 12, 48, 36]),
        ("0.0 0.5 0.5 0.25 0.5", None, [24, 12, 40, 36]),
        ("0 0.5 0.5 1.0000001 1", None, [0, 0, 64, 48]),
    ],
)
def test_a_curable_line_is_read_right(yolo: Path, line: str, code: str | None, box: list[float]) -> None:
    label(yolo, "train", 0).write_text(line)
    data = read_dataset(yolo)
    assert list(data.report.counts()) == ([code] if code else [])
    assert boxes_of(data)["train_0"] == [("1000", pytest.approx(box, abs=0.01))]


def test_boxes_and_polygons_may_be_mixed_and_a_repeated_line_counts_once(yolo: Path) -> None:
    label(yolo, "train", 0).write_text(
        "\ufeff0 0.25 0.25 0.75 0.25 0.5 0.75\r\n1 0.5 0.5 0.25 0.5\r\n1 0.5 0.5 0.25 0.5\r\n",
        encoding="utf-8",
    )
    data = read_dataset(yolo)
    assert len(boxes_of(data)["train_0"]) == 2
    assert data.report.counts() == {"data_line_twice": 1, "data_polygon": 1}
    assert findings_of(data, "data_line_twice")[0][0].endswith(":3")


def test_one_box_with_two_classes_is_kept_and_said(yolo: Path) -> None:
    label(yolo, "train", 0).write_text("0 0.5 0.5 0.25 0.5\n1 0.5 0.5 0.25 0.5\n")
    data = read_dataset(yolo)
    assert len(boxes_of(data)["train_0"]) == 2 and findings_of(data, "data_box_two_classes")


def test_empty_and_missing_labels_are_background(yolo: Path) -> None:
    label(yolo, "train", 0).write_text("\n")
    label(yolo, "train", 1).unlink()
    label(yolo, "train", 3).with_name("alone.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    data = read_dataset(yolo)
    assert boxes_of(data)["train_0"] == boxes_of(data)["train_1"] == []
    assert data.samples[0].boxes_N4.shape == (0, 4)
    assert findings_of(data, "data_label_empty") == [("labels/train/train_0.txt", None)]
    assert findings_of(data, "data_label_missing") == [("images/train/train_1.jpg", None)]
    assert findings_of(data, "data_label_alone") == [("labels/train/alone.txt", None)]
    assert [finding.severity for finding in data.report.of("warning")] == ["warning"] * 2


def test_broken_pictures_are_left_out_and_said(yolo: Path) -> None:
    whole = (yolo / "images" / "train" / "train_0.jpg").read_bytes()
    (yolo / "images" / "train" / "train_0.jpg").write_bytes(whole[: len(whole) // 2])
    (yolo / "images" / "valid" / "valid_1.jpg").write_text("version https://git-lfs.github.com/spec/v1\n")
    data = read_dataset(yolo)
    assert (len(data.splits["train"]), len(data.splits["valid"])) == (3, 1)
    assert findings_of(data, "data_image_truncated") == [("images/train/train_0.jpg", None)]
    assert findings_of(data, "data_image_lfs") == [("images/valid/valid_1.jpg", None)]


def test_system_litter_is_ignored(yolo: Path) -> None:
    for name in ("._train_0.jpg", ".DS_Store", "Thumbs.db", "__MACOSX/a.jpg", ".ipynb_checkpoints/a.jpg"):
        path = yolo / "images" / "train" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"litter")
    data = read_dataset(yolo)
    assert len(data.splits["train"]) == 4 and not data.report.of("error", "warning")


def test_the_same_bytes_in_two_splits_are_a_leak(yolo: Path) -> None:
    shutil.copy(yolo / "images" / "train" / "train_0.jpg", yolo / "images" / "test" / "test_0.jpg")
    data = read_dataset(yolo)
    assert findings_of(data, "data_image_leak") == [("images/train/train_0.jpg", None)]


def test_one_picture_with_two_labels_is_said(yolo: Path) -> None:
    shutil.copy(yolo / "images" / "train" / "train_0.jpg", yolo / "images" / "train" / "train_1.jpg")
    data = read_dataset(yolo)
    assert findings_of(data, "data_image_two_labels") == [("images/train/train_0.jpg", None)]
    assert len({sample.group for sample in data.splits["train"]}) == 3


def test_one_picture_in_two_class_folders_is_left_out(tmp_path: Path, draw: Draw) -> None:
    root = _folders(tmp_path / "folders", draw)
    shutil.copy(root / "train" / "1000" / "0.jpg", root / "train" / "2000" / "same.jpg")
    data = read_dataset(root)
    assert len(data.splits["train"]) == 8
    assert findings_of(data, "data_image_two_classes") == [("train/1000/0.jpg", None)]
    assert not findings_of(data, "data_image_repeated"), "what is left out does not count more than others"


def test_folders_that_all_hold_the_same_pictures_leave_nothing_to_train_on_and_it_is_said(
    tmp_path: Path, draw: Draw
) -> None:
    """A10, A33."""
    root = _folders(tmp_path / "folders", draw)
    for other in ("2000", "10000"):
        shutil.rmtree(root / "train" / other)
        shutil.copytree(root / "train" / "1000", root / "train" / other)
    with pytest.raises(DataInvalid) as caught:
        read_dataset(root)
    assert caught.value.code == "data_no_train"
    assert {problem.code for problem in caught.value.problems} == {"data_image_two_classes"}


def test_names_with_blanks_and_letters_of_all_scripts_are_read(yolo: Path) -> None:
    for kind, suffix in (("images", ".jpg"), ("labels", ".txt")):
        path = yolo / kind / "train" / f"train_0{suffix}"
        path.rename(path.with_name(f"uang Rp 1.000 – 日本 ü (2){suffix}"))
    assert boxes_of(read_dataset(yolo))["uang Rp 1.000 – 日本 ü (2)"]


@given(st.text(alphabet="0123456789.-+e ,nai\n\t\0", max_size=120) | st.binary(max_size=80).map(repr))
def test_any_text_as_label_gives_boxes_or_findings(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_text(text)
    for mark in read_marks(path, Findings(path.parent)):
        assert np.isfinite(mark.box).all() and mark.label >= 0 and mark.line is not None


@given(st.lists(st.tuples(st.integers(0, 2), *[st.floats(-2, 2, allow_subnormal=False)] * 4), max_size=6))
def test_boxes_always_lie_inside_the_picture(
    tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[float, ...]]
) -> None:
    root = tmp_path_factory.mktemp("set", numbered=True)
    (root / "images").mkdir()
    (root / "labels").mkdir()
    for index in range(2):
        Image.new("RGB", (37, 23), (index, 0, 0)).save(root / "images" / f"{index}.png")
    (root / "classes.txt").write_text("a\nb\n")
    text = "".join(" ".join(map(repr, line)) + "\n" for line in lines)
    (root / "labels" / "0.txt").write_text(text + "0 0.5 0.5 0.5 0.5\n")
    (root / "labels" / "1.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    for sample in read_dataset(root).samples:
        x1, y1, x2, y2 = sample.boxes_N4.T
        assert ((x1 >= 0) & (y1 >= 0) & (x2 <= 37) & (y2 <= 23) & (x1 < x2) & (y1 < y2)).all()
        assert ((sample.labels_N >= 0) & (sample.labels_N < 2)).all()


# --- COCO ----------------------------------------------------------------------------------------------


def coco(root: Path, draw: Draw, split: str, annotations: list[dict[str, object]], seed: int = 0) -> Path:
    """One Roboflow-like split of two 64 × 48 pictures (ids 7 and 9)."""
    names = [draw(root / split / f"{split}_{index}.jpg", seed + index).name for index in range(2)]
    images = [{"id": 7 + 2 * i, "file_name": name, "width": 64, "height": 48} for i, name in enumerate(names)]
    categories = [
        {"id": 0, "name": "notes", "supercategory": "none"},
        {"id": 90, "name": "2000", "supercategory": "notes"},
        {"id": 4, "name": "1000", "supercategory": "notes"},
    ]
    path = root / split / "_annotations.coco.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def annotation(**changes: object) -> dict[str, object]:
    return {"id": 1, "image_id": 7, "category_id": 90, "bbox": [8, 8, 16, 16], "iscrowd": 0} | changes


def test_coco_ids_are_arbitrary_and_roboflows_empty_group_is_no_class(tmp_path: Path, draw: Draw) -> None:
    coco(tmp_path, draw, "train", [annotation(), annotation(image_id=9, category_id=4, bbox=[0.5, 1, 2, 3])])
    coco(tmp_path, draw, "valid", [annotation()], seed=5)
    data = read_dataset(tmp_path)
    assert (data.format, data.classes) == ("coco", ("2000", "1000"))
    assert boxes_of(data)["train_0"] == [("2000", [8, 8, 24, 24])]
    assert boxes_of(data)["train_1"] == [("1000", [0.5, 1, 2.5, 4])]
    assert list(data.report.counts()) == ["data_split_no_test"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"iscrowd": 1}, "data_crowd"),
        ({"category_id": 33}, "data_class_unknown"),
        ({"image_id": 33}, "data_label_alone"),
        ({"bbox": None}, "data_no_box"),
        ({"bbox": [1, 2, "x", 3]}, "data_no_box"),
        ({"bbox": [8, 8, 0, 16]}, "data_box_zero"),
        ({"bbox": [8, 8, -3, 16]}, "data_box_negative"),
        ({"bbox": [80, 8, 5, 16]}, "data_box_outside"),
        ({"bbox": [8, 8, float("nan"), 5]}, "data_box_not_finite"),
    ],
)
def test_a_strange_coco_annotation_is_dropped_and_said(
    tmp_path: Path, draw: Draw, changes: dict[str, object], code: str
) -> None:
    good = annotation(bbox=[1, 1, 5, 5])
    coco(tmp_path, draw, "train", [good, annotation(**changes), annotation(category_id=4, bbox=[1, 1, 9, 9])])
    coco(tmp_path, draw, "valid", [annotation()], seed=5)
    data = read_dataset(tmp_path)
    assert data.report.counts() == {code: 1, "data_split_no_test": 1}
    assert len(boxes_of(data)["train_0"]) == 2


def test_a_coco_polygon_without_box_gets_the_box_around_it(tmp_path: Path, draw: Draw) -> None:
    polygon = annotation(bbox=[], segmentation=[[4, 5, 20, 5, 20, 30]])
    coco(tmp_path, draw, "train", [polygon, annotation(category_id=4)])
    coco(tmp_path, draw, "valid", [annotation()], seed=5)
    assert boxes_of(read_dataset(tmp_path))["train_0"][0] == ("2000", [4, 5, 20, 30])


def test_coco_as_its_makers_lay_it_out(tmp_path: Path, draw: Draw) -> None:
    for split, seed in (("train2017", 0), ("val2017", 5)):
        path = coco(tmp_path, draw, split, [annotation(), annotation(category_id=4, bbox=[1, 1, 2, 2])], seed)
        (tmp_path / "annotations").mkdir(exist_ok=True)
        path.rename(tmp_path / "annotations" / f"instances_{split}.json")
        (tmp_path / "annotations" / f"person_keypoints_{split}.json").write_text('"images" "annotations"')
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / split).rename(tmp_path / "images" / split)
    data = read_dataset(tmp_path)
    assert {split: len(found) for split, found in data.splits.items()} == {"train": 2, "valid": 2}
    assert data.classes == ("2000", "1000")


def test_coco_file_names_never_lead_outside(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "secret.jpg", 77)
    path = coco(tmp_path / "set", draw, "train", [annotation(), annotation(image_id=9, category_id=4)])
    coco(tmp_path / "set", draw, "valid", [annotation()], seed=5)
    path.write_text(path.read_text().replace("train_0.jpg", "../../secret.jpg"))
    data = read_dataset(tmp_path / "set")
    assert all(sample.path.is_relative_to(tmp_path / "set") for sample in data.samples)
    assert findings_of(data, "data_image_missing")[0][1] == "../../secret.jpg"


@pytest.mark.parametrize("content", ['{"images": [], "annotations": {}, "categories": []}', "[" * 99999])
def test_broken_json_is_refused_with_its_reason(tmp_path: Path, draw: Draw, content: str) -> None:
    path = coco(tmp_path, draw, "train", [])
    path.write_text(content + '"images" "annotations" "categories"'[: 99 if content[0] == "[" else 0])
    with pytest.raises(DataInvalid) as caught:
        read_dataset(tmp_path)
    assert caught.value.code == "data_json"


# --- Pascal VOC ----------------------------------------------------------------------------------------


def voc(path: Path, objects: str, width: int = 64, height: int = 48) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = f"<size><width>{width}</width><height>{height}</height></size>"
    path.write_text(f"<annotation>\n<filename>{path.stem}.jpg</filename>{size}\n{objects}</annotation>\n")
    return path


def thing(name: str, *corners: object) -> str:
    tags = zip(("xmin", "ymin", "xmax", "ymax"), corners)
    box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
    return f"<object>\n<name>{name}</name><bndbox>{box}</bndbox></object>\n"


def test_voc_with_float_corners_and_natural_class_order(tmp_path: Path, draw: Draw) -> None:
    for index, name in enumerate(("10000", "2000", "10000")):
        draw(tmp_path / ("train", "train", "val")[index] / f"{index}.jpg", index)
        voc(tmp_path / ("train", "train", "val")[index] / f"{index}.xml", thing(name, 8.5, 8, 24.25, 24))
    data = read_dataset(tmp_path)
    assert (data.format, data.classes) == ("voc", ("2000", "10000"))
    assert boxes_of(data)["0"] == [("10000", [8.5, 8, 24.25, 24])]
    assert len(data.splits["valid"]) == 1


def test_voc_strange_objects_are_said_with_their_line(tmp_path: Path, draw: Draw) -> None:
    bad = thing("a", 5, 5, 5, 5) + thing("a", "x", 1, 2, 3) + thing("", 1, 1, 5, 5)
    for index, split in enumerate(("train", "valid")):
        draw(tmp_path / split / f"{index}.jpg", index)
        voc(tmp_path / split / f"{index}.xml", thing("a", 1, 1, 9, 9) + (bad if index == 0 else ""))
    voc(tmp_path / "train" / "alone.xml", thing("a", 1, 1, 9, 9))
    draw(tmp_path / "train" / "bare.jpg", 9)
    entity = voc(tmp_path / "train" / "entity.xml", thing("a", 1, 1, 9, 9))
    entity.write_text('<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]>' + entity.read_text())
    data = read_dataset(tmp_path)
    assert findings_of(data, "data_box_zero") == [("train/0.xml:5", "a 5 5 5 5")]
    assert findings_of(data, "data_no_box") == [("train/0.xml:7", "a x 1 2 3")]
    assert findings_of(data, "data_class_unknown") == [("train/0.xml:9", "")]
    assert findings_of(data, "data_label_alone") == [("train/alone.xml", None)]
    assert findings_of(data, "data_label_missing") == [("train/bare.jpg", None)]
    assert findings_of(data, "data_label_unreadable") == [("train/entity.xml", None)]


def test_voc_boxes_drawn_before_the_exif_rotation_are_turned_with_it(tmp_path: Path, draw: Draw) -> None:
    for index, split in enumerate(("train", "valid")):
        draw(tmp_path / split / f"{index}.jpg", index)
        voc(tmp_path / split / f"{index}.xml", thing("a", 0, 0, 16, 12))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored top left is shown top right
    path = tmp_path / "train" / "0.jpg"
    Image.open(path).save(path, exif=exif)
    data = read_dataset(tmp_path)
    assert boxes_of(data)["0"] == [("a", [36, 0, 48, 16])]
    assert findings_of(data, "data_box_rotated") == [("train/0.xml", "64×48")]


@pytest.mark.parametrize(
    ("size", "code", "box"),
    [
        ((128, 96), "data_box_rescaled", [4, 4, 16, 16]),
        ((100, 20), "data_size_wrong", [8, 8, 32, 32]),
        ((0, 0), None, [8, 8, 32, 32]),
    ],
)
def test_voc_boxes_of_another_size_are_scaled_or_said(
    tmp_path: Path, draw: Draw, size: tuple[int, int], code: str | None, box: list[float]
) -> None:
    for index, split in enumerate(("train", "val", "test")):
        draw(tmp_path / split / f"{index}.jpg", index)
        voc(tmp_path / split / f"{index}.xml", thing("a", 8, 8, 32, 32), *(size if index == 0 else (64, 48)))
    data = read_dataset(tmp_path)
    assert list(data.report.counts()) == ([code] if code else [])
    assert boxes_of(data)["0"] == [("a", box)]


# --- folders -------------------------------------------------------------------------------------------


def test_class_folders_are_ordered_as_people_count(tmp_path: Path, draw: Draw) -> None:
    data = read_dataset(_folders(tmp_path, draw))
    assert data.task == "classify" and data.classes == ("1000", "2000", "10000")
    assert data.samples[0].labels_N.tolist() == [0] and data.samples[0].boxes_N4.shape == (0, 4)
    assert sorted(["Rp10", "rp9", "a"], key=natural_key) == ["a", "rp9", "Rp10"]


def test_one_class_folder_alone_is_a_data_set_too(tmp_path: Path, draw: Draw) -> None:
    for index in range(3):
        draw(tmp_path / "set" / "1000" / f"{index}.jpg", index)
    data = read_dataset(tmp_path / "set")
    assert data.classes == ("1000",) and len(data.samples) == 3


def test_a_set_that_has_only_train_keeps_it_as_train(tmp_path: Path, draw: Draw) -> None:
    shutil.copytree(_folders(tmp_path / "all", draw) / "train", tmp_path / "set" / "train")
    data = read_dataset(tmp_path / "set")
    assert list(data.splits) == ["train", "valid"] and data.split_seed == 0


# --- what cannot be used -------------------------------------------------------------------------------


def error_code(path: Path, **options: object) -> str:
    with pytest.raises(DataInvalid) as caught:
        read_dataset(path, **options)  # type: ignore[arg-type]
    for language in LANGUAGES:
        assert len(caught.value.message(language)) > 20
    return caught.value.code


def test_what_is_no_data_set_is_refused_in_words(tmp_path: Path, yolo: Path, draw: Draw) -> None:
    assert error_code(tmp_path / "none") == "data_path_missing"
    (tmp_path / "a.csv").write_text("a,b")
    assert error_code(tmp_path / "a.csv") == "data_path_file"
    (tmp_path / "empty").mkdir()
    assert error_code(tmp_path / "empty") == "data_format_none"
    draw(tmp_path / "bare" / "a.jpg")
    assert error_code(tmp_path / "bare") == "data_format_none"
    assert error_code(yolo, format="kitti") == "data_format_unknown"
    assert error_code(yolo, task="classify") == "data_task"


def test_a_set_without_class_or_box_or_training_picture_is_refused(yolo: Path) -> None:
    for index in range(4):
        label(yolo, "train", index).write_text("")
    assert error_code(yolo) == "data_no_boxes"
    shutil.rmtree(yolo / "images" / "train")
    assert error_code(yolo) == "data_no_train"
    (yolo / "data.yaml").write_text("train: images/train\nval: images/valid\nnames: []\n")
    for path in yolo.rglob("labels/*/*.txt"):
        path.write_text("")
    assert error_code(yolo) == "data_no_class"


# --- zips ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "attributes", "content"),
    [
        ("../evil.txt", 0, b"x"),
        ("/evil.txt", 0, b"x"),
        ("..\\evil.txt", 0, b"x"),
        ("C:/evil.txt", 0, b"x"),
        ("link", 0o120777 << 16, b"/etc"),
        ("bomb.txt", 0, b"\0" * (80 * 2**20)),
    ],
)
def test_a_dangerous_zip_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, attributes: int, content: bytes
) -> None:
    monkeypatch.setenv("SMARTCASH_CACHE", str(tmp_path / "cache"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = attributes
        info.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(info, content)
    assert error_code(tmp_path / "a.zip") == "data_zip_unsafe"
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "a.zip"]


def test_a_damaged_zip_is_refused_and_leaves_nothing(
    tmp_path: Path, yolo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMARTCASH_CACHE", str(tmp_path / "cache"))
    data = bytearray(Path(shutil.make_archive(str(tmp_path / "a"), "zip", yolo)).read_bytes())
    place = data.index(b".jpg") + 40
    data[place : place + 60] = bytes(60)
    (tmp_path / "a.zip").write_bytes(data)
    assert error_code(tmp_path / "a.zip") == "data_zip_broken"
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 cut")
    assert error_code(tmp_path / "a.zip") == "data_zip_broken"
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_what_is_wrong_inside_a_zip_is_told_of_the_zip(yolo: Path, tmp_path: Path) -> None:
    def refused(task: Task | None = None) -> tuple[str, object]:
        shutil.make_archive(str(tmp_path / "a"), "zip", yolo)
        with pytest.raises(DataInvalid) as caught:
            read_dataset(tmp_path / "a.zip", task=task)
        return caught.value.code, caught.value.facts["path"]

    archive = tmp_path / "a.zip"
    assert refused("classify") == ("data_task", str(archive))
    (yolo / "data.yaml").write_text("names: [1000")
    assert refused() == ("data_yaml", str(archive / "data.yaml"))
    (yolo / "data.yaml").unlink()
    shutil.rmtree(yolo / "labels")
    assert refused() == ("data_format_none", str(archive))


def test_a_yaml_in_a_zip_cannot_point_at_the_users_other_pictures(
    tmp_path: Path, yolo: Path, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMARTCASH_CACHE", str(tmp_path / "cache"))
    draw(tmp_path / "private" / "a.jpg", 66)
    yaml = (yolo / "data.yaml").read_text().replace("images/train", f"[images/train, {tmp_path}/private]")
    (yolo / "data.yaml").write_text(yaml)
    shutil.make_archive(str(tmp_path / "a"), "zip", yolo)
    data = read_dataset(tmp_path / "a.zip")
    assert len(data.splits["train"]) == 4 and findings_of(data, "data_image_outside") == [("", "a.jpg")]


# --- the whole -----------------------------------------------------------------------------------------


def test_the_content_hash_moves_with_the_content_and_nothing_else(tmp_path: Path, yolo: Path) -> None:
    before = read_dataset(yolo).content_hash
    assert read_dataset(shutil.copytree(yolo, tmp_path / "elsewhere")).content_hash == before
    label(yolo, "train", 0).write_text("0 0.500000 0.5 0.25 0.5\r\n")
    assert read_dataset(yolo).content_hash == before
    label(yolo, "train", 0).write_text("1 0.5 0.5 0.25 0.5\n")
    assert read_dataset(yolo).content_hash != before


def test_pictures_that_only_a_full_decode_finds_broken_are_dropped_by_verify(yolo: Path) -> None:
    path = yolo / "images" / "train" / "train_0.jpg"
    Image.open(path).save(path.with_suffix(".png"))
    path.unlink()
    data = bytearray(path.with_suffix(".png").read_bytes())
    place = data.index(b"IDAT")
    data[place + 10 : place + 40] = bytes(30)
    path.with_suffix(".png").write_bytes(data)
    read = read_dataset(yolo)
    assert len(read.splits["train"]) == 4
    checked = verify_images(read, workers=2)
    assert len(checked.splits["train"]) == 3 and checked.content_hash != read.content_hash
    assert findings_of(checked, "data_image_unreadable") == [("images/train/train_0.png", None)]
    assert verify_images(checked) is checked


def test_folders_that_link_in_a_circle_are_walked_once(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "a" / "b.jpg")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert len(Listing(tmp_path).images) == 1


# --- real photos ---------------------------------------------------------------------------------------


@pytest.mark.photos
def test_the_odd_photo_set_is_read_without_a_crash_and_every_oddity_is_named(photos: Path) -> None:
    data = read_dataset(photos / "odd", format="yolo")
    counts = data.report.counts()
    assert counts["data_image_lfs"] == 2 and counts["data_image_suffix"] == 3 and counts["data_polygon"] == 2
    polygons = boxes_of(data)
    assert len(polygons["polygon_0"]) == 1 and len(polygons["polygon_1"]) == 5


@pytest.mark.photos
def test_zero_area_boxes_of_a_published_voc_set_are_dropped(photos: Path, tmp_path: Path, draw: Draw) -> None:
    for index, name in enumerate(("BloodImage_00338", "BloodImage_00343")):
        folder = tmp_path / ("train", "valid")[index]
        draw(folder / f"{name}.jpg", index, 640, 480)
        shutil.copy(photos / "odd" / f"zero_area_{name}.xml", folder / f"{name}.xml")
    data = read_dataset(tmp_path)
    assert len(findings_of(data, "data_box_zero")) == 2 and "RBC" in data.classes


@pytest.mark.photos
def test_the_same_photo_with_two_labels_is_named(photos: Path, tmp_path: Path) -> None:
    for name in ("2_taka_32", "2_taka_38"):
        shutil.copy(photos / "odd" / "same_image.jpeg", tmp_path / f"{name}.jpeg")
        shutil.copy(photos / "odd" / f"same_image_label_{name}.txt", tmp_path / f"{name}.txt")
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    data = read_dataset(tmp_path)
    assert data.report.counts()["data_image_two_labels"] == 1


@pytest.mark.photos
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("rupiah-detect", (525, 113, 112)),
        ("bccd-detect", (255, 55, 54)),
        ("rupiah-classify", (651, 141, 138)),
    ],
)
def test_the_shared_sets_read_clean(photos: Path, name: str, sizes: tuple[int, ...]) -> None:
    data = read_dataset(photos / name)
    assert tuple(len(found) for found in data.splits.values()) == sizes
    assert not data.report.of("error", "warning")
