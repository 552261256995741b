"""Pictures of predictions (A10, D15): the notes' colours, readable text, nothing lost at the rim."""

import numpy as np
import pytest

from smartcash.backend.drawing import INK, PALETTE, PAPER, WHITE, class_colours, contact_sheet, draw_boxes
from smartcash.domain.banknotes import colour_of, display_names

CLASSES = ["1000", "50000", "hand"]


def gray(height=240, width=320, level=128):
    return np.full((height, width, 3), level, np.uint8)


def has(image, colour):
    return bool((image == np.array(colour, np.uint8)).all(axis=2).any())


def test_a_note_is_drawn_in_its_own_colour_and_anything_else_in_the_palettes():
    image = draw_boxes(gray(), [[40, 80, 200, 160], [220, 80, 300, 160]], [1, 2], [0.98, 0.5], CLASSES)
    assert has(image, colour_of(50_000))
    assert has(image, PALETTE[0])
    assert not has(image, colour_of(1_000))
    assert class_colours(CLASSES) == (colour_of(1_000), colour_of(50_000), PALETTE[0])


def test_the_picture_of_the_caller_is_not_changed():
    image = gray()
    draw_boxes(image, [[40, 80, 200, 160]], [0], None, CLASSES)
    assert (image == 128).all()


def test_without_boxes_the_picture_stays_as_it_is():
    assert (draw_boxes(gray(), [], [], [], CLASSES) == gray()).all()


def test_every_side_of_a_box_beyond_the_rim_is_still_seen():
    image = draw_boxes(gray(), [[-50, -50, 500, 500]], [1], [0.9], CLASSES)
    blue = (image == np.array(colour_of(50_000), np.uint8)).all(axis=2)
    assert blue[1].any() and blue[-1].any() and blue[:, 0].any() and blue[:, -1].any()


@pytest.mark.parametrize("size", [(1, 1), (16, 300), (224, 224), (3000, 4000)])
def test_pictures_of_any_size_keep_their_size(size):
    image = gray(*size)
    drawn = draw_boxes(image, [[0, 0, size[1], size[0]]], [0], [1.0], CLASSES, truth=([[0, 0, 5, 5]], [1]))
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8


def test_text_is_light_on_dark_colours_and_dark_on_light_ones():
    on_blue = draw_boxes(gray(600, 800), [[100, 200, 700, 500]], [1], [0.98], CLASSES)
    assert has(on_blue, WHITE) and not has(on_blue, INK)
    yellow = draw_boxes(gray(600, 800), [[100, 200, 700, 500]], [6], [0.98], list("abcdefg"))
    assert has(yellow, INK)


def test_truth_is_thinner_than_a_prediction_and_has_no_text():
    box = [[40, 80, 200, 160]]
    truth = draw_boxes(gray(), [], [], [], CLASSES, truth=(box, [1]))
    found = draw_boxes(gray(), box, [1], [0.9], CLASSES)
    assert has(truth, colour_of(50_000)) and has(truth, WHITE)
    assert (truth != gray()).any(axis=2).sum() < (found != gray()).any(axis=2).sum() / 2
    assert (truth[:80] == 128).all()


def test_names_that_stand_for_the_same_value_stay_apart():
    assert display_names(["1000_depan", "1000_belakang", "2000"]) == (
        "1000_depan",
        "1000_belakang",
        "Rp2.000",
    )


@pytest.mark.parametrize(
    ("boxes", "labels", "scores"),
    [([[0, 0, 1, 1]], [3], [0.5]), ([[0, 0, 1, 1]], [0, 1], [0.5]), ([[0, 0, 1, 1]], [0], [0.5, 0.6])],
)
def test_what_does_not_fit_is_refused(boxes, labels, scores):
    with pytest.raises(ValueError):
        draw_boxes(gray(), boxes, labels, scores, CLASSES)


def test_a_picture_that_is_not_rgb_is_refused():
    with pytest.raises(ValueError, match="RGB"):
        draw_boxes(np.zeros((10, 10), np.uint8), [], [], [], CLASSES)


def test_a_contact_sheet_holds_every_picture_in_rows_and_captions_below():
    pictures = [gray(100, 200, 100 + 10 * index) for index in range(1, 6)]
    bare = contact_sheet(pictures, columns=3, cell_px=100)
    captioned = contact_sheet(pictures, columns=3, captions=["a note"] * 4 + ["x" * 300], cell_px=100)
    assert bare.shape == (2 * 54 + 4, 3 * 104 + 4, 3)  # two rows of 50 px, three columns of 100 px, gaps of 4
    assert captioned.shape[0] > bare.shape[0] and captioned.shape[1] == bare.shape[1]
    assert all(has(bare, (100 + 10 * index,) * 3) for index in range(1, 6))
    assert has(bare, PAPER)
    assert captioned.min() < 90 <= bare.min()  # the letters


def test_a_contact_sheet_of_nothing_is_refused():
    with pytest.raises(ValueError, match="0 and 4"):
        contact_sheet([])
    with pytest.raises(ValueError, match="captions"):
        contact_sheet([gray()], captions=[])
