"""Pictures as they really are. Rows A28 (every step validated), D9 (strange files are read or named)."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps, features

from smartcash.backend import images
from smartcash.backend.images import (
    decode_image,
    exif_orientation,
    image_size,
    pillow_pixels,
    read_image,
    write_image,
)
from smartcash.domain.errors import DataInvalid

RED, BLUE = (200, 30, 40), (20, 40, 210)


def two_halves(width: int = 40, height: int = 20) -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def problem_of(path: Path) -> str:
    """The code of the one problem that reading `path` names; its text exists and names a way out."""
    with pytest.raises(DataInvalid) as caught:
        read_image(path)
    (problem,) = caught.value.problems
    for language in ("en", "id"):
        assert problem.message(language).endswith((".", ")"))
    return problem.code


def near(pixel: np.ndarray, colour: tuple[int, int, int], tolerance: int = 6) -> bool:
    return bool(np.abs(pixel.astype(int) - colour).max() <= tolerance)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tiff"])
@pytest.mark.parametrize("name", ["plain", "uang kertas – Rp 1.000 (2)", "日本語 ü"])
def test_written_picture_is_read_back_under_any_name(tmp_path: Path, suffix: str, name: str) -> None:
    image = np.asarray(two_halves())
    write_image(tmp_path / (name + suffix), image)
    back = read_image(tmp_path / (name + suffix))
    assert back.shape == image.shape and back.dtype == np.uint8
    assert near(back[10, 5], RED, 8) and near(back[10, 35], BLUE, 8)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_gives_the_picture_that_viewers_show(
    tmp_path: Path, kind: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.bin"
    two_halves().save(path, kind, exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    back = read_image(path)
    assert back.shape == expected.shape
    assert np.abs(back.astype(int) - expected).max() <= 3
    assert image_size(path) == (back.shape[1], back.shape[0])


def test_gray_palette_and_bilevel_pictures_become_rgb(tmp_path: Path) -> None:
    for mode in ("L", "P", "1"):
        path = tmp_path / f"{mode}.png"
        two_halves().convert(mode).save(path)
        assert read_image(path).shape == (20, 40, 3)
    assert near(read_image(tmp_path / "P.png")[10, 5], RED, 40)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_is_laid_on_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 4, 8))
    if mode == "PA":  # a palette with one see-through entry
        image.convert("P").save(tmp_path / "a.png", transparency=image.convert("P").getpixel((6, 4)))
        assert near(read_image(tmp_path / "a.png")[4, 6], (255, 255, 255))
        return
    image.convert(mode).save(tmp_path / "a.png")
    back = read_image(tmp_path / "a.png")
    assert near(back[4, 1], (0, 0, 0)) and near(back[4, 6], (255, 255, 255))


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits_keep_their_brightness(tmp_path: Path, suffix: str) -> None:
    gray = np.array([[0, 257 * 100], [257 * 200, 65535]], np.uint16)
    Image.fromarray(gray).save(tmp_path / f"gray{suffix}")
    assert read_image(tmp_path / f"gray{suffix}")[:, :, 0].tolist() == [[0, 100], [200, 255]]
    colour = np.full((4, 4, 3), 257 * 100, np.uint16)
    (tmp_path / f"colour{suffix}").write_bytes(cv2.imencode(suffix, colour)[1].tobytes())
    assert near(read_image(tmp_path / f"colour{suffix}")[0, 0], (100, 100, 100), 1)


def test_float_pixels_are_refused_because_white_is_unknown(tmp_path: Path) -> None:
    Image.new("F", (4, 4), 0.5).save(tmp_path / "a.tiff")
    assert problem_of(tmp_path / "a.tiff") == "data_image_depth"


def test_cmyk_jpeg_has_the_colours_it_was_made_of(tmp_path: Path) -> None:
    """Pillow writes CMYK JPEG the way Adobe does, inverted."""
    two_halves().convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.mode == "CMYK" and "adobe" in image.info
    back = read_image(tmp_path / "a.jpg")
    assert near(back[10, 5], RED, 12) and near(back[10, 35], BLUE, 12)


@pytest.mark.parametrize(("kind", "suffix"), [("PNG", ".jpg"), ("JPEG", ".png"), ("WEBP", ".png")])
def test_the_content_decides_not_the_suffix(tmp_path: Path, kind: str, suffix: str) -> None:
    two_halves().save(tmp_path / f"a{suffix}", kind)
    assert near(read_image(tmp_path / f"a{suffix}")[10, 3], RED, 10)


@pytest.mark.parametrize("kind", ["WEBP", "GIF"])
def test_of_an_animation_the_first_frame_counts(tmp_path: Path, kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, BLUE)]
    frames[0].save(tmp_path / "a.img", kind, save_all=True, append_images=frames[1:], duration=50)
    assert near(read_image(tmp_path / "a.img")[8, 8], RED, 12)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_cut_picture_is_an_error_and_never_half_gray(tmp_path: Path, kind: str, part: float) -> None:
    rng = np.random.default_rng(0)
    whole = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(whole, kind)
    path = tmp_path / "a.jpg"
    path.write_bytes(whole.getvalue()[: int(len(whole.getvalue()) * part)])
    assert problem_of(path) in ("data_image_truncated", "data_image_unreadable", "data_image_unknown")
    if kind in ("JPEG", "PNG"):
        assert problem_of(path) == "data_image_truncated"


def test_a_cut_jpeg_with_a_whole_thumbnail_inside_is_still_cut(tmp_path: Path) -> None:
    thumbnail = io.BytesIO()
    two_halves().save(thumbnail, "JPEG")
    whole = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(whole, "JPEG", exif=b"Exif\0\0" + thumbnail.getvalue())
    (tmp_path / "a.jpg").write_bytes(whole.getvalue()[:-800])
    assert problem_of(tmp_path / "a.jpg") == "data_image_truncated"


def test_rubbish_behind_a_whole_jpeg_does_no_harm(tmp_path: Path) -> None:
    whole = io.BytesIO()
    two_halves().save(whole, "JPEG")
    (tmp_path / "a.jpg").write_bytes(whole.getvalue() + b"\0" * 5000)
    assert near(read_image(tmp_path / "a.jpg")[10, 5], RED, 10)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "data_image_empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "data_image_lfs"),
        (b"\xef\xbb\xbf<!DOCTYPE html><html>404</html>", "data_image_text"),
        (b'{"error": "not found"}', "data_image_text"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "data_image_heic"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "data_image_truncated"),
        (b"just some words", "data_image_unknown"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path: Path, content: bytes, code: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    assert problem_of(path) == code
    with pytest.raises(DataInvalid) as caught:
        image_size(path)
    assert caught.value.problems[0].code == code


def test_a_decompression_bomb_is_refused_from_its_header(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    (tmp_path / "a.png").write_bytes(data)
    assert problem_of(tmp_path / "a.png") == "data_image_bomb"
    small = io.BytesIO()
    two_halves().save(small, "GIF")
    huge = struct.pack("<HH", 10_000, 10_000)  # 100 million px: Pillow only warns of these
    (tmp_path / "a.gif").write_bytes(small.getvalue()[:6] + huge + small.getvalue()[10:])
    assert problem_of(tmp_path / "a.gif") == "data_image_bomb"


def test_an_oversized_file_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_halves().save(tmp_path / "a.png")
    monkeypatch.setattr(images, "MAX_BYTES", 10)
    assert problem_of(tmp_path / "a.png") == "data_image_huge"


def test_a_missing_file_keeps_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "none.jpg")


def test_the_size_comes_from_the_header_even_behind_a_large_profile(tmp_path: Path) -> None:
    two_halves().save(tmp_path / "a.png", icc_profile=bytes(np.random.default_rng(0).bytes(200_000)))
    two_halves().save(tmp_path / "a.jpg", icc_profile=bytes(np.random.default_rng(0).bytes(200_000)))
    assert image_size(tmp_path / "a.png") == image_size(tmp_path / "a.jpg") == (40, 20)


@given(st.binary(max_size=200))
def test_any_bytes_as_exif_give_an_orientation(data: bytes) -> None:
    for exif in (data, b"II*\0" + data, b"MM\0*" + data):
        assert 1 <= exif_orientation(exif) <= 8


_SEEDS = {}
for _kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", *(["AVIF"] if features.check("avif") else [])):
    _buffer = io.BytesIO()
    two_halves().save(_buffer, _kind)
    _SEEDS[_kind] = _buffer.getvalue()


@pytest.mark.filterwarnings("ignore")  # Pillow warns of damaged metadata that it survives
@given(
    st.sampled_from(sorted(_SEEDS)),
    st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True, allow_subnormal=False), st.integers(0, 255)),
        min_size=1,
        max_size=8,
    ),
)
def test_damaged_bytes_give_a_picture_or_a_named_problem(kind: str, damage: list[tuple[float, int]]) -> None:
    data = bytearray(_SEEDS[kind])
    for place, value in damage:
        data[int(place * len(data))] = value
    try:
        image = decode_image(bytes(data), "a.bin")
    except DataInvalid as error:
        assert len(error.problems) == 1 and error.problems[0].message("en")
    else:
        assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8


@pytest.mark.photos
def test_every_odd_photo_is_read_right_or_named(photos: Path) -> None:
    sizes = {
        "exif_orientation_3.jpg": (4000, 2250),
        "exif_orientation_6.jpg": (2250, 4000),
        "exif_orientation_8.jpg": (2250, 4000),
        "gray_L.jpeg": (1024, 480),
        "jpeg_named_png.png": (261, 193),
        "png_named_jpg.jpg": (600, 272),
        "png_LA.png": (52, 37),
        "png_LA_tiny.png": (30, 30),
        "png_P.png": (260, 130),
        "png_RGBA_alpha.png": (512, 512),
        "polygon_0.jpg": (640, 324),
        "same_image.jpeg": (290, 174),
    }
    for name, size in sizes.items():
        image = read_image(photos / "odd" / name)
        assert image_size(photos / "odd" / name) == size == (image.shape[1], image.shape[0]), name
    for name in ("multiframe.webp", "webp_named_png.png"):
        assert read_image(photos / "odd" / name).std() > 5
    for name in ("lfs_pointer.jpg", "1 - Copy (2).jpg"):
        assert problem_of(photos / "odd" / name) == "data_image_lfs"


@pytest.mark.photos
def test_photos_come_out_as_pillow_shows_them(photos: Path) -> None:
    for path in [photos / "odd" / f"exif_orientation_{value}.jpg" for value in (3, 6, 8)]:
        with Image.open(path) as image:
            expected = np.asarray(ImageOps.exif_transpose(image))
        assert np.abs(read_image(path).astype(int) - expected).mean() < 1.5


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "I;16", "CMYK"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_pillow_image_is_read_as_its_file_is(tmp_path: Path, mode: str, orientation: int) -> None:
    """A15, A28: transparency lies on white, 16 bit becomes 8, EXIF turns it."""
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    exif = Image.Exif()
    exif[0x0112] = orientation
    if mode == "I;16":
        Image.fromarray(np.linspace(0, 65535, 800).astype(np.uint16).reshape(20, 40)).save(path, exif=exif)
    elif mode == "P":
        two_halves().quantize(4).save(path, exif=exif, transparency=0)
    else:
        image = two_halves().convert(mode)
        if mode in ("RGBA", "LA"):
            image.putalpha(100)
        image.save(path, exif=exif)
    with Image.open(path) as image:
        assert np.array_equal(pillow_pixels(image), read_image(path))


def test_pillow_pixels_whose_white_point_is_unknown_are_refused_like_their_file() -> None:
    """A28."""
    with pytest.raises(DataInvalid) as caught:
        pillow_pixels(Image.new("F", (4, 4)))
    assert caught.value.problems[0].code == "data_image_depth"
