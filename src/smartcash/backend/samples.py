"""A data set of drawn specimen notes, labelled and ready to train on.

Picture `k` of a split is a function of (seed, split, k) alone: it does not change with the number of pictures,
and the same call writes the same bytes again (with the same versions of SmartCash, OpenCV and Pillow).
Everything is RGB until a file is written. Boxes are the hull of the pixels of a note that can be seen.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from smartcash import __version__
from smartcash.backend.specimens import HEIGHT_MM, PX_PER_MM, SIDES, SPECIMENS, Specimen, draw_specimen
from smartcash.domain.errors import DataInvalid
from smartcash.utils.files import reason_of

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Picture = NDArray[np.uint8]
Thing = TypeVar("Thing")

TASKS = ("detect", "classify")
SPLITS = ("train", "valid", "test")
CLASS_NAMES = tuple(specimen.name for specimen in SPECIMENS)
LEAST_IMAGES = 10
SIZE_RANGE_PX = (96, 2048)
LEAST_VISIBLE = 0.45  # of a note's area; a note covered further would have no honest label
LEAST_INSIDE = 0.72  # of a note's area lies within the picture when it is laid down
EMPTY_EVERY = 20  # one picture in so many shows no note
UNFINISHED = "unfinished"  # where an interrupted drawing leaves its files


@dataclass(frozen=True)
class SampleSummary:
    """What was written: pictures, notes (labels), notes per class name, and the time it took."""

    path: Path
    images: int
    notes: int
    per_class: dict[str, int]
    seconds: float


@dataclass
class Scene:
    """A picture in the making: RGB float32 (S, S, 3), and a visible mask (S, S) for each note."""

    canvas: Floats
    camera: Floats  # 3×3, from the flat table to the tilted picture
    notes: list[Note] = field(default_factory=list)

    @property
    def size(self) -> int:
        return self.canvas.shape[0]

    def allows(self, cover: Mask) -> bool:
        """Whether something over `cover` leaves enough of every note."""
        return all((note.visible & ~cover).sum() >= LEAST_VISIBLE * note.area_px for note in self.notes)

    def lay(self, colour: Floats | Picture, alpha: Floats, shadow: float, shift: tuple[float, float]) -> None:
        """Put `colour` (S, S, 3) where `alpha` (S, S) is, with a soft shadow moved by `shift` pixels."""
        x, y, width, height = cv2.boundingRect((alpha > 0).astype(np.uint8))
        blur = _odd_pair(self.size / 45)
        margin = blur[0] + round(max(abs(shift[0]), abs(shift[1])))
        part = np.s_[max(0, y - margin) : y + height + margin, max(0, x - margin) : x + width + margin]
        weight, ground = alpha[part], self.canvas[part]
        move = np.float32([[1, 0, shift[0]], [0, 1, shift[1]]])
        dark = cv2.blur(cv2.warpAffine(weight, move, weight.shape[::-1]), blur)
        ground *= _three(1 - np.float32(shadow) * dark)
        ground += (colour[part] - ground) * _three(weight)
        cover = alpha > 0.5
        for note in self.notes:
            note.visible &= ~cover


@dataclass
class Note:
    """One note in a picture: its class, its whole area were nothing in the way, and what is seen of it."""

    class_id: int
    area_px: float
    visible: Mask

    def box_xyxy(self) -> tuple[int, int, int, int]:
        """The hull of the visible pixels: left, top, right, bottom in pixels, the last two exclusive."""
        x, y, width, height = cv2.boundingRect(self.visible.astype(np.uint8))
        return x, y, x + width, y + height


# --- the data set


def write_samples(
    out: Path,
    images: int = 400,
    seed: int = 0,
    task: Literal["detect", "classify"] = "detect",
    size_px: int = 320,
) -> SampleSummary:
    """Draw `images` square pictures of `size_px` into the new or empty folder `out`, split 70/15/15.

    detect: YOLO layout (`data.yaml`, `images/{train,valid,test}`, `labels/…`), one to six notes a picture and
    now and then none. classify: `{train,valid,test}/{1000,…,100000}/NNNN.jpg`, one note filling the picture.
    All is drawn in `out/unfinished` and moved up at the end, `data.yaml` last, so that a folder that looks
    complete is complete. Raises DataInvalid for arguments that make no sense and a folder that is not empty
    or cannot be written.
    """
    _check_arguments(images, seed, task, size_px)
    begun = time.perf_counter()
    per_class: Counter[str] = Counter()
    try:
        work = _empty_folder(out) / UNFINISHED
        work.mkdir()
        try:
            for split, count in _split_sizes(images).items():
                for index in range(count):
                    per_class.update(_write_image(work, split, index, seed, task, size_px))
            _write_description(work, images, seed, task, size_px)
            for name in sorted(path.name for path in work.iterdir() if path.name != "data.yaml"):
                (work / name).rename(out / name)
            if task == "detect":
                (work / "data.yaml").rename(out / "data.yaml")
        finally:
            shutil.rmtree(work)
    except OSError as error:
        raise DataInvalid("samples_out_not_writable", path=str(out), reason=reason_of(error)) from error
    notes = dict.fromkeys(CLASS_NAMES, 0) | per_class
    return SampleSummary(out, images, sum(notes.values()), notes, time.perf_counter() - begun)


def _check_arguments(images: int, seed: int, task: str, size_px: int) -> None:
    if task not in TASKS:
        raise DataInvalid("samples_task_unknown", task=task, known=", ".join(TASKS))
    if images < LEAST_IMAGES:
        raise DataInvalid("samples_too_few", images=images, least=LEAST_IMAGES)
    if seed < 0:
        raise DataInvalid("samples_seed_negative", seed=seed)
    least, most = SIZE_RANGE_PX
    if not least <= size_px <= most:
        raise DataInvalid("samples_size_out_of_range", size_px=size_px, least=least, most=most)


def _empty_folder(out: Path) -> Path:
    if out.exists() and not out.is_dir():
        raise DataInvalid("samples_out_not_a_folder", path=str(out))
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise DataInvalid("samples_out_not_empty", path=str(out))
    return out


def _split_sizes(images: int) -> dict[str, int]:
    """70/15/15, each at least one."""
    share = max(1, round(images * 0.15))
    return {"train": images - 2 * share, "valid": share, "test": share}


def _write_image(work: Path, split: str, index: int, seed: int, task: str, size_px: int) -> list[str]:
    """Draw and write one picture with its label; returns the class names of the notes in it."""
    picture, notes, quality = draw_sample(split, index, seed, task, size_px)
    names = [CLASS_NAMES[note.class_id] for note in notes]
    if task == "classify":
        file = work / split / names[0] / f"{index:04d}.jpg"
    else:
        file = work / "images" / split / f"{index:04d}.jpg"
        label = work / "labels" / split / f"{index:04d}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(
            "".join(_label_line(note, size_px) for note in notes), encoding="utf-8", newline="\n"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    _, encoded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    file.write_bytes(encoded.tobytes())
    return names


def _label_line(note: Note, size_px: int) -> str:
    """YOLO: class, then cxcywh as fractions of the picture, exact to a hundredth of a pixel."""
    left, top, right, bottom = note.box_xyxy()
    cxcywh = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
    return " ".join([str(note.class_id), *(f"{value / size_px:.6f}" for value in cxcywh)]) + "\n"


def _write_description(work: Path, images: int, seed: int, task: str, size_px: int) -> None:
    command = f"smartcash data sample --images {images} --seed {seed} --task {task} --size {size_px}"
    (work / "README.txt").write_text(
        README.format(command=command, version=__version__), encoding="utf-8", newline="\n"
    )
    if task == "detect":
        lines = ["path: .", "train: images/train", "val: images/valid", "test: images/test"]
        lines += [f"nc: {len(CLASS_NAMES)}", "names:"]
        lines += [f'  {class_id}: "{name}"' for class_id, name in enumerate(CLASS_NAMES)]
        (work / "data.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


README = """\
Uang spesimen SmartCash
=======================
Gambar di folder ini digambar oleh program, bukan difoto. Uangnya rancangan sendiri dengan tanda SPESIMEN di
kedua sisi: bukan tiruan uang yang beredar dan bukan alat pembayaran. Gunanya melatih dan menguji model.
Dibuat dengan SmartCash {version}:
    {command}
Perintah yang sama menghasilkan berkas yang sama. Bebas dipakai dengan lisensi MIT.

SmartCash specimen notes
========================
The pictures in this folder were drawn by a program, not photographed. The notes are of our own design and
marked SPESIMEN on both sides: no reproductions of money in circulation, no means of payment. They are for
training and testing models.
Made with SmartCash {version}:
    {command}
The same command gives the same files. Free to use under the MIT licence.
"""


# --- one picture


def draw_sample(
    split: str, index: int, seed: int, task: str, size_px: int
) -> tuple[Picture, list[Note], int]:
    """Picture `index` of a split: RGB uint8 (S, S, 3), the notes seen in it, and the JPEG quality to save with.

    The first note's denomination goes round by `index`, so that small splits hold all seven.
    """
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    scene = Scene(draw_background(rng, size_px), _camera(rng, size_px))
    for _ in range(int(rng.choice(4, p=[0.5, 0.25, 0.15, 0.1]))):
        _pick(rng, DISTRACTORS)(rng, scene)
    if task == "classify":
        _lay_note(rng, scene, index % len(SPECIMENS), (0.78, 1.0), 0.14)
    elif index % EMPTY_EVERY != 12:
        _lay_notes(rng, scene, index % len(SPECIMENS))
    if rng.random() < 0.3:
        _pick(rng, OCCLUDERS)(rng, scene)
    if task == "detect" and index % EMPTY_EVERY == 12:
        _lay_card(rng, scene)
    picture = _photograph(rng, scene.canvas)
    return picture, scene.notes, int(rng.integers(62, 96))


def _lay_notes(rng: Generator, scene: Scene, first: int) -> None:
    """One to six notes, the more the smaller, sometimes heaped."""
    count = int(rng.choice(6, p=[0.32, 0.27, 0.18, 0.11, 0.07, 0.05])) + 1
    widths = {1: (0.48, 0.95), 2: (0.42, 0.75), 3: (0.36, 0.62)}.get(count, (0.32, 0.5))
    spread = 0.16 if count > 1 and rng.random() < 0.25 else 0.36
    classes = [first, *rng.integers(0, len(SPECIMENS), count - 1)]
    for class_id in classes:
        _lay_note(rng, scene, int(class_id), widths, spread)


def _lay_note(
    rng: Generator, scene: Scene, class_id: int, widths: tuple[float, float], spread: float
) -> None:
    """Lay one note down where it and all others stay visible; given up after 15 tries (never for the first)."""
    specimen = SPECIMENS[class_id]
    sides = SIDES if rng.random() < 0.5 else SIDES[::-1]
    longest = SPECIMENS[-1].length_mm
    for attempt in range(15):
        if not scene.notes:
            spread *= 0.85  # the first note ends up near the middle, where it fits
        angle = float(
            rng.choice([rng.normal(0, 14), rng.normal(180, 14), rng.uniform(0, 360)], p=[0.7, 0.12, 0.18])
        )
        width = rng.uniform(*widths) * scene.size * specimen.length_mm / longest
        centre = scene.size * (0.5 + rng.uniform(-spread, spread, 2))
        quad = _quad(rng, specimen, centre, width, angle, scene.camera)
        colour, alpha, area = _render_note(rng, specimen, sides, quad, scene.size)
        seen = alpha > 0.5
        first_at_last = not scene.notes and attempt == 14
        if (seen.sum() >= LEAST_INSIDE * area and scene.allows(seen)) or first_at_last:
            light = rng.uniform(-1, 1, 2) * scene.size / 60
            scene.lay(colour, alpha, rng.uniform(0.2, 0.55), (light[0], abs(light[1])))
            scene.notes.append(Note(class_id, area, seen))
            return


def _pick(rng: Generator, things: Sequence[Thing]) -> Thing:
    return things[int(rng.integers(len(things)))]


def _camera(rng: Generator, size: int) -> Floats:
    """A tilt of the camera: the table's square becomes a trapezium."""
    square = np.float32([[0, 0], [1, 0], [1, 1], [0, 1]]) * size
    tilted = square + rng.uniform(-0.07, 0.07, (4, 2)).astype(np.float32) * size
    return cv2.getPerspectiveTransform(square, tilted).astype(np.float32)


def _quad(
    rng: Generator,
    specimen: Specimen,
    centre: NDArray[np.float64],
    width: float,
    angle: float,
    camera: Floats,
) -> Floats:
    """Corners (4, 2) of a note in the picture, clockwise from its top left."""
    half = np.float32([width, width * HEIGHT_MM / specimen.length_mm]) / 2
    corners = np.float32([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    corners += rng.uniform(-0.025, 0.025, (4, 2)).astype(np.float32) * width
    turn = np.deg2rad(angle)
    rotation = np.float32([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    flat = (corners @ rotation + centre).astype(np.float32)
    return cv2.perspectiveTransform(flat[None], camera)[0]


@cache
def _pyramid(value: int, side: str) -> list[Floats]:
    """A note's texture at 4, 2, 1 and 0.5 px/mm, float32."""
    levels = [draw_specimen(value, side).astype(np.float32)]
    for _ in range(3):
        levels.append(cv2.resize(levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    return levels


def _render_note(
    rng: Generator, specimen: Specimen, sides: tuple[str, ...], quad: Floats, size: int
) -> tuple[Floats, Floats, float]:
    """A wavy, creased, perhaps dog-eared note: colour (S, S, 3), alpha (S, S), and its whole area in pixels.

    Each pixel is led back to (u, v) in millimetres on the note; waves, folds and shading are functions of these.
    The area counts what lies outside the picture too.
    """
    length = specimen.length_mm
    edge = np.float32([[0, 0], [length, 0], [length, HEIGHT_MM], [0, HEIGHT_MM]])
    to_note = cv2.getPerspectiveTransform(quad, edge)
    margin = 3
    left, top = np.floor(quad.min(0)).astype(int) - margin
    right, bottom = np.ceil(quad.max(0)).astype(int) + margin
    x, y = np.meshgrid(
        np.arange(left, right, dtype=np.float32) + 0.5, np.arange(top, bottom, dtype=np.float32) + 0.5
    )
    depth = to_note[2, 0] * x + to_note[2, 1] * y + to_note[2, 2]
    u = ((to_note[0, 0] * x + to_note[0, 1] * y + to_note[0, 2]) / depth).astype(np.float32)
    v = ((to_note[1, 0] * x + to_note[1, 1] * y + to_note[1, 2]) / depth).astype(np.float32)
    px_per_mm = float(np.sqrt(cv2.contourArea(quad) / (length * HEIGHT_MM)))

    shade = np.ones_like(u)
    for along, across in ((u, v), (v, u)):
        phase = rng.uniform(0, 2 * np.pi)
        period = rng.uniform(45, 120)
        lift = rng.uniform(0, 1.6)
        wave = along * np.float32(2 * np.pi / period) + np.float32(phase)
        shade += np.float32(0.05 * lift) * np.cos(wave)
        across += np.float32(lift) * np.sin(wave)
    for _ in range(int(rng.integers(0, 4))):  # creases: a dark valley beside a bright ridge
        upright = rng.random() < 0.7
        place = rng.uniform(0.1, 0.9) * (length if upright else HEIGHT_MM)
        distance = (u if upright else v) - np.float32(place)
        distance += np.float32(rng.uniform(-0.15, 0.15)) * (v if upright else u)
        shade += np.float32(rng.uniform(0.05, 0.16)) * distance * np.exp(-((distance / 2.2) ** 2))
        shade += np.float32(rng.uniform(-0.06, 0.06)) * (distance > 0)

    alpha = _inside(u, v, length, px_per_mm)
    area = float((alpha > 0.5).sum())
    front, back = (_level(specimen.value, side, px_per_mm) for side in sides)
    colour = _look_up(front, u, v)
    if rng.random() < 0.15:  # a corner folded over shows the other side
        corner = np.float32([rng.choice([0, length]), rng.choice([0, HEIGHT_MM])])
        inward = np.float32([length / 2, HEIGHT_MM / 2]) - corner
        inward = inward * rng.uniform(0.6, 1.4, 2).astype(np.float32)
        inward /= np.linalg.norm(inward)
        distance = (u - corner[0]) * inward[0] + (v - corner[1]) * inward[1] - np.float32(rng.uniform(8, 24))
        u2, v2 = u - 2 * distance * inward[0], v - 2 * distance * inward[1]
        kept = np.clip(distance * px_per_mm + 0.5, 0, 1)
        flap = _inside(u2, v2, length, px_per_mm) * kept
        shade *= 1 - 0.3 * kept * (1 - flap) * np.exp(-np.maximum(distance - 2, 0) / 14)
        colour += (_look_up(back, length - u2, v2) * 0.94 - colour) * flap[..., None]
        alpha *= kept

    worn = rng.uniform(0.0, 0.25)
    colour += (colour.mean(2, keepdims=True) * np.float32([1.02, 1.0, 0.94]) - colour) * np.float32(worn)
    colour *= (shade * np.float32(rng.uniform(0.85, 1.06)))[..., None]
    return (*_onto(colour, alpha, left, top, size), area)


def _inside(u: Floats, v: Floats, length: float, px_per_mm: float) -> Floats:
    """Coverage of a pixel by the note, from its distance to the nearest edge."""
    nearest = np.minimum(np.minimum(u, length - u), np.minimum(v, HEIGHT_MM - v))
    return np.clip(nearest * px_per_mm + 0.5, 0, 1).astype(np.float32)


def _level(value: int, side: str, px_per_mm: float) -> Floats:
    """The coarsest texture that still has a texel per pixel."""
    levels = _pyramid(value, side)
    return levels[int(np.clip(np.floor(np.log2(PX_PER_MM / px_per_mm)), 0, len(levels) - 1))]


def _look_up(texture: Floats, u: Floats, v: Floats) -> Floats:
    scale = texture.shape[0] / HEIGHT_MM
    return cv2.remap(
        texture, u * scale - 0.5, v * scale - 0.5, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def _onto(colour: Floats, alpha: Floats, left: int, top: int, size: int) -> tuple[Floats, Floats]:
    """Cut a drawn part to the picture."""
    whole, cover = np.zeros((size, size, 3), np.float32), np.zeros((size, size), np.float32)
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + alpha.shape[1], size), min(top + alpha.shape[0], size)
    if x0 < x1 and y0 < y1:
        whole[y0:y1, x0:x1] = colour[y0 - top : y1 - top, x0 - left : x1 - left]
        cover[y0:y1, x0:x1] = alpha[y0 - top : y1 - top, x0 - left : x1 - left]
    return whole, cover


# --- what lies about, and what gets in the way


def _odd_pair(value: float) -> tuple[int, int]:
    odd = 2 * max(1, round(value / 2)) + 1
    return odd, odd


def _three(plane: NDArray[np.floating]) -> Floats:
    """(H, W) to (H, W, 3); ten times faster to multiply with than a broadcast over the last axis."""
    return cv2.merge((plane.astype(np.float32, copy=False),) * 3)


def _blend(ground: Floats, colour: Floats, weight: NDArray[np.generic]) -> Floats:
    """`ground` (S, S, 3) with one `colour` (3,) laid over it by `weight` (S, S), 0 to 1."""
    weight_HW = weight.astype(np.float32)
    return ground * _three(1 - weight_HW) + cv2.merge([weight_HW * channel for channel in colour])


def _any_colour(rng: Generator, low: float = 30, high: float = 230) -> Floats:
    """A random colour, more often dull than bright, as things on a table are."""
    colour = rng.uniform(low, high, 3)
    return (colour.mean() + (colour - colour.mean()) * rng.uniform(0.15, 1)).astype(np.float32)


def _plain(size: int, colour: Floats) -> Floats:
    return cv2.merge([np.full((size, size), channel, np.float32) for channel in colour])


def _fill(picture: Picture, shape: Floats, colour: NDArray[np.floating]) -> None:
    """Paint a polygon (N, 2) in pixels into `picture`, (S, S, 3) or (S, S)."""
    points = np.rint(shape * 16).astype(np.int32)
    cv2.fillPoly(picture, [points], np.clip(colour, 0, 255).tolist(), cv2.LINE_AA, shift=4)


def _patch(size: int, shape: Floats) -> Floats:
    """Coverage (S, S) of a polygon (N, 2) in pixels."""
    mask = np.zeros((size, size), np.uint8)
    _fill(mask, shape, np.float32([255]))
    return mask.astype(np.float32) / 255


def _disc(centre: NDArray[np.float64], radius: float) -> Floats:
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return (centre + radius * np.stack([np.cos(angle), np.sin(angle)], 1)).astype(np.float32)


def _oblong(centre: NDArray[np.float64], width: float, height: float, angle: float) -> Floats:
    return cv2.boxPoints(((float(centre[0]), float(centre[1])), (width, height), angle)).astype(np.float32)


def _lay_thing(rng: Generator, scene: Scene, outline: Floats, paint: Picture) -> None:
    """Lay a painted thing down unless it would hide a note."""
    alpha = _patch(scene.size, outline)
    if scene.allows(alpha > 0.5):
        scene.lay(paint, alpha, rng.uniform(0.25, 0.5), (scene.size / 90, scene.size / 70))


def _lay_coin(rng: Generator, scene: Scene) -> None:
    """A coin, silver or brass, with a rim and a relief; no number."""
    size = scene.size
    centre, radius = rng.uniform(0.05, 0.95, 2) * size, rng.uniform(0.035, 0.07) * size
    metal = np.float32([196, 196, 200] if rng.random() < 0.6 else [205, 172, 96]) * rng.uniform(0.75, 1.05)
    paint = np.full((size, size, 3), metal * 0.9, np.uint8)
    _fill(paint, _disc(centre - radius * 0.08, radius * 0.84), metal * 1.12)
    _fill(paint, _disc(centre, radius * 0.5), metal * 0.82)
    _fill(paint, _disc(centre - radius * 0.07, radius * 0.43), metal * 1.08)
    _lay_thing(rng, scene, _disc(centre, radius), paint)


def _lay_card(rng: Generator, scene: Scene) -> None:
    """A card, ticket or receipt: note-like in shape, with stripes and a stamp in place of a numeral."""
    size = scene.size
    width = rng.uniform(0.25, 0.5) * size
    centre, angle = rng.uniform(0.1, 0.9, 2) * size, rng.uniform(0, 180)
    outline = _oblong(centre, width, width * rng.uniform(0.42, 0.66), angle)
    across, down = outline[2] - outline[1], outline[0] - outline[1]

    def part(left: float, top: float, right: float, bottom: float) -> Floats:
        corners = ((left, top), (right, top), (right, bottom), (left, bottom))
        return np.float32([outline[1] + a * across + b * down for a, b in corners])

    paint = np.full((size, size, 3), _any_colour(rng, 60, 250), np.uint8)
    ink = _any_colour(rng, 10, 200)
    for _ in range(int(rng.integers(1, 6))):
        top = rng.uniform(0.08, 0.85)
        _fill(paint, part(0.08, top, rng.uniform(0.4, 0.92), top + rng.uniform(0.03, 0.12)), ink)
    if rng.random() < 0.5:
        _fill(paint, part(0.7, 0.15, 0.9, 0.45), _any_colour(rng))
    _lay_thing(rng, scene, outline, paint)


def _lay_pen(rng: Generator, scene: Scene) -> None:
    """A pen or a ruler, longer than wide, with a light edge."""
    size = scene.size
    centre, angle = rng.uniform(0, 1, 2) * size, rng.uniform(0, 180)
    length, width = rng.uniform(0.4, 0.8) * size, rng.uniform(0.02, 0.05) * size
    body = _any_colour(rng)
    paint = np.full((size, size, 3), body, np.uint8)
    _fill(paint, _oblong(centre - width * 0.2, length, width * 0.3, angle), body + 60)
    _lay_thing(rng, scene, _oblong(centre, length, width, angle), paint)


SKIN = ((232, 190, 160), (214, 164, 128), (186, 132, 96), (146, 98, 68), (102, 68, 48))


def _lay_fingers(rng: Generator, scene: Scene) -> None:
    """One to three fingers that reach in from the nearest side and hold a note (or the table)."""
    size = scene.size
    if scene.notes:
        left, top, right, bottom = _pick(rng, scene.notes).box_xyxy()
    else:
        left, top, right, bottom = 0, 0, size, size
    target = np.array([rng.uniform(left, right), rng.uniform(top, bottom)])
    away = target - size / 2
    away = away / max(float(np.linalg.norm(away)), 1.0)
    skin = np.float32(_pick(rng, SKIN))
    thick = rng.uniform(0.07, 0.11) * size
    sideways = np.array([-away[1], away[0]])
    for finger in range(int(rng.integers(1, 4))):
        tip = target + sideways * finger * thick * 1.05 - away * rng.uniform(-0.3, 0.3) * thick
        root = tip + away * size + sideways * rng.uniform(-0.1, 0.1) * size
        mask = np.zeros((size, size), np.uint8)
        ends = [tuple(int(value * 16) for value in point) for point in (tip, root)]
        cv2.line(mask, ends[0], ends[1], 255, round(thick), cv2.LINE_AA, shift=4)
        alpha = mask.astype(np.float32) / 255
        if not scene.allows(alpha > 0.5):
            return
        rounded = cv2.blur(alpha, _odd_pair(thick * 0.7))
        colour = cv2.merge([(0.5 + 0.55 * rounded) * channel for channel in skin])
        nail = cv2.ellipse2Poly((0, 0), (100, 72), 0, 0, 360, 10) / 100 * (thick * 0.3)
        spun = nail @ np.array([away, sideways]) + tip - away * thick * 0.08
        pale = cv2.blur(_patch(size, spun.astype(np.float32)), _odd_pair(thick * 0.1))
        colour = _blend(colour, skin * 0.7 + 76, 0.7 * pale)
        scene.lay(colour, alpha, 0.4, (size / 90, size / 70))


DISTRACTORS: tuple[Callable[[Generator, Scene], None], ...] = (_lay_coin, _lay_card, _lay_pen, _lay_coin)
OCCLUDERS: tuple[Callable[[Generator, Scene], None], ...] = (
    _lay_fingers,
    _lay_fingers,
    _lay_coin,
    _lay_card,
    _lay_pen,
)


# --- backgrounds: each RGB float32 (S, S, 3)


def _cloud(rng: Generator, size: int, cells: int, stretch: int = 1) -> Floats:
    """Smooth noise around 0, about -1 to 1, with `cells` bumps across and `stretch` times fewer down."""
    coarse = rng.uniform(-1, 1, (max(2, cells // stretch), cells)).astype(np.float32)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


def _grid(size: int) -> tuple[Floats, Floats]:
    """Coordinates (x, y) of the pixels, 0 to 1."""
    line = (np.arange(size, dtype=np.float32) + 0.5) / size
    return np.broadcast_to(line, (size, size)), np.broadcast_to(line[:, None], (size, size))


WOODS = ((150, 104, 62), (190, 148, 98), (98, 64, 42), (208, 178, 136))


def _wood(rng: Generator, size: int) -> Floats:
    x = _grid(size)[0]
    base = np.float32(_pick(rng, WOODS))
    rings = np.sin(
        (x * np.float32(rng.uniform(6, 16)) + 1.1 * _cloud(rng, size, 6, 3)) * np.float32(2 * np.pi)
    )
    streaks = _cloud(rng, size, max(24, size // 3), max(12, size // 16))
    planks = np.floor(x * int(rng.integers(2, 6)))
    tone = 1 + 0.07 * rings + 0.1 * streaks + 0.09 * np.sin(planks * 2.4)
    tone[np.diff(planks, axis=1, prepend=planks[:, :1]) > 0] *= 0.55
    return _plain(size, base) * _three(tone if rng.random() < 0.5 else tone.T)


def _cloth(rng: Generator, size: int) -> Floats:
    x, y = _grid(size)
    cloth = _plain(size, _any_colour(rng, 40, 220))
    if rng.random() < 0.6:  # checks
        turns = np.float32(2 * np.pi * rng.uniform(3, 9))
        checks = (np.sin(x * turns) > 0.3).astype(np.float32) + (np.sin(y * turns) > 0.3)
        cloth = _blend(cloth, _any_colour(rng, 40, 240), 0.35 * checks)
    threads = np.float32(2 * np.pi * rng.uniform(50, 110))
    return cloth * _three(1 + 0.05 * (np.sin(x * threads) + np.sin(y * threads)) + 0.1 * _cloud(rng, size, 5))


def _paper(rng: Generator, size: int) -> Floats:
    y = _grid(size)[1]
    sheet = _plain(size, rng.uniform(190, 240) * np.float32([1, 0.99, rng.uniform(0.86, 1)]))
    kind = int(rng.integers(3))
    if kind == 0:  # ruled
        lines = np.sin(y * np.float32(2 * np.pi * rng.uniform(9, 18))) > 0.96
        sheet = _blend(sheet, np.float32([130, 150, 200]), 0.7 * lines)
    elif kind == 1:  # printed
        rows = np.sin(y * np.float32(2 * np.pi * rng.uniform(18, 34))) > 0.35
        words = _cloud(rng, size, max(50, size // 4), 2) > -0.2
        sheet = _blend(sheet, np.float32([70, 70, 76]), 0.6 * (rows & words))
    return sheet


def _tiles(rng: Generator, size: int) -> Floats:
    x, y = _grid(size)
    turn, count = rng.uniform(0, np.pi), np.float32(rng.uniform(2, 7))
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    a, b = (x * cos + y * sin) * count + 9, (y * cos - x * sin) * count + 9
    column, row = a.astype(np.int32), b.astype(np.int32)
    tints = rng.uniform(0.86, 1.08, (20, 20)).astype(np.float32)
    if rng.random() < 0.35:  # a chessboard
        tints[(np.add.outer(np.arange(20), np.arange(20)) % 2).astype(bool)] *= 0.6
    tone = tints[column % 20, row % 20] + 0.05 * _cloud(rng, size, 16)
    a, b = np.abs(a - column - 0.5), np.abs(b - row - 0.5)
    floor = _plain(size, _any_colour(rng, 90, 235)) * _three(tone)
    return _blend(floor, _any_colour(rng, 80, 220), np.maximum(a, b) > 0.475)


def _clutter(rng: Generator, size: int) -> Floats:
    x, y = _grid(size)
    turn = rng.uniform(0, 2 * np.pi)
    ramp = 0.5 + 0.6 * ((x - 0.5) * np.float32(np.cos(turn)) + (y - 0.5) * np.float32(np.sin(turn)))
    ground = _blend(_plain(size, _any_colour(rng)), _any_colour(rng), np.clip(ramp, 0, 1))
    picture = np.clip(ground, 0, 255).astype(np.uint8)
    for _ in range(int(rng.integers(3, 12))):
        centre, reach = rng.uniform(0, 1, 2) * size, rng.uniform(0.05, 0.28) * size
        flat = rng.uniform(0.2, 2)
        round_one = rng.random() < 0.4
        shape = _disc(centre, reach) if round_one else _oblong(centre, 2 * reach, reach * flat, 90 * flat)
        _fill(picture, shape, _any_colour(rng, 15, 245))
    return cv2.blur(picture, _odd_pair(size * rng.uniform(0.004, 0.03))).astype(np.float32)


def _stone(rng: Generator, size: int) -> Floats:
    veins = np.abs(_cloud(rng, size, 7) + 0.5 * _cloud(rng, size, 19) + 0.25 * _cloud(rng, size, 45))
    tone = 0.75 + 0.3 * np.minimum(veins * 2.2, 1)
    tone[_cloud(rng, size, max(16, size // 4)) > 0.75] *= np.float32(rng.uniform(0.6, 1.25))
    return _plain(size, _any_colour(rng, 90, 240) * 0.5 + np.float32(rng.uniform(40, 120))) * _three(tone)


BACKGROUNDS: tuple[Callable[[Generator, int], Floats], ...] = (
    _wood,
    _cloth,
    _paper,
    _tiles,
    _clutter,
    _stone,
)


def draw_background(rng: Generator, size: int) -> Floats:
    """A surface with uneven brightness: RGB float32 (S, S, 3), roughly 0–255."""
    surface = _pick(rng, BACKGROUNDS)(rng, size)
    return surface * _three(1 + 0.08 * _cloud(rng, size, 3))


# --- the camera


def _photograph(rng: Generator, canvas: Floats) -> Picture:
    """Light, colour cast, blur and noise: float32 in, uint8 (S, S, 3) out."""
    size = canvas.shape[0]
    x, y = _grid(size)
    turn = rng.uniform(0, 2 * np.pi)
    fall = rng.uniform(0, 0.45)
    light = 1 + np.float32(fall) * (
        (x - 0.5) * np.float32(np.cos(turn)) + (y - 0.5) * np.float32(np.sin(turn))
    )
    light *= np.float32(rng.uniform(0.72, 1.18))
    if rng.random() < 0.3:  # somebody's shadow, with a soft edge
        mask = np.zeros((size, size), np.uint8)
        edge = rng.uniform(-0.3, 1.3, (4, 2)) * size
        cv2.fillConvexPoly(mask, cv2.convexHull(edge.astype(np.int32)), 255)
        soft = cv2.blur(mask, _odd_pair(size * rng.uniform(0.03, 0.15))).astype(np.float32) / 255
        light *= 1 - np.float32(rng.uniform(0.15, 0.42)) * soft
    if rng.random() < 0.15:  # a lamp's glare
        centre = rng.uniform(0, 1, 2)
        distance = (x - np.float32(centre[0])) ** 2 + (y - np.float32(centre[1])) ** 2
        light += np.float32(rng.uniform(0.2, 0.5)) * np.exp(-distance / np.float32(rng.uniform(0.01, 0.05)))
    warmth, tint = rng.normal(0, 0.06), rng.normal(0, 0.025)
    cast = (1 + warmth, 1 + tint, 1 - warmth)
    photo = np.clip(canvas * cv2.merge([light * np.float32(gain) for gain in cast]), 0, 255)
    kind = rng.random()
    if kind < 0.35:
        sigma = rng.uniform(0.4, 1.1) * size / 320
        photo = cv2.GaussianBlur(photo, (0, 0), sigma)
    elif kind < 0.45:  # a moving hand
        reach = max(3, round(rng.uniform(3, 6) * size / 320))
        kernel = np.zeros((reach, reach), np.float32)
        way = rng.uniform(0, np.pi)
        half = (reach - 1) / 2
        start = (round(half - half * np.cos(way)), round(half - half * np.sin(way)))
        end = (round(half + half * np.cos(way)), round(half + half * np.sin(way)))
        cv2.line(kernel, start, end, 1)
        photo = cv2.filter2D(photo, -1, kernel / kernel.sum())
    photo += _three(rng.standard_normal((size, size), np.float32) * np.float32(rng.uniform(1, 7)))
    return np.clip(photo + 0.5, 0, 255).astype(np.uint8)
