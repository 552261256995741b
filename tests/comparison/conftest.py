"""Fixtures of comparisons and report cards: finished runs with toy models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from smartcash.backend.builder import build_model
from smartcash.backend.formats import read_dataset
from smartcash.backend.preprocess import Preprocess
from smartcash.backend.samples import write_samples
from smartcash.domain.config import TrainConfig
from smartcash.handlers.checkpoint import CheckpointManager
from smartcash.services.run_store import RunFolder


@pytest.fixture(scope="session")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small drawn data set with a test split."""
    folder = tmp_path_factory.mktemp("notes") / "notes"
    write_samples(folder, images=100, size_px=128)
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SMARTCASH_HOME", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def trained(home: Path, notes: Path) -> Callable[..., RunFolder]:
    """A function: a finished run on `notes` whose detector has random weights and sees notes everywhere; keywords are
    laid over its configuration."""
    data = read_dataset(notes)

    def make(number: int, /, **config: Any) -> RunFolder:
        values = {
            "task": "detect", "seed": 0, "name": f"run {number}", "data": {"path": str(notes), "batch_size": 8},
            "model": {"backbone": "mobilenetv4_conv_small", "pretrained": False}, **config,
        }  # fmt: skip
        parsed = TrainConfig.parse(values)
        torch.manual_seed(number)
        model = build_model(parsed, len(data.classes))
        with torch.no_grad():  # a new detector says the same of everything
            for weights in model.parameters():
                weights.add_(0.05 * torch.randn_like(weights))
        figures = {"mAP50_95": 0.1 + number / 100, "threshold": 0.02}
        facts = {
            "state": "finished", "started": "2026-11-01T08:00:00+00:00", "ended": "2026-11-01T09:00:00+00:00",
            "epochs_done": 2, "best_epoch": 2, "best_value": figures["mAP50_95"], "valid": figures, "test": {},
            "data": {
                "path": str(notes), "content_hash": data.content_hash, "format": "yolo", "task": "detect",
                "classes": list(data.classes), "images": {name: len(split) for name, split in data.splits.items()},
            },
        }  # fmt: skip
        run = RunFolder.create(home, parsed, facts)
        run.write_epochs(
            [
                {"epoch": epoch, "mAP50_95": 0.05 * epoch + number / 100, "elapsed_s": 60.0 * epoch}
                for epoch in (1, 2)
            ]
        )
        extra = {
            "classes": list(data.classes),
            "preprocess": Preprocess(64, (0.5,) * 3, (0.5,) * 3).to_dict(),
            "ema_state_dict": {"model": model.state_dict()},
        }
        with CheckpointManager(output_dir=str(run.weights), monitor="mAP50_95", mode="max") as manager:
            saved = manager.save_checkpoint(model, None, None, parsed, 2, figures, True, extra=extra)
            assert Path(saved["path"]).is_file()
        return run

    return make
