"""Augmentation: the boxes follow the picture, numbers come from counting, strange inputs do not break it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartcash.backend.augment import PRESETS, Augment, Parts, closing, resolve_parts
from smartcash.backend.preprocess import Preprocess
from smartcash.backend.sampler import EpochBatches, balance_weights
from smartcash.domain.config import AugmentConfig

SIZE = 128
PREPROCESS = Preprocess(SIZE, (0.5,) * 3, (0.5,) * 3)


class Given:
    """Pictures that all have the same boxes and labels."""

    def __init__(self, images: Sequence[np.ndarray], boxes: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.boxes, self.labels = images, boxes, labels

    def __len__(self) -> int:
        return len(self.images)

    def labelled(self, index: int) -> tuple[tuple[int, int], np.ndarray, np.ndarray]:
        height, width = self.images[index].shape[:2]
        return (width, height), self.boxes, self.labels

    def image(self, index: int) -> np.ndarray:
        return self.images[index]


def picture_with_block(width: int, height: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """Black with one white rectangle."""
    image = np.zeros((height, width, 3), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    return image


def block_in(image: np.ndarray) -> np.ndarray:
    """The hull of what is bright."""
    y, x = np.nonzero(image[..., 0] > 127)
    return np.array([x.min(), y.min(), x.max() + 1, y.max() + 1])


@pytest.mark.parametrize(
    "name",
    [
        f.name
        for f in Parts.__dataclass_fields__.values()
        if f.name
        in ("scale", "aspect", "translate", "perspective", "rotate_deg", "rotate_any", "flip", "mosaic")
    ],
)
def test_boxes_follow_the_picture_through(name: str) -> None:
    """A3: after each kind of geometry the box is the hull of the same bright block, to two pixels."""
    values = {
        "scale": 1.4,
        "aspect": 0.3,
        "translate": 0.15,
        "perspective": 0.1,
        "rotate_deg": 40,
        "rotate_any": 1.0,
        "flip": 1.0,
        "mosaic": 1.0,
    }
    augment = Augment(Parts(**{name: values[name]}), PREPROCESS, seed=1)
    box = (60, 50, 110, 90)
    image = picture_with_block(200, 150, box)
    given = Given([image], np.array([box], np.float32), np.array([2]))
    seen = 0
    for epoch in range(20):
        moved, found, kept = augment(epoch, 0, given)
        assert moved.shape == (SIZE, SIZE, 3) and set(kept.tolist()) <= {2}
        if name == "mosaic":
            hull = np.concatenate((found[:, :2].min(0), found[:, 2:].max(0))) if len(found) else None
        else:
            hull = found[0] if len(found) else None
        if hull is not None:
            clear = hull.min() > 2 and hull.max() < SIZE - 2 and len(found) in (1, 4)
            if clear:
                seen += 1
                bright = moved.copy()
                bright[bright == PREPROCESS.pad_value] = 0
                assert np.abs(block_in(bright) - hull).max() <= 2.0
    assert seen >= 3


def test_a_sample_depends_on_seed_epoch_and_index_alone() -> None:
    """D1: counting, not generator state: asked twice, in any order, the same bytes."""
    parts = PRESETS["detect"]["strong"]
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (5, 60, 80, 3), dtype=np.uint8)
    given = Given(images, np.array([[10, 10, 50, 40]], np.float32), np.array([0]))
    first = [Augment(parts, PREPROCESS, 7)(2, i, given) for i in range(5)]
    other = Augment(parts, PREPROCESS, 7)
    for i in (4, 0, 3, 1, 2):
        again = other(2, i, given)
        assert all(np.array_equal(a, b) for a, b in zip(first[i], again))
    assert not np.array_equal(first[0][0], other(3, 0, given)[0])
    assert not np.array_equal(first[0][0], Augment(parts, PREPROCESS, 8)(2, 0, given)[0])


def test_without_augmentation_a_sample_is_what_evaluation_sees() -> None:
    """A3: preset "off" places the picture as the preprocessing does; boxes agree to a hundredth of a pixel."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (96, SIZE, 3), dtype=np.uint8)
    boxes = np.array([[10, 20, 60, 70]], np.float32)
    augmented, moved, _ = Augment(Parts(), PREPROCESS, 0)(0, 0, Given([image], boxes, np.array([0])))
    plain = PREPROCESS.image(image)
    assert np.abs(augmented.astype(int) - plain).max() <= 1
    assert np.abs(moved - PREPROCESS.boxes(boxes, SIZE, 96)).max() < 0.01


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 400),
    st.integers(1, 400),
    st.integers(0, 10_000),
    st.sampled_from(["banknote", "light", "strong"]),
)
def test_no_picture_breaks_it_and_boxes_stay_inside(width: int, height: int, index: int, preset: str) -> None:
    """A28: any size down to one pixel, no boxes or many."""
    image = np.full((height, width, 3), 90, np.uint8)
    rng = np.random.default_rng(index)
    corners = np.sort(rng.random((index % 6, 2, 2)), 1).reshape(-1, 4) * [width, height, width, height]
    augment = Augment(PRESETS["detect"][preset], PREPROCESS, 0)
    boxes = corners.astype(np.float32)
    out, moved, labels = augment(index, 1, Given([image] * 3, boxes, np.zeros(len(boxes), int)))
    assert out.shape == (SIZE, SIZE, 3) and out.dtype == np.uint8
    assert moved.shape == (len(labels), 4) and (moved >= 0).all() and (moved <= SIZE).all()
    assert (moved[:, 2:] > moved[:, :2]).all()


def test_notes_are_never_mirrored_by_default_and_parts_can_be_set() -> None:
    """A3: a mirrored note does not exist; the user's own values win over the preset's; the closing stage is calm."""
    for presets in PRESETS.values():
        assert all(parts.flip == 0 for parts in presets.values())
    parts = resolve_parts(AugmentConfig(preset="banknote", mosaic=0.9, flip=0.5), "detect")
    assert (parts.mosaic, parts.flip, parts.scale) == (0.9, 0.5, PRESETS["detect"]["banknote"].scale)
    calm = closing(parts)
    assert calm.mosaic == calm.rotate_any == calm.perspective == 0 and calm.color == parts.color


def test_every_sample_is_seen_each_epoch_in_full_batches_and_ranks_share_them() -> None:
    """A27: fixed shapes, a new order each epoch, the same after a resume in its middle."""
    batches = list(EpochBatches(10, 4, seed=1, epoch=0))
    assert [len(batch) for batch in batches] == [4, 4, 4]
    assert {index for batch in batches for _, index in batch} == set(range(10))
    assert list(EpochBatches(10, 4, 1, 0, first_step=2)) == batches[2:]
    assert list(EpochBatches(10, 4, 1, 1)) != batches
    shares = [list(EpochBatches(10, 4, 1, 0, rank=rank, world=2)) for rank in (0, 1)]
    assert [sorted(a + b) for a, b in zip(*shares)] == [sorted(batch) for batch in batches]
    assert [len(batch) for batch in EpochBatches(3, 16, 0, 0)] == [16]


def test_balance_draws_rare_classes_more_often() -> None:
    """A3: class balance: of 95 pictures of one class and 5 of another, the rare ones are drawn ≥ 2 × as often."""
    weights = balance_weights([np.array([0])] * 95 + [np.array([1])] * 5, classes=2)
    drawn = [index for batch in EpochBatches(100, 10, 0, 0, weights=weights) for _, index in batch]
    assert sum(index >= 95 for index in drawn) >= 10
    assert (weights >= 1).all()
