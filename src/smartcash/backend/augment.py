"""Augmentation on OpenCV: one matrix, one warp, one look-up table per picture.

All geometry is composed into one matrix; boxes go through the same matrix. Every random number of a sample
comes from a generator seeded by (seed, epoch, sample): the same whatever the number of loader workers, and
the same after a resume.

There is no mirror by default: a mirrored banknote does not exist, and denominations are read from numerals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import cv2
import numpy as np

from smartcash.backend.preprocess import Preprocess
from smartcash.domain.config import AugmentConfig

MIN_VISIBLE = 0.35  # a box stays while this share of it is in the picture
MIN_SIDE_PX = 3.0
# OpenCV counts from pixel centres, matrices here from pixel edges: half a pixel either way
FROM_CENTRES = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])
TO_CENTRES = np.linalg.inv(FROM_CENTRES)


@dataclass(frozen=True)
class Parts:
    """The strengths of `AugmentConfig`, all known."""

    mosaic: float = 0.0
    mixup: float = 0.0
    scale: float = 1.0
    aspect: float = 0.0
    translate: float = 0.0
    perspective: float = 0.0
    rotate_deg: float = 0.0
    rotate_any: float = 0.0
    flip: float = 0.0
    color: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    jpeg: float = 0.0
    cover: float = 0.0
    close_share: float = 0.0


_LIGHT = Parts(
    mosaic=0.0,
    mixup=0.0,
    scale=1.25,
    aspect=0.08,
    translate=0.1,
    perspective=0.0,
    rotate_deg=5,
    color=0.4,
    blur=0.1,
    noise=0.1,
    jpeg=0.1,
)
_BANKNOTE_DETECT = Parts(
    mosaic=0.35, scale=1.5, aspect=0.12, translate=0.15, perspective=0.04, rotate_deg=8, rotate_any=0.25,
    color=0.6, blur=0.15, noise=0.15, jpeg=0.15, cover=0.2, close_share=0.5,
)  # fmt: skip
_BANKNOTE_CLASSIFY = Parts(
    mixup=0.3, scale=1.6, aspect=0.2, translate=0.12, perspective=0.12, rotate_deg=20, rotate_any=0.5,
    color=1.0, blur=0.35, noise=0.3, jpeg=0.3, cover=0.4, close_share=0.0,
)  # fmt: skip

PRESETS: dict[str, dict[str, Parts]] = {
    "detect": {
        "off": Parts(),
        "light": _LIGHT,
        "banknote": _BANKNOTE_DETECT,
        "strong": replace(
            _BANKNOTE_DETECT, mosaic=0.6, scale=2.0, perspective=0.08, rotate_any=0.5, color=1.0, blur=0.3,
            noise=0.3, jpeg=0.3, cover=0.4,
        ),
    },
    "classify": {
        "off": Parts(),
        "light": _LIGHT,
        "banknote": _BANKNOTE_CLASSIFY,
        "strong": replace(
            _BANKNOTE_CLASSIFY, scale=2.0, perspective=0.18, rotate_any=0.7, blur=0.5, noise=0.4, jpeg=0.4,
            cover=0.6,
        ),
    },
}  # fmt: skip


def resolve_parts(config: AugmentConfig, task: str) -> Parts:
    """The preset's parts, with what the user set laid over them."""
    chosen = {f.name: getattr(config, f.name) for f in fields(Parts) if getattr(config, f.name) is not None}
    return replace(PRESETS[task][config.preset], **chosen)


def closing(parts: Parts) -> Parts:
    """The parts of the closing stage: without what loosens boxes or makes scenes that do not exist.

    The upright hull of a box turned by even 3° is some 4 % wider than the note: with such a rotation left in,
    every side of every box was learnt about 2 px too far out, and mAP50-95 fell while training went on."""
    return replace(parts, mosaic=0.0, mixup=0.0, perspective=0.0, rotate_any=0.0, rotate_deg=0.0, cover=0.0)


Fetch = Callable[[int], tuple[np.ndarray, np.ndarray, np.ndarray]]


class Augment:
    """Makes one training sample from one picture, or from four (mosaic)."""

    def __init__(self, parts: Parts, preprocess: Preprocess, seed: int) -> None:
        self.parts = parts
        self.preprocess = preprocess
        self.seed = seed
        # noise is drawn once; a sample takes a slice at a random place
        self._noise = np.random.default_rng(seed).standard_normal(
            2 * 3 * preprocess.image_size**2, np.float32
        )

    def __call__(
        self, epoch: int, index: int, fetch: Fetch, count: int, *, closing_stage: bool = False
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sample `index` of `epoch`: image (S, S, 3) uint8 RGB, boxes_N4 xyxy px, labels_N.

        `fetch(i)` gives picture i of `count` with its boxes and labels."""
        rng = np.random.default_rng((self.seed, epoch, index))
        parts = closing(self.parts) if closing_stage else self.parts
        size = self.preprocess.image_size
        if parts.mosaic and rng.random() < parts.mosaic:
            image, boxes, labels = self._mosaic(rng, parts, index, fetch, count)
        else:
            picture, boxes, labels = fetch(index)
            matrix = self._geometry(rng, parts, picture.shape[1], picture.shape[0], size, size)
            image = _warp(picture, matrix, size, size, self.preprocess.pad_value)
            boxes, labels = _move(boxes, labels, matrix, size, size)
        return self._light(rng, parts, image), boxes, labels

    def _mosaic(
        self, rng: np.random.Generator, parts: Parts, index: int, fetch: Fetch, count: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Four pictures around a random centre (Bochkovskiy et al. 2020, YOLOv4)."""
        size = self.preprocess.image_size
        x, y = (int(round(size * rng.uniform(0.35, 0.65))) for _ in range(2))
        tiles = [(0, 0, x, y), (x, 0, size, y), (0, y, x, size), (x, y, size, size)]
        image = np.empty((size, size, 3), np.uint8)
        all_boxes, all_labels = [], []
        for tile, which in zip(tiles, [index, *rng.integers(0, count, 3).tolist()]):
            left, top, right, bottom = tile
            picture, boxes, labels = fetch(which)
            width, height = right - left, bottom - top
            matrix = self._geometry(rng, parts, picture.shape[1], picture.shape[0], width, height)
            image[top:bottom, left:right] = _warp(picture, matrix, width, height, self.preprocess.pad_value)
            boxes, labels = _move(boxes, labels, matrix, width, height)
            all_boxes.append(boxes + np.array([left, top, left, top], np.float32))
            all_labels.append(labels)
        return image, np.concatenate(all_boxes), np.concatenate(all_labels)

    def _geometry(
        self, rng: np.random.Generator, parts: Parts, width: int, height: int, out_width: int, out_height: int
    ) -> np.ndarray:
        """One 3×3 matrix: the preprocessing's own placement, then zoom, aspect, rotation, perspective, shift,
        all about the middle."""
        side = max(out_width, out_height)
        base = np.diag([out_width / width, out_height / height, 1.0])
        if self.preprocess.resize == "letterbox":
            ratio = side / max(width, height)
            base = np.diag([ratio, ratio, 1.0])
        centre = base @ np.array([width / 2, height / 2, 1.0])
        zoom = np.exp(rng.uniform(-1, 1) * np.log(parts.scale)) if parts.scale > 1 else 1.0
        stretch = np.exp(rng.uniform(-1, 1) * np.log1p(parts.aspect))
        angle = np.deg2rad(rng.uniform(-1, 1) * parts.rotate_deg)
        if parts.rotate_any and rng.random() < parts.rotate_any:
            # any angle; half of them near a quarter turn, where the hull of a turned box stays tight
            quarter = rng.integers(0, 4) * np.pi / 2
            angle = quarter + angle if rng.random() < 0.5 else rng.uniform(-np.pi, np.pi)
        cos, sin = np.cos(angle), np.sin(angle)
        mirror = -1.0 if parts.flip and rng.random() < parts.flip else 1.0
        shape = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]]) @ np.diag(
            [mirror * zoom * stretch, zoom / stretch, 1.0]
        )
        shape[2, :2] = rng.uniform(-1, 1, 2) * parts.perspective * 2 / side
        shift = rng.uniform(-1, 1, 2) * parts.translate * side
        to_middle = np.array([[1, 0, -centre[0]], [0, 1, -centre[1]], [0, 0, 1.0]])
        from_middle = np.array(
            [[1, 0, out_width / 2 + shift[0]], [0, 1, out_height / 2 + shift[1]], [0, 0, 1.0]]
        )
        return from_middle @ shape @ to_middle @ base

    def _light(self, rng: np.random.Generator, parts: Parts, image: np.ndarray) -> np.ndarray:
        """Colour by one look-up table; then blur, noise, JPEG and cover, each in its share of the samples."""
        size = image.shape[0]
        if parts.color:
            image = cv2.LUT(image, _color_table(rng, parts.color))
        if parts.cover and rng.random() < parts.cover:
            image = _cover(rng, image)
        if parts.blur and rng.random() < parts.blur:
            if rng.random() < 0.5:
                image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.5, 0.008 * size)))
            else:
                small = int(size * rng.uniform(0.35, 0.8))
                image = cv2.resize(
                    cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA), (size, size)
                )
        if parts.noise and rng.random() < parts.noise:
            start = int(rng.integers(0, self._noise.size - image.size))
            noise = self._noise[start : start + image.size].reshape(image.shape) * rng.uniform(2, 14)
            image = cv2.add(image, noise, dtype=cv2.CV_8U)
        if parts.jpeg and rng.random() < parts.jpeg:
            _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 85))])
            image = cv2.imdecode(coded, cv2.IMREAD_COLOR)
        return image


def _warp(picture: np.ndarray, matrix: np.ndarray, width: int, height: int, pad: int) -> np.ndarray:
    """Four channels, there and back included, take OpenCV two thirds of the time of three, to the same values."""
    warped = cv2.warpPerspective(
        cv2.cvtColor(picture, cv2.COLOR_RGB2RGBA), TO_CENTRES @ matrix @ FROM_CENTRES, (width, height),
        flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(pad, pad, pad, pad),
    )  # fmt: skip
    return cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB)


def _move(
    boxes_N4: np.ndarray, labels_N: np.ndarray, matrix: np.ndarray, width: int, height: int
) -> tuple[np.ndarray, np.ndarray]:
    """The upright hull of each moved box, clipped; boxes mostly out of the picture go."""
    if not len(boxes_N4):
        return boxes_N4, labels_N
    corners = boxes_N4[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2).astype(np.float64)
    moved = np.concatenate((corners, np.ones((len(corners), 4, 1))), 2) @ matrix.T
    moved = moved[..., :2] / moved[..., 2:]
    hull = np.concatenate((moved.min(1), moved.max(1)), 1)
    clipped = np.clip(hull, 0, [width, height, width, height])
    area = (hull[:, 2:] - hull[:, :2]).prod(1)
    visible = (clipped[:, 2:] - clipped[:, :2]).prod(1)
    sides = (clipped[:, 2:] - clipped[:, :2]).min(1)
    keep = (visible > MIN_VISIBLE * area) & (sides >= MIN_SIDE_PX)
    return clipped[keep].astype(np.float32), labels_N[keep]


def _color_table(rng: np.random.Generator, strength: float) -> np.ndarray:
    """A (256, 1, 3) table: gamma, contrast, brightness, and a gain per channel (the colour of the light)."""
    x = np.arange(256, dtype=np.float64)[:, None] / 255
    gamma = np.exp(rng.uniform(-0.45, 0.45) * strength)
    contrast = np.exp(rng.uniform(-0.35, 0.35) * strength)
    brightness = rng.uniform(-0.15, 0.15) * strength
    gains = np.exp(rng.uniform(-0.14, 0.14, 3) * strength)
    table = (x**gamma - 0.5) * contrast + 0.5 + brightness
    return np.clip(table * gains * 255, 0, 255).astype(np.uint8)[:, None, :]


def _cover(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Hide one to three patches: flat, or a piece of the picture from elsewhere."""
    size = image.shape[0]
    image = image.copy()
    for _ in range(int(rng.integers(1, 4))):
        width, height = (int(size * rng.uniform(0.08, 0.28)) for _ in range(2))
        left, top = int(rng.integers(0, size - width)), int(rng.integers(0, size - height))
        if rng.random() < 0.5:
            image[top : top + height, left : left + width] = rng.integers(0, 256, 3)
        else:
            x, y = int(rng.integers(0, size - width)), int(rng.integers(0, size - height))
            image[top : top + height, left : left + width] = image[y : y + height, x : x + width].copy()
    return image
