"""Small real files for the tests of pictures and data sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from smartcash.backend.images import write_image

Draw = Callable[..., Path]


def pattern(seed: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A smooth random picture, height × width × 3, unlike that of any other seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 6, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def draw() -> Draw:
    """draw(path, seed, width, height): writes one picture, makes its folders, gives the path back."""

    def write(path: Path, seed: int = 0, width: int = 64, height: int = 48) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, pattern(seed, width, height))
        return path

    return write


@pytest.fixture
def yolo(tmp_path: Path, draw: Draw) -> Path:
    """A YOLO set with splits: 4 train, 2 valid, 2 test pictures of 64 × 48 px, one box each, two classes."""
    root = tmp_path / "notes"
    seed = 0
    for split, count in (("train", 4), ("valid", 2), ("test", 2)):
        for index in range(count):
            draw(root / "images" / split / f"{split}_{index}.jpg", seed)
            label = root / "labels" / split / f"{split}_{index}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text(f"{index % 2} 0.5 0.5 0.25 0.5\n")
            seed += 1
    (root / "data.yaml").write_text(
        "train: images/train\nval: images/valid\ntest: images/test\nnames: [1000, 2000]\n"
    )
    return root
