"""Toy objects and a manager whose log can be read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from checkpoint_toys import Toy

from smartcash.handlers.checkpoint import CheckpointManager


@pytest.fixture
def toy() -> Toy:
    torch.manual_seed(0)
    return Toy()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "weights"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> logging.Logger:
    logger = logging.getLogger("test")
    logger.setLevel(logging.INFO)
    return logger


@pytest.fixture
def manager(folder: Path, log: logging.Logger) -> Iterator[CheckpointManager]:
    with CheckpointManager(folder, log, epoch_every=0) as manager:
        yield manager


@pytest.fixture
def reopened(folder: Path, log: logging.Logger) -> Callable[[], CheckpointManager]:
    """A fresh manager, as after a restart."""
    return lambda: CheckpointManager(folder, log, epoch_every=0)
