"""Toy objects and a manager whose log can be read."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
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


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs Linux and a C compiler")
    library = tmp_path_factory.mktemp("shim") / "fault_shim.so"
    command = [
        compiler,
        "-shared",
        "-fPIC",
        "-O1",
        "-w",
        "-o",
        library,
        Path(__file__).with_name("fault_shim.c"),
        "-ldl",
    ]
    subprocess.run(command, check=True)
    return library
