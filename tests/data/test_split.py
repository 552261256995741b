"""Splits by groups. Row D10: near-duplicates and augmented copies never cross train, valid and test."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from smartcash.backend.formats import (
    DataSet,
    Sample,
    count_boxes,
    read_dataset,
    resplit,
    shares_of,
    splitting,
    write_dataset,
)
from smartcash.backend.formats.alike import _candidates, near_duplicates
from smartcash.backend.formats.model import Findings
from smartcash.backend.formats.splitting import split_by_groups, stem_of_original
from smartcash.backend.images import read_image, write_image
from smartcash.domain.errors import DataInvalid

Draw = Callable[..., Path]


def folders(root: Path, draw: Draw, per_class: int = 20) -> Path:
    """An unsplit set for classification: three classes, every picture unlike the others."""
    for number, name in enumerate(("1000", "2000", "5000")):
        for index in range(per_class):
            draw(root / name / f"{index}.jpg", 1000 * number + index)
    return root


def split_of_each(data: DataSet) -> dict[str, str]:
    return {sample.digest: split for split, found in data.splits.items() for sample in found}


@pytest.mark.parametrize(
    ("stem", "original"),
    [
        ("010000_211_png.rf.4fa429e4aa3b425435f82a06b76067fd", "010000_211"),
        ("1 - Copy", "1"),
        ("1 - Copy (2)", "1"),
        ("uang - Salinan", "uang"),
        ("note_aug_3", "note"),
        ("note_flip_rot90", "note"),
        ("IMG_20240105_120000_BURST003", "IMG_20240105_120000"),
        ("copy", "copy"),
        ("rp1000_g001_0", "rp1000_g001_0"),
        ("photocopy", "photo"),
    ],
)
def test_names_that_mark_a_copy_lead_to_the_original(stem: str, original: str) -> None:
    assert stem_of_original(stem) == original


def test_a_number_in_brackets_is_a_copy_only_beside_its_original(tmp_path: Path, draw: Draw) -> None:
    for index, name in enumerate(("a", "a (2)", "note (1)", "note (2)", "note (3)")):
        draw(tmp_path / "1000" / f"{name}.jpg", index)
    draw(tmp_path / "2000" / "a.jpg", 9)
    samples = splitting.grouped(read_dataset(tmp_path).samples, tmp_path, look=False)
    assert sorted(Counter(sample.group for sample in samples).values()) == [1, 1, 1, 1, 2]


def test_copies_in_every_disguise_are_one_group(tmp_path: Path, draw: Draw) -> None:
    root = folders(tmp_path / "set", draw)
    original = read_image(draw(root / "1000" / "first.jpg", 77, 320, 240))
    image = Image.fromarray(original)
    ImageEnhance.Brightness(image).enhance(0.7).save(root / "1000" / "darker.jpg")
    ImageEnhance.Contrast(image).enhance(0.8).save(root / "1000" / "flatter.png")
    image.resize((200, 150)).save(root / "1000" / "smaller.webp")
    image.save(root / "1000" / "recompressed.jpg", quality=30)
    shutil.copy(root / "1000" / "first.jpg", root / "1000" / "again.jpg")
    Image.fromarray(original[:, ::-1].copy()).save(root / "1000" / "first_flip.jpg")
    noisy = original + np.random.default_rng(0).normal(0, 4, original.shape)
    write_image(root / "1000" / "noisy.png", noisy.clip(0, 255).astype(np.uint8))
    data = read_dataset(root)
    groups = {sample.path.stem: sample.group for sample in data.samples}
    disguises = ("first", "darker", "flatter", "smaller", "recompressed", "again", "first_flip", "noisy")
    assert {groups[name] for name in disguises} == {"1000/again.jpg"}
    assert max(Counter(groups.values()).values()) <= len(disguises)


def test_unlike_pictures_are_not_taken_for_copies(tmp_path: Path, draw: Draw) -> None:
    paths = [draw(tmp_path / f"{index}.jpg", index) for index in range(300)]
    assert len(list(near_duplicates(paths))) <= 2


def test_candidates_are_exactly_the_pairs_within_seven_bits() -> None:
    rng = np.random.default_rng(0)
    seeds = rng.integers(0, 256, (60, 2, 8), np.uint8)
    noise = np.packbits(rng.random((5, 60, 2, 64)) < 0.06, axis=-1)
    hashes = (seeds ^ noise).reshape(-1, 2, 8)
    bits = np.unpackbits(hashes, axis=2)
    distance = (bits[:, None] != bits[None]).sum(axis=3).min(axis=2)
    expected = {(i, j) for i, j in np.argwhere(distance <= 7).tolist() if i < j}
    found = {pair for i, j in _candidates(hashes) for pair in zip(i.tolist(), j.tolist())}
    assert found == expected and len(expected) > 100


def test_a_set_without_splits_gets_70_15_15_in_every_class(tmp_path: Path, draw: Draw) -> None:
    data = read_dataset(folders(tmp_path / "set", draw), seed=5)
    counts = {split: count_boxes(found, 3).tolist() for split, found in data.splits.items()}
    assert counts == {"train": [14] * 3, "valid": [3] * 3, "test": [3] * 3}
    assert data.split_seed == 5 and data.report.counts() == {"data_split_made": 1}


def test_the_split_depends_on_seed_and_pictures_not_on_names_or_place(tmp_path: Path, draw: Draw) -> None:
    first = read_dataset(folders(tmp_path / "one", draw))
    assert split_of_each(read_dataset(folders(tmp_path / "two", draw))) == split_of_each(first)
    for path in (tmp_path / "two").rglob("*.jpg"):
        path.rename(path.with_stem(f"x{hashlib.md5(path.stem.encode()).hexdigest()}"))
    assert split_of_each(read_dataset(tmp_path / "two")) == split_of_each(first)
    assert split_of_each(read_dataset(tmp_path / "two", seed=1)) != split_of_each(first)


def test_a_missing_valid_is_carved_from_train_and_a_missing_test_stays_missing(
    yolo: Path, draw: Draw
) -> None:
    for index in range(20):
        draw(yolo / "images" / "train" / f"more_{index}.jpg", 100 + index)
        (yolo / "labels" / "train" / f"more_{index}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    shutil.rmtree(yolo / "images" / "valid")
    (yolo / "data.yaml").write_text("train: images/train\ntest: images/test\nnames: [1000, 2000]\n")
    data = read_dataset(yolo)
    assert {split: len(found) for split, found in data.splits.items()} == {"train": 21, "valid": 3, "test": 2}
    assert "data_split_valid" in data.report.counts()
    (yolo / "data.yaml").write_text("train: images/train\nnames: [1000, 2000]\n")
    data = read_dataset(yolo)
    assert list(data.splits) == ["train", "valid"] and data.split_seed == 0
    assert {"data_split_valid", "data_split_no_test"} <= set(data.report.counts())


def test_a_valid_that_is_train_again_is_not_used(yolo: Path) -> None:
    (yolo / "data.yaml").write_text("train: images/train\nval: images/train\nnames: [1000, 2000]\n")
    data = read_dataset(yolo)
    train, valid = ({sample.path for sample in data.splits[split]} for split in ("train", "valid"))
    assert not train & valid and len(train | valid) == 4
    assert "data_split_same" in data.report.counts()


def test_too_few_groups_are_split_by_picture_and_said(tmp_path: Path, draw: Draw) -> None:
    for index in range(12):
        draw(tmp_path / "set" / "1000" / f"shot_burst{index:03}.jpg", 1 + index % 3)
    data = read_dataset(tmp_path / "set")
    assert "data_split_no_groups" in data.report.counts()
    assert set(data.splits) >= {"train", "valid"}


def made_up_samples(sizes: list[tuple[int, int]]) -> list[Sample]:
    """Groups of `size` samples of class `label`, told apart by name."""
    return [
        Sample(
            Path(f"/x/{group}_burst{index}.jpg"),
            (8, 8),
            np.zeros((0, 4), np.float32),
            np.array([label]),
            "",
            hashlib.sha256(f"{group} {index}".encode()).hexdigest(),
        )
        for group, (size, label) in enumerate(sizes)
        for index in range(size)
    ]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3)), min_size=9, max_size=60), st.integers(0, 99))
def test_a_group_never_crosses_splits(sizes: list[tuple[int, int]], seed: int) -> None:
    samples = made_up_samples(sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splitting, "near_duplicates", lambda paths: [])
        made = split_by_groups(samples, 4, Path("/x"), seed, Findings(Path("/x")))
        again = split_by_groups(samples[::-1], 4, Path("/x"), seed, Findings(Path("/x")))
    assert sorted(s.path for found in made.values() for s in found) == sorted(s.path for s in samples)
    where = {(sample.path.stem.split("_")[0], split) for split, found in made.items() for sample in found}
    assert len(where) == len(sizes)
    assert {split: {s.path for s in found} for split, found in made.items()} == {
        split: {s.path for s in found} for split, found in again.items()
    }
    assert len(made["train"]) >= 0.5 * len(samples)


def test_resplit_writes_a_new_set_and_never_touches_the_original(tmp_path: Path, draw: Draw) -> None:
    root = folders(tmp_path / "set", draw)
    before = {path: path.read_bytes() for path in sorted(root.rglob("*.jpg"))}
    data = resplit(read_dataset(root), seed=3)
    write_dataset(data, tmp_path / "out")
    assert split_of_each(read_dataset(tmp_path / "out")) == split_of_each(data)
    assert {path: path.read_bytes() for path in sorted(root.rglob("*.jpg"))} == before
    for out, code in ((tmp_path / "out", "data_out_used"), (root / "new", "data_out_inside")):
        with pytest.raises(DataInvalid) as caught:
            write_dataset(data, out)
        assert caught.value.code == code


def test_shares_are_asked_for_in_percent_and_one_of_none_makes_no_split(tmp_path: Path, draw: Draw) -> None:
    data = read_dataset(folders(tmp_path / "set", draw))
    made = resplit(data, shares=shares_of(30, 20))
    assert {split: len(found) for split, found in made.splits.items()} == {
        "train": 30,
        "valid": 18,
        "test": 12,
    }
    made = resplit(data, shares=shares_of(20, 0))
    assert {split: len(found) for split, found in made.splits.items()} == {"train": 48, "valid": 12}
    assert "data_split_class" not in made.report.counts()


def test_a_class_that_is_not_in_every_split_is_told_of_and_what_was_told_of_the_old_splits_is_not(
    tmp_path: Path, draw: Draw
) -> None:
    """D9: with the number of its pictures; fewer pictures than splits are not split at all."""
    for split in ("train", "valid", "test"):
        folders(tmp_path / "set" / split, draw, per_class=6)
    shutil.rmtree(tmp_path / "set" / "train" / "5000")
    for spare in sorted((tmp_path / "set").glob("*/5000/*.jpg"))[:-2]:
        spare.unlink()
    data = read_dataset(tmp_path / "set")
    assert "data_class_starved" in data.report.counts()
    report = resplit(data).report
    absent = [each for each in report.findings if each.code == "data_split_class"]
    assert {(each.value, each.facts["count"]) for each in absent} == {("5000", 2)}
    assert "data_class_starved" not in report.counts() and "is in 2 pictures" in absent[0].message("en")

    few = folders(tmp_path / "few", draw, per_class=1)
    assert len(resplit(read_dataset(few)).splits) == 3
    next(few.rglob("*.jpg")).unlink()
    with pytest.raises(DataInvalid) as refused:
        resplit(read_dataset(few))
    assert (refused.value.code, refused.value.facts["images"]) == ("data_split_too_small", 2)


def test_a_picture_that_is_gone_when_it_is_to_be_copied_is_named_as_such(tmp_path: Path, draw: Draw) -> None:
    data = resplit(read_dataset(folders(tmp_path / "set", draw)))
    gone = data.splits["train"][0].path
    gone.unlink()
    with pytest.raises(DataInvalid) as refused:
        write_dataset(data, tmp_path / "out")
    assert (refused.value.code, refused.value.facts["path"]) == ("picture_unreadable", str(gone))


@pytest.mark.photos
def test_groups_of_real_photos_agree_with_those_made_by_hand(photos: Path) -> None:
    """The file names of this set bear its makers' near-duplicate groups."""
    data = read_dataset(photos / "rupiah-detect")
    samples = splitting.grouped(data.samples, data.root, look=True)
    by_hand: dict[str, list[str]] = {}
    for sample in samples:
        by_hand.setdefault(sample.path.stem.rsplit("_", 1)[0], []).append(sample.group)
    pairs = [(a, b) for found in by_hand.values() for i, a in enumerate(found) for b in found[i + 1 :]]
    together = sum(a == b for a, b in pairs) / len(pairs)
    largest = max(Counter(sample.group for sample in samples).values())
    assert together >= 0.9 and largest <= 25
