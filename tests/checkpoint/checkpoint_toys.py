"""What the checkpoint tests save and compare."""

from __future__ import annotations

from pathlib import Path

import torch

from smartcash.handlers.checkpoint import CheckpointManager, SaveResult

CONFIG = {"model": {"backbone": "efficientnet_b4"}, "data": {"path": "/photos/roboflow"}}


class Toy:
    """A small model with batch norm, AdamW and a schedule, after one step."""

    def __init__(self, classes: int = 3, width: int = 8, steps: int = 1) -> None:
        self.model = torch.nn.Sequential(
            torch.nn.Linear(4, width), torch.nn.BatchNorm1d(width), torch.nn.Linear(width, classes)
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)
        self.scheduler = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, [2, 4])
        self.train(steps)

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self.optimizer.zero_grad()
            self.model(torch.randn(5, 4)).square().sum().backward()
            self.optimizer.step()
            self.scheduler.step()

    def save(self, manager: CheckpointManager, epoch: int, loss: float = 0.5, **more: object) -> SaveResult:
        return manager.save_checkpoint(
            self.model,
            self.optimizer,
            self.scheduler,
            more.pop("config", CONFIG),
            epoch,
            {"loss": loss},
            **more,
        )  # type: ignore[arg-type]


def same(a: object, b: object) -> bool:
    """Bit for bit, through nested dicts and lists."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))  # type: ignore[arg-type]
    return a == b


def flip(path: Path, bit: int) -> None:
    """Flip one bit of a file, in place."""
    with path.open("r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))
