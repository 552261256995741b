"""Small random models with scores all over 0 … 1, and drawn pictures to prove their exports with."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from benchmarks.export_parity import random_model

from smartcash.backend.data import Pictures
from smartcash.backend.exporters import FORMATS, Evidence
from smartcash.backend.formats import read_dataset
from smartcash.backend.predictor import Predictor
from smartcash.backend.samples import CLASS_NAMES, write_samples
from smartcash.domain.config import TrainConfig
from smartcash.worker import train
from smartcash.worker.models import load_state

TOY = "mobilenetv4_conv_small"


def needs(name: str, precision: str = "fp32") -> None:
    """Skip where a format has no runtime, or where the packages that write and run it are not installed."""
    form = FORMATS[name]
    if not form.runs_here:
        pytest.skip(f"{name} runs on {', '.join(form.system_names)} only")
    installed(name, precision)


def installed(name: str, precision: str = "fp32") -> None:
    """Skip where the packages that write and run a format are not installed."""
    form = FORMATS[name]
    wanted = {form.extra: (*form.packages, *form.converters)}
    if precision == "int8":
        wanted[f"{form.extra}-int8"] = form.quantizers
    for extra, packages in wanted.items():
        missing = [package for package in packages if find_spec(package) is None]
        if missing:
            pytest.skip(f"not installed: {', '.join(missing)} (pip install 'smartcash[{extra}]')")


def labelled(folder: Path, task: str, count: int) -> Evidence:
    """So many drawn pictures."""
    write_samples(folder, images=count * 3 // 2, seed=2, task=task, size_px=128)
    data = read_dataset(folder, task=task)
    order = np.array([CLASS_NAMES.index(name) for name in data.classes])
    assert (order == np.arange(len(order))).all()
    return Evidence("drawn", Pictures(data.samples[:count], 256, keep=True), True)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Evidence]:
    """Ten labelled pictures for each task."""
    folder = tmp_path_factory.mktemp("drawn")
    return {task: labelled(folder / task, task, 10) for task in ("detect", "classify")}


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Evidence]:
    """Forty: of ten, one box more or less moves the accuracy by more than int8 costs."""
    return {"detect": labelled(tmp_path_factory.mktemp("many") / "detect", "detect", 40)}


@pytest.fixture(scope="session")
def detector() -> Predictor:
    return random_model("detect", TOY)


@pytest.fixture(scope="session")
def classifier() -> Predictor:
    return random_model("classify", TOY)


@pytest.fixture
def picture(drawn: dict[str, Evidence]) -> Path:
    return drawn["detect"].pictures.samples[0].path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """A detector that has learned something of drawn notes, for what random weights cannot show: accuracy that
    reduced precision may cost, and scores that suppression can tell apart."""
    folder = tmp_path_factory.mktemp("trained")
    write_samples(folder / "notes", images=120, seed=5, size_px=128)
    config = TrainConfig.parse(
        {
            "data": {"path": str(folder / "notes"), "image_size": 96, "batch_size": 8, "workers": 0},
            "model": {"backbone": "efficientnet_lite0"},
            "augment": {"preset": "off"},
            "optimizer": {"lr": 2e-3},
            "training": {"epochs": 12, "previews": {"count": 0}},
            "runtime": {"threads": 1, "precision": "fp32"},
        }
    )
    run, _ = train(config, folder / "home")
    state, _ = load_state(str(run.path))
    return Predictor.from_state(state, device="cpu", precision="fp32")
