"""Pictures that are readable and yet odd: too small, too large, blank, gray among coloured ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from smartcash.backend.formats.alike import Look
from smartcash.backend.formats.model import DataSet, Findings

MIN_SIDE_PX = 32  # one cell of the coarsest feature map
MAX_MEGAPIXELS = 16  # decoding takes a third of a second from here on
MAX_SIZE_RATIO = 4  # of the sides; beyond it the smallest picture is mostly invented pixels
BLANK = 2.0  # standard deviation of the brightness, 0–255
GRAY = 1.0  # mean distance of the colour channels, 0–255; JPEG noise of a gray picture stays below


def sizes(dataset: DataSet, looks: Mapping[Path, Look], findings: Findings) -> None:
    """Tiny and huge pictures, and a set whose sizes lie far apart."""
    samples = dataset.pictures
    for sample in samples:
        width, height = sample.size
        if min(sample.size) < MIN_SIDE_PX:
            findings.add("data_image_tiny", sample.path, value=f"{width}×{height}", limit=MIN_SIDE_PX)
        elif width * height > MAX_MEGAPIXELS * 10**6:
            findings.add("data_image_large", sample.path, value=f"{width}×{height}", limit=MAX_MEGAPIXELS)
    ordered = sorted(samples, key=lambda sample: sample.size[0] * sample.size[1])
    small, large = ordered[0].size, ordered[-1].size
    if large[0] * large[1] > MAX_SIZE_RATIO**2 * small[0] * small[1]:
        shown = ["×".join(map(str, size)) for size in (small, large)]
        also = [ordered[-1].path]
        findings.add("data_image_sizes", ordered[0].path, value=shown[0], largest=shown[1], also=also)


def contents(dataset: DataSet, looks: Mapping[Path, Look], findings: Findings) -> None:
    """Pictures of one even colour, and gray ones where most are coloured."""
    gray = []
    for sample in dataset.pictures:
        look = looks[sample.path]
        if look.contrast < BLANK:
            findings.add("data_image_blank", sample.path)
        elif look.colour < GRAY:
            gray.append(sample.path)
    if len(gray) <= len(looks) / 2:
        for path in gray:
            findings.add("data_image_gray", path)
