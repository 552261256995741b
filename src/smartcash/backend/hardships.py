"""What photos of banknotes suffer in real life, in three levels each: to see when a model gives way.

To add one, write a function (picture, boxes_N4, amount, rng) → the changed picture and its boxes, and name it in
HARDSHIPS with the amounts of its levels. Pictures are RGB uint8; boxes xyxy in px, none for a classifier, whose picture
is then the note. The same picture always suffers the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.random import Generator

from smartcash.backend.images import Pixels
from smartcash.backend.preprocess import PAD_VALUE
from smartcash.backend.seen import Change

Harm = Callable[[Pixels, np.ndarray, float, Generator], tuple[Pixels, np.ndarray]]


@dataclass(frozen=True)
class Hardship:
    """`amounts`: mild, middle, strong; what they count is said by the text `report.hardship.<name>`."""

    name: str
    amounts: tuple[float, float, float]
    harm: Harm

    def at(self, level: int) -> Change:
        """The change of level 1, 2 or 3."""
        return partial(_harmed, self.harm, self.amounts[level - 1])


def _harmed(
    harm: Harm, amount: float, image: Pixels, boxes_N4: np.ndarray, index: int
) -> tuple[Pixels, np.ndarray]:
    return harm(image, boxes_N4, amount, np.random.default_rng((index, round(1000 * amount))))


def _dark(image: Pixels, boxes_N4: np.ndarray, stops: float, rng: Generator) -> tuple[Pixels, np.ndarray]:
    """So many stops less light: halved `stops` times, in linear light."""
    levels = np.arange(256) / 255
    table = 255 * (levels**2.2 / 2**stops) ** (1 / 2.2)
    return cv2.LUT(image, table.round().astype(np.uint8)), boxes_N4


def _blurred(
    image: Pixels, boxes_N4: np.ndarray, percent: float, rng: Generator
) -> tuple[Pixels, np.ndarray]:
    """Out of focus: a Gaussian with a sigma of `percent` of the longer side."""
    return cv2.GaussianBlur(image, (0, 0), percent / 100 * max(image.shape[:2])), boxes_N4


def _noisy(image: Pixels, boxes_N4: np.ndarray, sigma: float, rng: Generator) -> tuple[Pixels, np.ndarray]:
    """Noise of a sensor, sigma in levels of 255."""
    noisy = image + sigma * rng.standard_normal(image.shape, np.float32)
    return np.clip(noisy, 0, 255).round().astype(np.uint8), boxes_N4


def _turned(image: Pixels, boxes_N4: np.ndarray, degrees: float, rng: Generator) -> tuple[Pixels, np.ndarray]:
    """Turned to either side on a canvas that holds all of it; boxes are the upright hulls of the turned ones."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees * rng.choice((-1, 1)), 1.0)
    spread = np.abs(matrix[:, :2])
    out_width, out_height = np.ceil(spread @ (width, height)).astype(int).tolist()
    matrix[:, 2] += (out_width / 2 - width / 2, out_height / 2 - height / 2)
    grey = (PAD_VALUE,) * 3
    turned = cv2.warpAffine(image, matrix, (out_width, out_height), borderValue=grey)
    corners = boxes_N4[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2) @ matrix[:, :2].T + matrix[:, 2]
    return turned, np.concatenate((corners.min(axis=1), corners.max(axis=1)), axis=1)  # type: ignore[return-value]


def _covered(
    image: Pixels, boxes_N4: np.ndarray, percent: float, rng: Generator
) -> tuple[Pixels, np.ndarray]:
    """A plain patch over `percent` of every note, somewhere within it."""
    image = image.copy()
    for left, top, right, bottom in _notes(image, boxes_N4):
        share = np.sqrt(percent / 100)
        width, height = max(1, round((right - left) * share)), max(1, round((bottom - top) * share))
        x, y = (
            rng.integers(left, max(left + 1, right - width)),
            rng.integers(top, max(top + 1, bottom - height)),
        )
        image[y : y + height, x : x + width] = rng.integers(40, 216, 3)
    return image, boxes_N4


def _folded(image: Pixels, boxes_N4: np.ndarray, percent: float, rng: Generator) -> tuple[Pixels, np.ndarray]:
    """`percent` of every note's length folded over from one end: what it lay on shows where it was, and the back of
    the paper, drawn as the pale mirror of the folded part, hides as much of the rest. At most half can be folded."""
    image, moved = image.copy(), boxes_N4.copy()
    for row, (left, top, right, bottom) in enumerate(_notes(image, boxes_N4)):
        ground = np.median(_around(image, left, top, right, bottom), axis=0)
        note = image[top:bottom, left:right].copy()
        along = 1 if right - left >= bottom - top else 0
        length = note.shape[along]
        gone = min(length // 2, round(length * percent / 100))
        first = bool(rng.random() < 0.5)  # which end
        note = np.flip(note, along) if first else note
        end, hidden = (slice(length - gone, length), slice(length - 2 * gone, length - gone))
        back = np.flip(np.take(note, np.arange(length)[end], along), along)
        folded = note.copy()
        folded[(slice(None), hidden) if along else hidden] = 0.4 * back + 0.6 * 225
        folded[(slice(None), end) if along else end] = ground
        image[top:bottom, left:right] = np.flip(folded, along) if first else folded
        if len(moved):
            moved[row, (0 if along else 1) if first else (2 if along else 3)] += gone if first else -gone
    return image, moved


def _small(image: Pixels, boxes_N4: np.ndarray, percent: float, rng: Generator) -> tuple[Pixels, np.ndarray]:
    """Seen from farther away: the picture at `percent` of its size, somewhere on grey of the old size."""
    height, width = image.shape[:2]
    inner = max(1, round(width * percent / 100)), max(1, round(height * percent / 100))
    x, y = int(rng.integers(0, width - inner[0] + 1)), int(rng.integers(0, height - inner[1] + 1))
    far = np.full_like(image, PAD_VALUE)
    far[y : y + inner[1], x : x + inner[0]] = cv2.resize(image, inner, interpolation=cv2.INTER_AREA)
    scale = np.array([inner[0] / width, inner[1] / height] * 2)
    return far, boxes_N4 * scale + np.array([x, y] * 2)


def _compressed(
    image: Pixels, boxes_N4: np.ndarray, quality: float, rng: Generator
) -> tuple[Pixels, np.ndarray]:
    """Sent on as a JPEG of this quality."""
    _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, round(quality)])
    return cv2.imdecode(coded, cv2.IMREAD_COLOR), boxes_N4  # type: ignore[return-value]


def _notes(image: Pixels, boxes_N4: np.ndarray) -> list[tuple[int, int, int, int]]:
    """The notes' boxes in whole px, at least 2 px wide and high; of a classifier the whole picture."""
    height, width = image.shape[:2]
    if not len(boxes_N4):
        return [(0, 0, width, height)]
    boxes = np.clip(boxes_N4.round().astype(int), 0, [width - 2, height - 2, width, height])
    return [(x, y, max(x + 2, right), max(y + 2, bottom)) for x, y, right, bottom in boxes.tolist()]


def _around(image: Pixels, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """The pixels just outside a box (N, 3); those of the whole picture where it fills the picture."""
    reach = max(2, (right - left + bottom - top) // 20)
    low_y, low_x = max(0, top - reach), max(0, left - reach)
    ring = image[low_y : bottom + reach, low_x : right + reach]
    inside = np.zeros(ring.shape[:2], bool)
    inside[top - low_y : bottom - low_y, left - low_x : right - low_x] = True
    return ring[~inside] if not inside.all() else image.reshape(-1, 3)


HARDSHIPS = (
    Hardship("dark", (1.5, 3.0, 4.5), _dark),
    Hardship("blur", (0.5, 1.0, 2.0), _blurred),
    Hardship("noise", (10, 25, 50), _noisy),
    Hardship("rotation", (15, 45, 90), _turned),
    Hardship("cover", (10, 25, 45), _covered),
    Hardship("fold", (15, 30, 50), _folded),
    Hardship("scale", (70, 50, 30), _small),
    Hardship("jpeg", (40, 20, 8), _compressed),
)
