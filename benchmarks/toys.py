"""A training that takes seconds, on drawn notes: what the drills train."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from smartcash.backend.samples import write_samples
from smartcash.domain.config import merge

TOY: dict[str, Any] = {
    "model": {"backbone": "mobilenetv4_conv_small", "pretrained": False},
    "data": {"image_size": 64, "batch_size": 4, "workers": 1},
    "training": {"epochs": 3, "previews": {"count": 0}},
    "runtime": {"threads": 1},
}


def toy_values(folder: Path, images: int, **over: Any) -> dict[str, Any]:
    """Draw so many pictures of notes in `folder`, 70 % of them to train on, and return settings that do;
    keywords are sections laid over those."""
    write_samples(folder, images=images, seed=3, size_px=96)
    return merge(merge(TOY, {"data": {"path": str(folder)}}), over)


def assignments(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The values as arguments of the command line: `--set`, `data.workers=1`, …"""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from assignments(value, f"{prefix}{name}.")
        else:
            yield from ("--set", f"{prefix}{name}={str(value).lower() if isinstance(value, bool) else value}")
