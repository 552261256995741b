"""Fixtures of the Training Manager's tests: drawn notes, and settings that train in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from smartcash.backend.samples import write_samples
from smartcash.domain.config import merge

TOY: dict[str, Any] = {
    "model": {"backbone": "mobilenetv4_conv_small", "pretrained": False},
    "data": {"image_size": 64, "batch_size": 4, "workers": 0},
    "training": {"epochs": 2},
    "runtime": {"threads": 1},
}


@pytest.fixture(scope="session")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("notes") / "notes"
    write_samples(folder, images=20, seed=3, size_px=96)
    return folder


@pytest.fixture
def toy(notes: Path) -> Any:
    """A function: sections laid over settings that train in seconds."""

    def values(**over: Any) -> dict[str, Any]:
        return merge(merge(TOY, {"data": {"path": str(notes)}}), over)

    return values
