"""Pictures from disk, whatever they really are: RGB, 8 bit, upright; or one named problem with the way out.

The bytes decide, never the file's name. Ordinary JPEG and PNG go through OpenCV (fast); everything strange
(palette, alpha, CMYK, 16 bit, WebP, GIF, TIFF, …) and everything that does not end as its format demands
goes through Pillow, which refuses a cut file where OpenCV may fill it with grey.

Decisions: transparency is laid on white (what viewers, and so whoever drew the boxes, show); 16 bit is
divided by 257, the same for every picture; of an animation the first frame counts; 32-bit pixels are
refused, because their white point cannot be known.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from smartcash.domain.errors import DataInvalid, Problem

SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif"),
    *(".tif", ".tiff", ".avif", ".heic", ".heif", ".ppm", ".pgm"),
}
MAX_PIXELS = 89_478_485  # Pillow's own limit; 268 MB as RGB
MAX_BYTES = 512 * 2**20
_HEAD_BYTES = 64 * 1024  # holds the header of nearly every file

# What Pillow's decoders raise on damaged files (found by fuzzing), besides its own UnidentifiedImageError.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    RuntimeError,  # AVIF
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Header:
    """What the first bytes say: (width, height) in px before EXIF, EXIF's orientation (1–8)."""

    kind: str
    stored: tuple[int, int]
    orientation: int
    plain: bool  # OpenCV decodes it as Pillow would

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in px, upright."""
        width, height = self.stored
        return (height, width) if self.orientation >= 5 else (width, height)


def read_image(path: str | os.PathLike[str]) -> Pixels:
    """The picture at `path`: uint8, height × width × 3, RGB, upright.

    Raises DataInvalid with one problem (what is wrong with the file, what to do); a missing or forbidden
    file keeps its own OSError.
    """
    return decode_image(read_bytes(path), path)


def pillow_pixels(image: Image.Image) -> Pixels:
    """A Pillow image as `read_image` reads its file: uint8, height × width × 3, RGB, upright.

    Raises DataInvalid with one problem, as `read_image` does."""
    name = f"<{image.format or 'PIL'} {image.mode}>"
    orientation = _pillow_orientation(image)  # loading may turn the image and forget it
    try:
        return upright(_stored_pixels(image, name), orientation)
    except _DECODER_ERRORS as error:
        code = "data_image_truncated" if "truncated" in str(error).lower() else "data_image_unreadable"
        _refuse(name, code, kind=str(image.format))


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(width, height) in px of the upright picture, from its header only. Raises like `read_image`."""
    with Path(path).open("rb") as file:
        head = file.read(_HEAD_BYTES)
        header = _ordinary_header(head)
        if header is None:
            head += file.read(MAX_BYTES)
    return (_within_limits(header, path) if header else read_header(head, path)).size


def write_image(path: str | os.PathLike[str], image_HWC: Pixels, *, quality: int = 92) -> None:
    """Write RGB uint8 pixels; the suffix (.jpg, .png, .webp, …) is the format. Any file name works."""
    parameters = [cv2.IMWRITE_JPEG_QUALITY, quality] if Path(path).suffix.lower() in (".jpg", ".jpeg") else []
    done, encoded = cv2.imencode(Path(path).suffix, cv2.cvtColor(image_HWC, cv2.COLOR_RGB2BGR), parameters)
    if not done:
        raise ValueError(f"OpenCV cannot write {path}")
    Path(path).write_bytes(encoded.tobytes())


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The file's bytes, refused beyond `MAX_BYTES`."""
    if (size := Path(path).stat().st_size) > MAX_BYTES:
        _refuse(path, "data_image_huge", megabytes=size // 2**20, limit=MAX_BYTES // 2**20)
    return Path(path).read_bytes()


def read_header(data: bytes, path: str | os.PathLike[str]) -> Header:
    """The header of the picture in `data`; `path` only names it in the error. Raises DataInvalid."""
    return _within_limits(_ordinary_header(data) or _pillow_header(data, path), path)


def is_complete(data: bytes, header: Header) -> bool:
    """Whether a JPEG or PNG ends as its format demands; False means only a full decode can tell."""
    if header.kind == "JPEG":  # entropy-coded bytes never contain FF D9, so a cut file cannot fake it
        return b"\xff\xd9" in data[-64:]
    return header.kind == "PNG" and b"IEND\xaeB`\x82" in data[-64:]


def decode_image(data: bytes, path: str | os.PathLike[str]) -> Pixels:
    """Like `read_image`, from bytes already in memory."""
    header = read_header(data, path)
    if header.plain and is_complete(data, header):
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is not None:
            cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
            return upright(image, header.orientation)  # type: ignore[arg-type]
    return upright(_decode_with_pillow(data, path), header.orientation)


def upright(image: Pixels, orientation: int) -> Pixels:
    """Turn stored pixels the way EXIF `orientation` (1–8) says they are to be seen."""
    if orientation >= 5:
        image = cv2.transpose(image)  # type: ignore[assignment]
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return image if flip is None else cv2.flip(image, flip)  # type: ignore[return-value]


def upright_boxes(boxes_N4: NDArray[np.float64], header: Header) -> NDArray[np.float64]:
    """Boxes (xyxy, px) drawn on the stored pixels → the same boxes on the upright picture."""
    x1, y1, x2, y2 = boxes_N4.T
    width, height = header.stored
    if header.orientation >= 5:
        x1, y1, x2, y2 = y1, x1, y2, x2
        width, height = height, width
    if header.orientation in (2, 3, 6, 7):
        x1, x2 = width - x2, width - x1
    if header.orientation in (3, 4, 7, 8):
        y1, y2 = height - y2, height - y1
    return np.stack([x1, y1, x2, y2], axis=1)


def _refuse(path: str | os.PathLike[str], code: str, **facts: object) -> NoReturn:
    raise DataInvalid("data_image", [Problem(str(path), code, None, facts)], path=str(path))


def _within_limits(header: Header, path: str | os.PathLike[str]) -> Header:
    width, height = header.stored
    if width <= 0 or height <= 0:
        _refuse(path, "data_image_unreadable", kind=header.kind)
    if width * height > MAX_PIXELS:
        _refuse(path, "data_image_bomb", width=width, height=height, limit=MAX_PIXELS // 10**6)
    return header


def _ordinary_header(data: bytes) -> Header | None:
    """The header of a JPEG or PNG; None for anything else, or when `data` stops before the header ends."""
    if data.startswith(b"\xff\xd8"):
        return _jpeg_header(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png_header(data)
    return None


def _jpeg_header(data: bytes) -> Header | None:
    """Walk the JPEG markers (ITU T.81, annex B) up to the frame header."""
    position, orientation = 2, 1
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        body = data[position + 4 : position + 2 + length]
        if marker == 0xE1 and body.startswith(b"Exif\0\0"):
            orientation = exif_orientation(body[6:])
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if len(body) < 6:
                return None
            precision, height, width, components = struct.unpack(">BHHB", body[:6])
            plain = marker in (0xC0, 0xC1, 0xC2) and precision == 8 and components in (1, 3)
            return Header("JPEG", (width, height), orientation, plain)
        position += 2 + length
    return None


def _png_header(data: bytes) -> Header | None:
    """Walk the PNG chunks up to the pixels. An EXIF chunk behind the pixels does not count."""
    position, orientation, plain = 8, 1, False
    size = (0, 0)
    while position + 8 <= len(data):
        length, name = struct.unpack(">I4s", data[position : position + 8])
        body = data[position + 8 : position + 8 + length]
        if name == b"IHDR" and len(body) == 13:
            width, height, depth, colour = struct.unpack(">IIBB", body[:10])
            size, plain = (width, height), depth == 8 and colour in (0, 2)
        elif name == b"tRNS":
            plain = False
        elif name == b"eXIf":
            orientation = exif_orientation(body)
        elif name == b"IDAT":
            return Header("PNG", size, orientation, plain)
        position += 12 + length
    return None


def exif_orientation(exif: bytes) -> int:
    """The orientation (1–8) in a TIFF-structured EXIF block; 1 when absent or damaged."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 10:
        return 1
    (start,) = struct.unpack(order + "I", exif[4:8])
    (entries,) = struct.unpack(order + "H", exif[start : start + 2].ljust(2, b"\0"))
    for position in range(start + 2, min(start + 2 + 12 * entries, len(exif) - 11), 12):
        tag, _, _, value = struct.unpack(order + "HHIH", exif[position : position + 10])
        if tag == 0x0112:
            return value if 1 <= value <= 8 else 1
    return 1


def _pillow_header(data: bytes, path: str | os.PathLike[str]) -> Header:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return Header(str(image.format), image.size, _pillow_orientation(image), False)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        _refuse(path, "data_image_bomb", width="?", height="?", limit=MAX_PIXELS // 10**6)
    except _DECODER_ERRORS:
        _refuse_unknown(data, path)


def _pillow_orientation(image: Image.Image) -> int:
    exif = image.info.get("exif", b"") if image.format != "TIFF" else b""  # Pillow turns TIFF itself
    return exif_orientation(exif.removeprefix(b"Exif\0\0"))


def _refuse_unknown(data: bytes, path: str | os.PathLike[str]) -> NoReturn:
    """Say what the bytes are when they are no picture that can be read."""
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not data:
        _refuse(path, "data_image_empty")
    if start.startswith(b"version https://git-lfs"):
        _refuse(path, "data_image_lfs")
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"{")):
        _refuse(path, "data_image_text")
    if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc", b"ftypmsf1"):
        _refuse(path, "data_image_heic")
    if _ordinary_header(data) or data.startswith((b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8", b"BM")):
        _refuse(path, "data_image_truncated")
    _refuse(path, "data_image_unknown")


def _decode_with_pillow(data: bytes, path: str | os.PathLike[str]) -> Pixels:
    """Stored pixels (TIFF: upright) as RGB uint8."""
    kind = "?"
    try:
        with Image.open(io.BytesIO(data)) as image:
            kind = str(image.format)
            return _stored_pixels(image, path)
    except _DECODER_ERRORS as error:
        if "truncated" in str(error).lower():
            _refuse(path, "data_image_truncated")
        header = _ordinary_header(data)
        if header is not None and not is_complete(data, header):
            _refuse(path, "data_image_truncated")
        _refuse(path, "data_image_unreadable", kind=kind if header is None else header.kind)


def _stored_pixels(image: Image.Image, path: str | os.PathLike[str]) -> Pixels:
    """The pixels of a Pillow image as they are stored, RGB uint8. Raises DataInvalid for 32-bit pixels."""
    image.load()
    if image.mode.startswith("I;16") or image.mode == "I":
        return _from_16_bit(np.asarray(image).astype(np.int64), path)
    if image.mode == "F":
        _refuse(path, "data_image_depth")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return np.array(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))
    return np.array(image.convert("RGB"))


def _from_16_bit(values_HW: NDArray[np.int64], path: str | os.PathLike[str]) -> Pixels:
    if values_HW.size and (values_HW.min() < 0 or values_HW.max() > 65535):
        _refuse(path, "data_image_depth")
    return np.repeat(((values_HW + 128) // 257).astype(np.uint8)[:, :, None], 3, axis=2)
