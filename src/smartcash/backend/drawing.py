"""Pictures with boxes, and sheets of pictures: notes in their own colours, text readable on any photo.

Images are RGB uint8 arrays (H, W, 3), boxes xyxy in pixels. Lines and letters grow with the image, so a phone
photo and a 320-pixel picture look alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from smartcash.domain.banknotes import Colour, colour_of, display_names, values_of

Picture = npt.NDArray[np.uint8]
Rectangle = tuple[float, float, float, float]

# for classes without a value: Okabe and Ito's palette, which colour-blind eyes tell apart, without its black
PALETTE: tuple[Colour, ...] = (
    (0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233),
    (240, 228, 66),
)  # fmt: skip
PAPER: Colour = (250, 248, 244)
SHEET: Colour = (228, 223, 213)
INK: Colour = (29, 33, 38)
WHITE: Colour = (255, 255, 255)


def class_colours(classes: Sequence[str]) -> tuple[Colour, ...]:
    """One colour per class: the note's own where the name has a value, else the palette's next."""
    own = [colour_of(value) for value in values_of(classes)]
    others = iter(range(len(classes)))
    return tuple(colour or PALETTE[next(others) % len(PALETTE)] for colour in own)


def draw_boxes(
    image_rgb: Picture,
    boxes_N4: npt.ArrayLike,
    labels_N: npt.ArrayLike,
    scores_N: npt.ArrayLike | None,
    classes: Sequence[str],
    truth: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
) -> Picture:
    """A copy of the image with the boxes drawn on it, the surest on top; `truth` is dashed and without text.

    Without scores (None) the text is the class alone. Raises ValueError for an image that is not RGB uint8
    and for labels that are no index into `classes`.
    """
    if image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or image_rgb.dtype != np.uint8:
        raise ValueError(f"an RGB uint8 image is needed, this is {image_rgb.dtype} {image_rgb.shape}")
    canvas = Image.fromarray(np.ascontiguousarray(image_rgb))
    draw = ImageDraw.Draw(canvas)
    colours, names = class_colours(classes), display_names(classes)
    size_px = float(np.sqrt(canvas.width * canvas.height))
    line_px = max(2, round(size_px / 180))
    font = _font(max(11, round(size_px / 26)))

    for box, label in _rows(*truth, classes, canvas.size) if truth is not None else ():
        _dashed(draw, box, colours[label], max(1, line_px // 2))

    rows = list(_rows(boxes_N4, labels_N, classes, canvas.size))
    scores = None if scores_N is None else np.asarray(scores_N, np.float64).reshape(-1).tolist()
    if scores is not None and len(scores) != len(rows):
        raise ValueError(f"{len(rows)} boxes and {len(scores)} scores do not fit")
    order = range(len(rows)) if scores is None else sorted(range(len(rows)), key=scores.__getitem__)
    for index in order:
        box, label = rows[index]
        draw.rectangle(_grown(box, 1), outline=WHITE, width=line_px + 2)  # a light rim for dark photos
        draw.rectangle(box, outline=colours[label], width=line_px)

    taken: list[Rectangle] = []
    for index in reversed(order):
        box, label = rows[index]
        text = names[label] if scores is None else f"{names[label]} {_percent(scores[index])}"
        taken.append(_tag(draw, box, text, colours[label], font, taken, canvas.size))
    return np.asarray(canvas)


def contact_sheet(
    images: Sequence[Picture],
    columns: int = 4,
    captions: Sequence[str] | None = None,
    cell_px: int = 320,
) -> Picture:
    """The images side by side, row by row, each with its longer side `cell_px` long and a caption below it.

    Raises ValueError without an image, without a column, and for a number of captions that does not fit.
    """
    if not images or columns < 1:
        raise ValueError(f"a contact sheet needs images and columns, not {len(images)} and {columns}")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"{len(images)} images and {len(captions)} captions do not fit")
    pictures = [_fitted(image, cell_px) for image in images]
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    cell_width = max(picture.width for picture in pictures)
    cell_height = max(picture.height for picture in pictures)
    gap_px = max(4, cell_px // 32)
    font = _font(max(11, cell_px // 22))
    caption_px = 0 if captions is None else round(font.size * 1.6)
    step_x, step_y = cell_width + gap_px, cell_height + caption_px + gap_px
    sheet = Image.new("RGB", (columns * step_x + gap_px, rows * step_y + gap_px), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, picture in enumerate(pictures):
        left = gap_px + index % columns * step_x
        top = gap_px + index // columns * step_y
        draw.rectangle((left, top, left + cell_width - 1, top + cell_height - 1), fill=SHEET)
        centred = (left + (cell_width - picture.width) // 2, top + (cell_height - picture.height) // 2)
        sheet.paste(picture, centred)
        if captions is not None:
            middle = (left + cell_width / 2, top + cell_height + caption_px / 2)
            draw.text(middle, _shortened(captions[index], font, cell_width), INK, font, anchor="mm")
    return np.asarray(sheet)


def _fitted(image: Picture, side_px: int) -> Image.Image:
    """The image with its longer side `side_px` long."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    scale = side_px / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS)


@cache
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    """Pillow's own scalable font: the same letters on every machine."""
    font = ImageFont.load_default(size_px)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("this Pillow was built without FreeType; install the one from PyPI")
    return font


def _rows(
    boxes_N4: npt.ArrayLike, labels_N: npt.ArrayLike, classes: Sequence[str], size: tuple[int, int]
) -> Iterator[tuple[Rectangle, int]]:
    """Box and label one by one, whole pixels, clipped to the image so that every side is seen."""
    boxes = np.asarray(boxes_N4, np.float64).reshape(-1, 4)
    labels = np.asarray(labels_N, np.int64).reshape(-1)
    if len(boxes) != len(labels):
        raise ValueError(f"{len(boxes)} boxes and {len(labels)} labels do not fit")
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
        raise ValueError(f"labels must lie between 0 and {len(classes) - 1}")
    last_pixel = np.array([*size, *size]) - 1
    boxes = np.clip(np.round(boxes), 0, last_pixel)
    for (left, top, right, bottom), label in zip(boxes.tolist(), labels.tolist()):
        yield (min(left, right), min(top, bottom), max(left, right), max(top, bottom)), label


def _percent(score: float) -> str:
    """Never "100%" for less than certain."""
    return f"{min(round(100 * score), 99 if score < 1 else 100)}%"


def _grown(box: Rectangle, by_px: float) -> Rectangle:
    return box[0] - by_px, box[1] - by_px, box[2] + by_px, box[3] + by_px


def _dashed(draw: ImageDraw.ImageDraw, box: Rectangle, colour: Colour, line_px: int) -> None:
    """A dashed rectangle on a white one, so that it is seen beside a drawn box of the same colour."""
    left, top, right, bottom = box
    draw.rectangle(box, outline=WHITE, width=line_px)
    dash_px, inner_px = 6 * line_px, line_px - 1
    for x in np.arange(left, right, 2 * dash_px):
        end = min(x + dash_px, right)
        draw.rectangle((x, top, end, min(top + inner_px, bottom)), colour)
        draw.rectangle((x, max(bottom - inner_px, top), end, bottom), colour)
    for y in np.arange(top, bottom, 2 * dash_px):
        end = min(y + dash_px, bottom)
        draw.rectangle((left, y, min(left + inner_px, right), end), colour)
        draw.rectangle((max(right - inner_px, left), y, right, end), colour)


def _tag(
    draw: ImageDraw.ImageDraw,
    box: Rectangle,
    text: str,
    colour: Colour,
    font: ImageFont.FreeTypeFont,
    taken: list[Rectangle],
    size: tuple[int, int],
) -> Rectangle:
    """Write `text` on a plate at the box, at the first corner that is inside the image and still free."""
    pad_px = max(2, round(font.size * 0.22))
    width = font.getlength(text) + 2 * pad_px
    height = round(font.size * 1.15) + pad_px
    left, top, right, bottom = box
    corners = (
        (left, top - height),
        (left, top),
        (right - width, top - height),
        (left, bottom),
        (left, bottom - height),
        (right - width, bottom - height),
        (right - width, bottom),
    )
    plates = [(x, y, x + width, y + height) for x, y in corners]
    inside = [plate for plate in plates if _is_inside(plate, size)]
    free = [plate for plate in inside if not any(_cross(plate, other) for other in taken)]
    x = min(max(left, 0), max(size[0] - width, 0))
    y = min(max(top, 0), max(size[1] - height, 0))
    plate = (free or inside or [(x, y, x + width, y + height)])[0]
    draw.rounded_rectangle(plate, radius=pad_px, fill=colour)
    middle = ((plate[0] + plate[2]) / 2, (plate[1] + plate[3]) / 2)
    draw.text(middle, text, _readable_on(colour), font, anchor="mm")
    return plate


def _is_inside(plate: Rectangle, size: tuple[int, int]) -> bool:
    return plate[0] >= 0 and plate[1] >= 0 and plate[2] <= size[0] and plate[3] <= size[1]


def _cross(one: Rectangle, other: Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _readable_on(colour: Colour) -> Colour:
    """White or ink, whichever has the higher contrast (WCAG 2.2, relative luminance)."""
    on_white = (_luminance(WHITE) + 0.05) / (_luminance(colour) + 0.05)
    on_ink = (_luminance(colour) + 0.05) / (_luminance(INK) + 0.05)
    return WHITE if on_white >= on_ink else INK


def _luminance(colour: Colour) -> float:
    linear = [(c / 255 / 12.92) if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _shortened(text: str, font: ImageFont.FreeTypeFont, width_px: float) -> str:
    """`text`, cut with an ellipsis where it is wider than `width_px`."""
    if font.getlength(text) <= width_px:
        return text
    while text and font.getlength(text + "…") > width_px:
        text = text[:-1]
    return text + "…"
