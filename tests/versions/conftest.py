"""Fixtures of the model versions' tests: finished runs with a checkpoint, made without training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from smartcash.backend.builder import build_model
from smartcash.backend.preprocess import Preprocess
from smartcash.domain.config import TrainConfig
from smartcash.handlers.checkpoint import CheckpointManager
from smartcash.services.run_store import RunFolder

CLASSES = ("1000", "2000", "5000", "10000", "20000", "50000", "100000")
FINISHED: dict[str, Any] = {
    "state": "finished", "reason": "finished", "started": "2026-11-01T08:00:00+00:00",
    "ended": "2026-11-01T09:00:00+00:00", "elapsed_s": 3600.0, "epochs_done": 3, "best_epoch": 2,
    "best_value": 0.75, "valid": {"mAP50": 0.9, "mAP50_95": 0.75, "threshold": 0.4}, "test": {"mAP50_95": 0.7},
    "data": {"path": "/data/rupiah", "content_hash": "c0ffee", "images": {"train": 14}},
    "git": "abc1234", "smartcash": "0.1", "python": "3.11", "host": "box", "resolved_hash": "beef",
}  # fmt: skip


def saved(run: RunFolder, config: TrainConfig, model: torch.nn.Module, seed: int) -> Path:
    """A best checkpoint in the run's folder, such as a training leaves."""
    extra = {
        "classes": list(CLASSES),
        "preprocess": Preprocess(64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "letterbox").to_dict(),
        "ema_state_dict": {"model": model.state_dict()},
    }
    with CheckpointManager(output_dir=str(run.weights), monitor="mAP50_95", mode="max") as manager:
        metrics = {"mAP50_95": 0.75 + seed / 1000, "threshold": 0.4}
        return Path(manager.save_checkpoint(model, None, None, config, 2, metrics, True, extra=extra)["path"])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SMARTCASH_HOME", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def finished(home: Path) -> Callable[..., RunFolder]:
    """A function: a finished run with a checkpoint of a few kilobytes; keywords are facts laid over the usual."""

    def make(seed: int = 0, **facts: Any) -> RunFolder:
        config = TrainConfig.parse(
            {"task": "detect", "name": f"run {seed}", "tags": ["baseline"], "notes": "toy"}
        )
        run = RunFolder.create(home, config, {**FINISHED, **facts})
        model = torch.nn.Linear(seed + 1, 2)
        saved(run, config, model, seed)
        return run

    return make


@pytest.fixture
def real(home: Path) -> Callable[[int], RunFolder]:
    """A function: a finished run whose detector has random weights; it sees notes everywhere, and always the same."""

    def make(seed: int) -> RunFolder:
        values = {"task": "detect", "model": {"backbone": "mobilenetv4_conv_small", "pretrained": False}}
        config = TrainConfig.parse(values)
        torch.manual_seed(seed)
        model = build_model(config, len(CLASSES))
        with torch.no_grad():  # a new detector says the same of everything
            for weights in model.parameters():
                weights.add_(0.05 * torch.randn_like(weights))
        run = RunFolder.create(home, config, FINISHED)
        saved(run, config, model, seed)
        return run

    return make


@pytest.fixture
def outspoken(home: Path) -> Callable[[int], RunFolder]:
    """A function: a finished run whose detector sees notes of the class with this number everywhere, and no others."""

    def make(label: int) -> RunFolder:
        values = {"task": "detect", "model": {"backbone": "mobilenetv4_conv_small", "pretrained": False}}
        config = TrainConfig.parse(values)
        model = build_model(config, len(CLASSES))
        with torch.no_grad():
            model.class_out.bias.fill_(-20.0)
            model.class_out.bias[label] = 5.0
        run = RunFolder.create(home, config, FINISHED)
        saved(run, config, model, label)
        return run

    return make
