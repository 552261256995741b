"""Augmentation on OpenCV: one matrix, one warp, one look-up table per picture.

All geometry is composed into one matrix; boxes go through the same matrix. Every random number of a sample
comes from a generator seeded by (seed, epoch, sample): the same whatever the number of loader workers, and
the same after a resume.

There is no mirror by default: a mirrored banknote does not exist, and denominations are read from numerals.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Protocol

import cv2
import numpy as np

from smartcash.backend.preprocess import Preprocess
from smartcash.domain.config import AugmentConfig

MIN_VISIBLE = 0.35  # a box stays while this share of it is in the picture
MIN_SIDE_PX = 3.0
# OpenCV counts from pixel centres, matrices here from pixel edges: half a pixel either way
FROM_CENTRES = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])
TO_CENTRES = np.linalg.inv(FROM_CENTRES)
LEVELS = np.linspace(0, 1, 256)[:, None]  # of a colour


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


class Pictures(Protocol):
    """Labelled pictures; those of `data.Pictures` are such."""

    def __len__(self) -> int: ...

    def labelled(self, index: int) -> tuple[tuple[int, int], np.ndarray, np.ndarray]:
        """Size (width, height), boxes (N, 4) xyxy px and labels (N,) of a picture."""

    def image(self, index: int) -> np.ndarray:
        """The picture itself, RGB uint8 (H, W, 3), of that size."""


Draw = Callable[[], np.ndarray]  # → RGB uint8 (S, S, 3)
Change = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class _Tile:
    """Where a picture goes in a sample: `left`, `top`, `width` and `height` px, through `matrix`."""

    index: int
    matrix: np.ndarray
    left: int
    top: int
    width: int
    height: int


class Augment:
    """Makes one training sample from one picture, or from four (mosaic): first everything is decided and the boxes are
    moved, then the picture is drawn, which is nearly all of the work."""

    def __init__(self, parts: Parts, preprocess: Preprocess, seed: int) -> None:
        self.parts = parts
        self.preprocess = preprocess
        self.seed = seed
        # noise is drawn once; a sample takes a slice at a random place
        self._noise = np.random.default_rng(seed).standard_normal(
            2 * 3 * preprocess.image_size**2, np.float32
        )

    def __call__(
        self, epoch: int, index: int, pictures: Pictures, *, closing_stage: bool = False
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sample `index` of `epoch`: image (S, S, 3) uint8 RGB, boxes_N4 xyxy px, labels_N."""
        draw, boxes, labels = self.begin(epoch, index, pictures, closing_stage=closing_stage)
        return draw(), boxes, labels

    def begin(
        self, epoch: int, index: int, pictures: Pictures, *, closing_stage: bool = False
    ) -> tuple[Draw, np.ndarray, np.ndarray]:
        """The same, with what draws the image in its place."""
        rng = np.random.default_rng((self.seed, epoch, index))
        parts = closing(self.parts) if closing_stage else self.parts
        size = self.preprocess.image_size
        places, indices = [(0, 0, size, size)], [index]
        if parts.mosaic and rng.random() < parts.mosaic:  # Bochkovskiy et al. 2020, YOLOv4
            x, y = (int(round(size * rng.uniform(0.35, 0.65))) for _ in range(2))
            places = [(0, 0, x, y), (x, 0, size, y), (0, y, x, size), (x, y, size, size)]
            indices += rng.integers(0, len(pictures), 3).tolist()
        tiles, all_boxes, all_labels = [], [], []
        for (left, top, right, bottom), which in zip(places, indices):
            (width, height), boxes, labels = pictures.labelled(which)
            matrix = self._geometry(rng, parts, width, height, right - left, bottom - top)
            tiles.append(_Tile(which, matrix, left, top, right - left, bottom - top))
            boxes, labels = _move(boxes, labels, matrix, right - left, bottom - top)
            all_boxes.append(boxes + np.array([left, top, left, top], np.float32))
            all_labels.append(labels)
        changes = self._light(rng, parts)

        def draw() -> np.ndarray:
            image = self._drawn(tiles, pictures)
            for change in changes:
                image = change(image)
            return image

        return draw, np.concatenate(all_boxes), np.concatenate(all_labels)

    def _drawn(self, tiles: list[_Tile], pictures: Pictures) -> np.ndarray:
        """The picture of the tiles, which cover it."""
        size, pad = self.preprocess.image_size, self.preprocess.pad_value
        if len(tiles) == 1:
            return _warp(pictures.image(tiles[0].index), tiles[0].matrix, size, size, pad)
        image = np.empty((size, size, 3), np.uint8)
        for tile in tiles:
            part = image[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]
            part[:] = _warp(pictures.image(tile.index), tile.matrix, tile.width, tile.height, pad)
        return image

    def _geometry(
        self, rng: np.random.Generator, parts: Parts, width: int, height: int, out_width: int, out_height: int
    ) -> np.ndarray:
        """One 3×3 matrix: the preprocessing's own placement, then zoom, aspect, rotation, perspective, shift,
        all about the middle."""
        side = max(out_width, out_height)
        if self.preprocess.resize == "letterbox":
            x_ratio = y_ratio = side / max(width, height)
        else:
            x_ratio, y_ratio = out_width / width, out_height / height
        zoom = parts.scale ** _spread(rng) if parts.scale > 1 else 1.0
        stretch = (1 + parts.aspect) ** _spread(rng)
        angle = math.radians(_spread(rng) * parts.rotate_deg)
        if parts.rotate_any and rng.random() < parts.rotate_any:
            # any angle; half of them near a quarter turn, where the hull of a turned box stays tight
            quarter = int(rng.integers(0, 4)) * math.pi / 2
            angle = quarter + angle if rng.random() < 0.5 else _spread(rng) * math.pi
        mirror = -1.0 if parts.flip and rng.random() < parts.flip else 1.0
        x_zoom, y_zoom = mirror * zoom * stretch, zoom / stretch
        cos, sin = math.cos(angle), math.sin(angle)
        tilt, shift = 2 * parts.perspective / side, parts.translate * side
        base_about_middle = np.array(
            [[x_ratio, 0, -x_ratio * width / 2], [0, y_ratio, -y_ratio * height / 2], [0, 0, 1]]
        )
        shape = np.array(
            [
                [cos * x_zoom, -sin * y_zoom, 0],
                [sin * x_zoom, cos * y_zoom, 0],
                [_spread(rng) * tilt, _spread(rng) * tilt, 1],
            ]
        )
        from_middle = np.array(
            [
                [1, 0, out_width / 2 + _spread(rng) * shift],
                [0, 1, out_height / 2 + _spread(rng) * shift],
                [0, 0, 1],
            ]
        )
        return from_middle @ shape @ base_about_middle

    def _light(self, rng: np.random.Generator, parts: Parts) -> list[Change]:
        """Colour by one look-up table; then blur, noise, JPEG and cover, each in its share of the samples."""
        size = self.preprocess.image_size
        changes: list[Change] = []
        if parts.color:
            changes.append(partial(cv2.LUT, lut=_color_table(rng, parts.color)))
        if parts.cover and rng.random() < parts.cover:
            changes.append(partial(_cover, patches=_patches(rng, size)))
        if parts.blur and rng.random() < parts.blur:
            if rng.random() < 0.5:
                sigma = float(rng.uniform(0.5, 0.008 * size))
                changes.append(partial(cv2.GaussianBlur, ksize=(0, 0), sigmaX=sigma))
            else:
                changes.append(partial(_coarsened, side=int(size * rng.uniform(0.35, 0.8))))
        if parts.noise and rng.random() < parts.noise:
            start = int(rng.integers(0, self._noise.size - 3 * size**2))
            changes.append(partial(self._noisy, start=start, strength=rng.uniform(2, 14)))
        if parts.jpeg and rng.random() < parts.jpeg:
            changes.append(partial(_compressed, quality=int(rng.integers(25, 85))))
        return changes

    def _noisy(self, image: np.ndarray, start: int, strength: float) -> np.ndarray:
        noise = self._noise[start : start + image.size].reshape(image.shape) * strength
        return cv2.add(image, noise, dtype=cv2.CV_8U)


def _coarsened(image: np.ndarray, side: int) -> np.ndarray:
    """Shrunk to `side` px and back."""
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (image.shape[1], image.shape[0]))


def _compressed(image: np.ndarray, quality: int) -> np.ndarray:
    """As JPEG of that quality, 0 to 100."""
    _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(coded, cv2.IMREAD_COLOR)


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
    moved = cv2.perspectiveTransform(corners, matrix)
    hull = np.concatenate((moved.min(1), moved.max(1)), 1)
    clipped = np.minimum(np.maximum(hull, 0), (width, height, width, height))
    sides, visible = hull[:, 2:] - hull[:, :2], clipped[:, 2:] - clipped[:, :2]
    keep = visible[:, 0] * visible[:, 1] > MIN_VISIBLE * sides[:, 0] * sides[:, 1]
    keep &= visible.min(1) >= MIN_SIDE_PX
    return clipped[keep].astype(np.float32), labels_N[keep]


def _color_table(rng: np.random.Generator, strength: float) -> np.ndarray:
    """A (256, 1, 3) table: gamma, contrast, brightness, and a gain per channel (the colour of the light)."""
    gamma = math.exp(_spread(rng) * 0.45 * strength)
    contrast = math.exp(_spread(rng) * 0.35 * strength)
    brightness = _spread(rng) * 0.15 * strength
    gains = [255 * math.exp(_spread(rng) * 0.14 * strength) for _ in range(3)]
    table = (LEVELS**gamma - 0.5) * contrast + (0.5 + brightness)
    return np.minimum(np.maximum(table * gains, 0), 255).astype(np.uint8)[:, None, :]


def _spread(rng: np.random.Generator) -> float:
    """Uniform in -1 … 1; numpy's own `uniform` takes four times as long for a single number."""
    return 2 * rng.random() - 1


@dataclass(frozen=True)
class _Patch:
    """A patch to hide, px; by one `color`, or by what lies at `source` (left, top)."""

    left: int
    top: int
    width: int
    height: int
    color: np.ndarray | None = None
    source: tuple[int, int] = (0, 0)


def _patches(rng: np.random.Generator, size: int) -> list[_Patch]:
    """One to three, anywhere in the square."""
    patches = []
    for _ in range(int(rng.integers(1, 4))):
        width, height = (int(size * rng.uniform(0.08, 0.28)) for _ in range(2))
        left, top = int(rng.integers(0, size - width)), int(rng.integers(0, size - height))
        if rng.random() < 0.5:
            patches.append(_Patch(left, top, width, height, rng.integers(0, 256, 3)))
        else:
            source = int(rng.integers(0, size - width)), int(rng.integers(0, size - height))
            patches.append(_Patch(left, top, width, height, source=source))
    return patches


def _cover(image: np.ndarray, patches: list[_Patch]) -> np.ndarray:
    """The picture with those patches hidden."""
    image = image.copy()
    for patch in patches:
        x, y = patch.source
        hidden = image[patch.top : patch.top + patch.height, patch.left : patch.left + patch.width]
        elsewhere = image[y : y + patch.height, x : x + patch.width]
        hidden[:] = elsewhere.copy() if patch.color is None else patch.color
    return image
