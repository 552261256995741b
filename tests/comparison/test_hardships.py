"""Hardships change pictures as they say (D14)."""

from __future__ import annotations

import numpy as np
import pytest

from smartcash.backend.hardships import HARDSHIPS, Hardship
from smartcash.backend.samples import draw_background

BOXES = np.array([[20, 30, 90, 65], [60, 70, 120, 95]], np.float32)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.clip(draw_background(np.random.default_rng(0), 128), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("hardship", HARDSHIPS, ids=lambda each: each.name)
def test_a_hardship_is_the_same_for_the_same_picture_and_leaves_the_original_alone(
    hardship: Hardship, picture: np.ndarray
) -> None:
    """D14."""
    before, boxes = picture.copy(), BOXES.copy()
    for level in (1, 2, 3):
        (image, moved), (again, _) = (hardship.at(level)(picture, BOXES, 7) for _ in range(2))
        np.testing.assert_array_equal(image, again)
        assert (image.dtype, image.ndim, moved.shape) == (np.uint8, 3, BOXES.shape)
        height, width = image.shape[:2]
        assert (moved[:, 2:] - moved[:, :2] > 1).all()
        assert moved.min() >= -1
        assert (moved[:, 2:] <= (width + 1, height + 1)).all()
    np.testing.assert_array_equal(picture, before)
    np.testing.assert_array_equal(boxes, BOXES)


@pytest.mark.parametrize("hardship", HARDSHIPS, ids=lambda each: each.name)
def test_a_classifiers_picture_suffers_as_a_whole(hardship: Hardship, picture: np.ndarray) -> None:
    """D14."""
    image, boxes = hardship.at(2)(picture, np.zeros((0, 4), np.float32), 0)
    assert boxes.shape == (0, 4)
    assert image.shape != picture.shape or (image != picture).any()


@pytest.mark.parametrize("name", ["dark", "blur", "noise", "jpeg", "cover", "fold"])
def test_each_level_is_harder_than_the_one_before(name: str, picture: np.ndarray) -> None:
    """D14: the picture is farther from the original."""
    hardship = next(each for each in HARDSHIPS if each.name == name)
    apart = [
        np.mean(
            [
                np.abs(hardship.at(level)(picture, BOXES, seed)[0].astype(float) - picture).mean()
                for seed in range(8)
            ]
        )
        for level in (1, 2, 3)
    ]
    assert 0 < apart[0] < apart[1] < apart[2]


def test_a_quarter_turn_moves_boxes_with_the_pixels() -> None:
    """D14: a white note on black is where its box says."""
    picture = np.zeros((80, 120, 3), np.uint8)
    picture[30:50, 10:60] = 255
    turned = next(each for each in HARDSHIPS if each.name == "rotation").at(3)
    for index in range(6):
        image, boxes = turned(picture, np.array([[10, 30, 60, 50]], np.float32), index)
        rows, columns = np.nonzero(image[..., 0] > 127)
        assert boxes[0] == pytest.approx(
            [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], abs=1.5
        )


def test_a_folded_note_is_shorter_and_its_box_too() -> None:
    """D14: what the note lay on shows where its end was."""
    picture = np.full((80, 200, 3), 10, np.uint8)
    picture[20:60, 40:160] = 200
    fold = next(each for each in HARDSHIPS if each.name == "fold").at(2)
    for index in range(6):
        image, boxes = fold(picture, np.array([[40, 20, 160, 60]], np.float32), index)
        columns = np.flatnonzero((image[20:60, :, 0] > 100).all(axis=0))
        assert boxes[0, 2] - boxes[0, 0] == pytest.approx(120 * 0.7)
        assert boxes[0, [0, 2]].tolist() == pytest.approx([columns.min(), columns.max() + 1])
