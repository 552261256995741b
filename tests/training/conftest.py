"""Toy data and toy trainings: real files, real loops, seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from smartcash.backend.samples import write_samples
from smartcash.domain.config import TrainConfig, merge

TOY = {
    "model": {"backbone": "mobilenetv4_conv_small", "pretrained": False},
    "data": {"image_size": 64, "batch_size": 4, "workers": 0},
    "training": {"epochs": 2},
    "runtime": {"threads": 1},
}


@pytest.fixture(scope="session")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty drawn pictures with boxes."""
    folder = tmp_path_factory.mktemp("notes") / "notes"
    write_samples(folder, images=20, seed=3, size_px=96)
    return folder


@pytest.fixture(scope="session")
def sorted_notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn pictures in one folder per denomination."""
    folder = tmp_path_factory.mktemp("sorted") / "notes"
    write_samples(folder, images=49, seed=3, task="classify", size_px=96)
    return folder


def toy_config(path: Path, **over: object) -> TrainConfig:
    """A configuration that trains in seconds; keywords are sections laid over it."""
    return TrainConfig.parse(merge(merge(TOY, {"data": {"path": str(path)}}), over))
