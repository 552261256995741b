"""Drawn specimen notes: seven denominations, two sides each, all of our own design.

They borrow from Rupiah only what a detector has to learn from: the colour of a denomination, its length and a
large numeral. There is no portrait, no emblem, no bank's name, no serial number, and "SPESIMEN" runs across
each side. Curves are drawn in millimetres at twice the final resolution; the only font is the one inside Pillow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Floats = NDArray[np.float32]
Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]

HEIGHT_MM = 65.0
PX_PER_MM = 4
OVERSAMPLING = 2
SIDES = ("obverse", "reverse")
MARK = "SPESIMEN"
NOTICE = "CONTOH · BUKAN ALAT PEMBAYARAN"


@dataclass(frozen=True)
class Specimen:
    """The design of one denomination. Colours are RGB, lengths millimetres."""

    value: int
    length_mm: float
    paper: Colour
    ink: Colour
    dark: Colour
    accent: Colour
    petals: int
    scene: Callable[[_Sheet, Specimen], None]

    @property
    def name(self) -> str:
        """The class name in a data set, such as "50000"."""
        return str(self.value)

    @property
    def numeral(self) -> str:
        """The printed number, such as "50.000"."""
        return f"{self.value:,}".replace(",", ".")


class _Sheet:
    """A canvas of `length_mm` × 65 mm, oversampled; every layer is a mask through which ink is laid."""

    def __init__(self, length_mm: float, paper: Colour) -> None:
        self.scale = PX_PER_MM * OVERSAMPLING
        self.length_mm = length_mm
        self.shape = (round(HEIGHT_MM * self.scale), round(length_mm * self.scale))
        self.canvas: Floats = np.full((*self.shape, 3), paper, np.float32)

    def lay(self, mask: Picture, colour: Colour, alpha: float) -> None:
        """Blend `colour` in where `mask` (H, W; 0–255) is set. Only the touched part is computed."""
        x, y, width, height = cv2.boundingRect(mask)
        part = self.canvas[y : y + height, x : x + width]
        weight = mask[y : y + height, x : x + width, None].astype(np.float32) * (alpha / 255)
        part += (np.float32(colour) - part) * weight

    def lines(
        self, curves: Iterable[Floats], colour: Colour, width_mm: float, alpha: float, closed: bool = False
    ) -> None:
        """Stroke curves, each (N, 2) in millimetres."""
        mask = np.zeros(self.shape, np.uint8)
        cv2.polylines(
            mask,
            [self._fixed(curve) for curve in curves],
            closed,
            255,
            max(1, round(width_mm * self.scale)),
            cv2.LINE_AA,
            shift=4,
        )
        self.lay(mask, colour, alpha)

    def fill(self, shapes: Iterable[Floats], colour: Colour, alpha: float) -> None:
        """Fill polygons, each (N, 2) in millimetres; they overlap without showing."""
        mask = np.zeros(self.shape, np.uint8)
        for shape in shapes:
            cv2.fillPoly(mask, [self._fixed(shape)], 255, cv2.LINE_AA, shift=4)
        self.lay(mask, colour, alpha)

    def write(
        self,
        words: str,
        at_mm: tuple[float, float],
        height_mm: float,
        colour: Colour,
        *,
        anchor: str = "la",
        bold: float = 0.0,
        alpha: float = 1.0,
        turn: int = 0,
        halo: Colour | None = None,
    ) -> None:
        """Write words `height_mm` high; `anchor` as in Pillow, `turn` in quarter turns counter-clockwise."""
        size = self.shape[::-1] if turn % 2 == 0 else self.shape
        x, y = at_mm[0] * self.scale, at_mm[1] * self.scale
        if turn % 2:  # the page is written lying down, then turned
            x, y = (self.shape[0] - y, x) if turn == 1 else (y, self.shape[1] - x)
        font_px = height_mm * self.scale / 0.72  # capitals are 0.72 of the font's size
        if halo is not None:
            mask = _written(words, size, (x, y), font_px, anchor, (bold + 0.09) * height_mm * self.scale)
            self.lay(np.rot90(mask, turn).copy(), halo, 0.8 * alpha)
        mask = _written(words, size, (x, y), font_px, anchor, bold * height_mm * self.scale)
        self.lay(np.rot90(mask, turn).copy(), colour, alpha)

    def finished(self) -> Picture:
        """The sheet at its final resolution, RGB uint8 (H, W, 3)."""
        height, width = self.shape
        size = (width // OVERSAMPLING, height // OVERSAMPLING)
        return np.clip(np.rint(cv2.resize(self.canvas, size, interpolation=cv2.INTER_AREA)), 0, 255).astype(
            np.uint8
        )

    def _fixed(self, points_mm: Floats) -> NDArray[np.int32]:
        return np.rint(np.asarray(points_mm, np.float32) * (self.scale * 16)).astype(np.int32)


def _written(
    words: str, size: tuple[int, ...], at: tuple[float, float], font_px: float, anchor: str, stroke: float
) -> Picture:
    page = Image.new("L", (size[0], size[1]), 0)
    ImageDraw.Draw(page).text(
        at, words, fill=255, font=ImageFont.load_default(font_px), anchor=anchor, stroke_width=round(stroke)
    )
    return np.asarray(page, np.uint8)


def _polar(centre: tuple[float, float], radius: Floats, angle: Floats) -> Floats:
    return np.stack([centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle)], 1)


def _circle(x: float, y: float, radius: float) -> Floats:
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False, dtype=np.float32)
    return _polar((x, y), np.full_like(angle, radius), angle)


def _box(left: float, top: float, right: float, bottom: float) -> Floats:
    return np.float32([[left, top], [right, top], [right, bottom], [left, bottom]])


def _rosette(sheet: _Sheet, centre: tuple[float, float], radius: float, lobes: int, colour: Colour) -> None:
    """A guilloche rosette: rings whose radius swings `lobes` times a turn, each ring a little out of phase."""
    angle = np.linspace(0, 2 * np.pi, 480, endpoint=False, dtype=np.float32)
    rings = [
        _polar(centre, radius * (size + 0.17 * np.sin(lobes * angle + phase)), angle)
        for size in (0.83, 0.55, 0.3)
        for phase in np.linspace(0, 2 * np.pi, 8, endpoint=False)
    ]
    sheet.lines(rings, colour, 0.16, 0.6, closed=True)


def _flower(sheet: _Sheet, centre: tuple[float, float], radius: float, petals: int, *inks: Colour) -> None:
    angle = np.linspace(0, 2 * np.pi, 360, endpoint=False, dtype=np.float32)
    for size, colour in zip((1.0, 0.7, 0.38), inks):
        lobe = 0.42 + 0.58 * np.abs(np.cos(petals * angle / 2)) ** 0.8
        sheet.fill([_polar(centre, radius * size * lobe, angle)], colour, 0.85)
    veins = [
        np.float32([centre, (centre[0] + radius * 0.9 * np.cos(a), centre[1] + radius * 0.9 * np.sin(a))])
        for a in np.arange(petals) * (2 * np.pi / petals)
    ]
    sheet.lines(veins, inks[2], 0.35, 0.8)
    sheet.fill([_circle(*centre, radius * 0.16)], (250, 244, 220), 0.95)


def _bands(sheet: _Sheet, colour: Colour, alpha: float, twist: float) -> None:
    """Fine waves from edge to edge that draw together and apart, as engraved backgrounds do."""
    x = np.linspace(0, sheet.length_mm, 240, dtype=np.float32)
    curves = [
        np.stack(
            [x, HEIGHT_MM * (k + 0.5) / 34 + 3.2 * np.sin(x * 0.075 * twist + k * 0.34) * np.cos(x * 0.021)],
            1,
        )
        for k in range(34)
    ]
    sheet.lines(curves, colour, 0.22, alpha)


def _kawung(sheet: _Sheet, colour: Colour, alpha: float, pitch: float) -> None:
    """The batik pattern of four ovals around a point."""
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False, dtype=np.float32)
    ovals = []
    for row in range(round(HEIGHT_MM / pitch) + 1):
        for column in range(round(sheet.length_mm / pitch) + 1):
            for quarter in range(4):
                tilt = np.pi / 4 + quarter * np.pi / 2
                x = 0.3 * pitch * (1 + np.cos(angle))
                y = 0.16 * pitch * np.sin(angle)
                ovals.append(
                    np.stack(
                        [
                            column * pitch + x * np.cos(tilt) - y * np.sin(tilt),
                            row * pitch + x * np.sin(tilt) + y * np.cos(tilt),
                        ],
                        1,
                    )
                )
    sheet.lines(ovals, colour, 0.25, alpha, closed=True)


# --- scenes on the reverse, each in a window from x = 24 mm to the length less 44 mm, y from 9 to 50 mm


def _window(sheet: _Sheet) -> tuple[float, float, float, float]:
    return 24.0, 9.0, sheet.length_mm - 44.0, 50.0


def _ridge(sheet: _Sheet, base: float, peaks: list[tuple[float, float]]) -> Floats:
    """A skyline polygon from (position, height) pairs, both as fractions of the window."""
    left, top, right, _ = _window(sheet)
    outline = [(left + x * (right - left), base - height * (base - top)) for x, height in peaks]
    return np.float32([(left, base), *outline, (right, base)])


def _waves(sheet: _Sheet, colour: Colour, rows: int, top_mm: float) -> None:
    left, _, right, bottom = _window(sheet)
    x = np.linspace(left, right, 120, dtype=np.float32)
    pitch = (bottom - top_mm) / rows
    curves = [
        np.stack([x, top_mm + pitch * (k + 0.5) + 0.9 * np.sin(x * 0.55 + k * 1.3)], 1) for k in range(rows)
    ]
    sheet.lines(curves, colour, 0.6, 0.9)


def _sun(sheet: _Sheet, specimen: Specimen, x_fraction: float, y: float) -> None:
    left, _, right, _ = _window(sheet)
    x = left + x_fraction * (right - left)
    rays = [_polar((x, y), np.float32([8, 12]), np.float32([a, a])) for a in np.linspace(0, 2 * np.pi, 25)]
    sheet.lines(rays, specimen.accent, 0.5, 0.8)
    sheet.fill([_circle(x, y, 6.5)], specimen.accent, 0.9)


def _islands(sheet: _Sheet, specimen: Specimen) -> None:
    _sun(sheet, specimen, 0.7, 20)
    sheet.fill([_ridge(sheet, 36, [(0.05, 0.1), (0.2, 0.45), (0.33, 0.3), (0.5, 0.08)])], specimen.ink, 0.85)
    sheet.fill(
        [_ridge(sheet, 38, [(0.5, 0.02), (0.72, 0.3), (0.85, 0.42), (0.98, 0.1)])], specimen.dark, 0.75
    )
    _waves(sheet, specimen.ink, 6, 37)


def _volcanoes(sheet: _Sheet, specimen: Specimen) -> None:
    far = [(0.1, 0.3), (0.28, 0.85), (0.34, 0.85), (0.55, 0.25), (0.75, 0.65), (0.8, 0.66), (0.95, 0.3)]
    near = [(0.1, 0.25), (0.3, 0.15), (0.52, 0.6), (0.58, 0.6), (0.8, 0.12)]
    sheet.fill([_ridge(sheet, 48, far)], specimen.ink, 0.6)
    sheet.fill([_ridge(sheet, 49, near)], specimen.dark, 0.7)
    left, _, right, _ = _window(sheet)
    smoke = [
        _circle(left + 0.31 * (right - left) + dx, 13 - dy, r)
        for dx, dy, r in ((0, 0, 2), (3, 2, 2.8), (7, 3, 3))
    ]
    sheet.fill(smoke, (250, 250, 250), 0.8)


def _terraces(sheet: _Sheet, specimen: Specimen) -> None:
    _sun(sheet, specimen, 0.22, 19)
    left, _, right, bottom = _window(sheet)
    x = np.linspace(left, right, 120, dtype=np.float32)
    for k in range(7):
        height = bottom - 25 + 3.7 * k
        rim = np.stack([x, height + (3.2 - 0.3 * k) * np.sin(x * (0.09 + 0.008 * k) + 0.9 * k)], 1)
        field = np.concatenate([rim, np.float32([[right, bottom], [left, bottom]])])
        sheet.fill([field], specimen.ink if k % 2 else specimen.accent, 0.75)
        sheet.lines([rim], specimen.dark, 0.45, 0.9)


def _temple(sheet: _Sheet, specimen: Specimen) -> None:
    left, _, right, bottom = _window(sheet)
    middle = (left + right) / 2
    tiers = [
        _box(middle - width / 2, bottom - 5 - 4.6 * k, middle + width / 2, bottom - 4.6 * k)
        for k, width in enumerate((56, 47, 38, 29, 20, 11))
    ]
    sheet.fill(tiers, specimen.ink, 0.75)
    sheet.lines([tier[:2] for tier in tiers], specimen.dark, 0.6, 0.9)
    bells = [
        _circle(middle + offset, bottom - 5 - 4.6 * k, 2.3)
        for k, reach in enumerate((25, 20.5, 16, 11.5, 7))
        for offset in np.arange(-reach, reach + 1, 7)
    ]
    sheet.fill(bells, specimen.dark, 0.7)
    sheet.fill([np.float32([(middle - 5.5, 22), (middle, 9.5), (middle + 5.5, 22)])], specimen.dark, 0.9)


def _palms(sheet: _Sheet, specimen: Specimen) -> None:
    left, _, right, _ = _window(sheet)
    _waves(sheet, specimen.ink, 4, 41)
    bow = np.linspace(0, 1, 16, dtype=np.float32)
    for place, height, lean in ((0.2, 29, 5), (0.5, 34, -4), (0.8, 26, 6)):
        foot = left + place * (right - left)
        crown = (foot + lean, 46 - height)
        trunk = np.stack([foot + lean * bow**2, 46 - height * bow], 1)
        sheet.lines([trunk], specimen.dark, 1.5, 0.9)
        fronds = []
        for a in np.linspace(-0.4, np.pi + 0.4, 9):
            reach, drop = 11 * np.cos(a), 6 * np.sin(a)
            upper = np.stack([crown[0] + reach * bow, crown[1] - drop * bow + 6 * bow**2], 1)
            lower = np.stack(
                [crown[0] + reach * bow, crown[1] - drop * bow + 6 * bow**2 + 4 * bow * (1 - bow)], 1
            )
            fronds.append(np.concatenate([upper, lower[::-1]]))
        sheet.fill(fronds, specimen.ink, 0.9)


def _ships(sheet: _Sheet, specimen: Specimen) -> None:
    left, _, right, _ = _window(sheet)
    for place, size in ((0.3, 1.0), (0.76, 0.68)):
        x, y = left + place * (right - left), 42.0
        hull = np.float32([(-16, -5), (17, -7), (11, 1), (-10, 1)]) * size + (x, y)
        sails = [
            np.float32([(-2, -31), (-2, -7), (-14, -7)]) * size + (x, y),
            np.float32([(0, -33), (15, -8), (0, -8)]) * size + (x, y),
        ]
        sheet.fill(sails, specimen.accent, 0.85)
        sheet.lines(sails, specimen.dark, 0.4, 0.9, closed=True)
        sheet.fill([hull], specimen.dark, 0.9)
    _waves(sheet, specimen.ink, 6, 40)


def _gate(sheet: _Sheet, specimen: Specimen) -> None:
    left, _, right, bottom = _window(sheet)
    middle = (left + right) / 2
    _sun(sheet, specimen, 0.5, 22)
    for direction in (-1, 1):
        steps = [
            np.float32([(3, 0), (reach, 0), (reach, 7), (3, 7)]) * (direction, -1)
            + (middle, bottom - 6.2 * k)
            for k, reach in enumerate((27, 22, 18, 14, 10, 6.5))
        ]
        sheet.fill(steps, specimen.ink, 0.85)
        sheet.lines(steps, specimen.dark, 0.5, 0.9, closed=True)


SPECIMENS = (
    Specimen(1_000, 121, (229, 227, 188), (138, 143, 62), (72, 76, 30), (203, 186, 88), 4, _islands),
    Specimen(2_000, 126, (226, 226, 229), (122, 126, 136), (52, 55, 64), (168, 158, 152), 5, _volcanoes),
    Specimen(5_000, 131, (243, 224, 190), (184, 117, 44), (100, 54, 16), (222, 165, 74), 6, _terraces),
    Specimen(10_000, 136, (233, 217, 240), (131, 78, 165), (72, 32, 106), (190, 120, 186), 8, _temple),
    Specimen(20_000, 141, (210, 236, 211), (44, 140, 78), (14, 76, 42), (128, 180, 66), 5, _palms),
    Specimen(50_000, 146, (207, 226, 244), (38, 102, 180), (14, 46, 106), (76, 168, 198), 7, _ships),
    Specimen(100_000, 151, (250, 217, 212), (203, 46, 58), (124, 14, 32), (228, 128, 92), 10, _gate),
)


def mark_mask(specimen: Specimen, side: str) -> Picture:
    """Where the letters of SPESIMEN lie: (65, length) mm at 4 px/mm, 0–255."""
    return cv2.resize(
        _mark(specimen, side), None, fx=1 / OVERSAMPLING, fy=1 / OVERSAMPLING, interpolation=cv2.INTER_AREA
    )


def _mark(specimen: Specimen, side: str) -> Picture:
    scale = PX_PER_MM * OVERSAMPLING
    size = (round(specimen.length_mm * scale), round(HEIGHT_MM * scale))
    flat = _written(MARK, size, (size[0] / 2, size[1] / 2), 19 * scale, "mm", 0.5 * scale)
    turn = cv2.getRotationMatrix2D((size[0] / 2, size[1] / 2), 14 if side == "obverse" else -14, 1)
    return np.asarray(cv2.warpAffine(flat, turn, size), np.uint8)


def _obverse(sheet: _Sheet, specimen: Specimen) -> None:
    length = sheet.length_mm
    _bands(sheet, specimen.ink, 0.55, 1.0 + specimen.petals / 10)
    sheet.fill([_box(length - 24, 0, length - 15, HEIGHT_MM)], specimen.ink, 0.55)
    sheet.fill([_circle(length - 19.5, 6.5 + 10.4 * k, 3.1) for k in range(6)], specimen.paper, 0.75)
    sheet.fill([_box(0, HEIGHT_MM - 9, length, HEIGHT_MM)], specimen.ink, 0.45)
    sheet.fill([_circle(20, 39, 12)], (252, 251, 246), 0.55)
    _rosette(sheet, (20, 39), 12, specimen.petals, specimen.accent)
    centre = (length * 0.56, 33.0)
    sheet.fill([_circle(*centre, 23)], specimen.paper, 0.75)
    _rosette(sheet, centre, 26, 3 * specimen.petals, specimen.dark)
    _flower(sheet, centre, 18, specimen.petals, specimen.ink, specimen.accent, specimen.dark)
    sheet.write(specimen.numeral, (5, 4), 14, specimen.dark, bold=0.045, halo=specimen.paper)
    sheet.write(specimen.numeral, (length - 4, 34), 6, specimen.dark, anchor="mb", bold=0.03, turn=1)
    sheet.write(NOTICE, (5, HEIGHT_MM - 2.6), 3.2, specimen.dark, anchor="ls", bold=0.03)


def _reverse(sheet: _Sheet, specimen: Specimen) -> None:
    length = sheet.length_mm
    _kawung(sheet, specimen.ink, 0.5, 13.0)
    left, top, right, bottom = _window(sheet)
    sheet.fill([_box(left - 2, top - 2, right + 2, bottom + 2)], specimen.paper, 0.9)
    specimen.scene(sheet, specimen)
    sheet.lines([_box(left - 2, top - 2, right + 2, bottom + 2)], specimen.ink, 0.8, 0.9, closed=True)
    sheet.fill([_box(0, 0, 12, HEIGHT_MM)], specimen.ink, 0.6)
    sheet.write(specimen.numeral, (8.6, HEIGHT_MM / 2), 7, specimen.paper, anchor="ms", bold=0.04, turn=1)
    _rosette(sheet, (length - 21, 24), 17, 2 * specimen.petals, specimen.ink)
    _flower(sheet, (length - 21, 24), 8, specimen.petals, specimen.accent, specimen.ink, specimen.dark)
    sheet.write(
        specimen.numeral,
        (length - 5, HEIGHT_MM - 4),
        14,
        specimen.dark,
        anchor="rs",
        bold=0.045,
        halo=specimen.paper,
    )
    sheet.write(NOTICE, (15, 5.4), 3.0, specimen.dark, bold=0.03, anchor="ls")


@cache
def draw_specimen(value: int, side: str) -> Picture:
    """One side of one note: RGB uint8 (65, length) mm at 4 px/mm; read-only, drawn once per process."""
    specimen = next(specimen for specimen in SPECIMENS if specimen.value == value)
    sheet = _Sheet(specimen.length_mm, specimen.paper)
    tint = np.linspace(0, 1, sheet.shape[1], dtype=np.float32)[None, :, None]
    warmth = tint if side == "obverse" else 1 - tint
    sheet.canvas += (np.float32(specimen.accent) - sheet.canvas) * warmth * 0.4
    {"obverse": _obverse, "reverse": _reverse}[side](sheet, specimen)
    sheet.lay(_mark(specimen, side), specimen.dark, 0.42)
    sheet.lines(
        [_box(0.3, 0.3, specimen.length_mm - 0.3, HEIGHT_MM - 0.3)], specimen.dark, 0.5, 0.5, closed=True
    )
    drawn = sheet.finished()
    drawn.flags.writeable = False
    return drawn


def draw_chart(row_px: int = 136, gap_px: int = 14) -> Picture:
    """All specimens, a row each, obverse left and reverse right, to scale: RGB uint8 (H, W, 3)."""
    longest = max(specimen.length_mm for specimen in SPECIMENS)
    column = round(longest * row_px / HEIGHT_MM)
    chart = np.full((len(SPECIMENS) * (row_px + gap_px) + gap_px, 2 * column + 3 * gap_px, 3), 250, np.uint8)
    for row, specimen in enumerate(SPECIMENS):
        width = round(specimen.length_mm * row_px / HEIGHT_MM)
        top = gap_px + row * (row_px + gap_px)
        for place, side in enumerate(SIDES):
            left = gap_px + place * (column + gap_px) + (column - width) // 2
            small = cv2.resize(
                draw_specimen(specimen.value, side), (width, row_px), interpolation=cv2.INTER_AREA
            )
            chart[top : top + row_px, left : left + width] = small
    return chart
