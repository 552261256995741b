"""`CheckpointManager`: the one door to the checkpoints of a folder. It only delegates."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import nn

from smartcash.handlers.checkpoint.checkpoint_finder import CheckpointFinder
from smartcash.handlers.checkpoint.checkpoint_history import CheckpointHistory
from smartcash.handlers.checkpoint.checkpoint_loader import CheckpointLoader
from smartcash.handlers.checkpoint.checkpoint_saver import CheckpointSaver, SaveResult, Stateful
from smartcash.handlers.checkpoint.checkpoint_utils import CheckpointFolder, CheckpointInfo
from smartcash.utils.logger import get_logger

Pathish = str | os.PathLike[str]


class CheckpointManager:
    """Saves, finds, loads and keeps the checkpoints of one folder; safe among threads and processes.

    `monitor` and `mode` ("min" or "max") say which metric decides what is best when `is_best` is None.
    With `async_save` a save blocks only for copying the state (one extra copy is kept in memory) and a
    thread writes it. `epoch_every`: every so many epochs a checkpoint counts as an epoch milestone
    (kind "epoch") for `cleanup_checkpoints`; 0 means never. Every method first waits for the save in
    flight, so what it sees is committed, and raises that save's CheckpointWriteFailed if it failed.
    """

    def __init__(
        self,
        output_dir: Pathish = "runs/train/weights",
        logger: logging.Logger | None = None,
        *,
        monitor: str = "loss",
        mode: str = "min",
        async_save: bool = True,
        epoch_every: int = 5,
    ) -> None:
        self.output_dir = Path(output_dir).absolute()
        self.logger = logger or get_logger("checkpoint")
        folder = CheckpointFolder(self.output_dir, self.logger)
        self._folder = folder
        self._history = CheckpointHistory(folder, self.logger)
        self._finder = CheckpointFinder(folder, self.logger)
        self._saver = CheckpointSaver(
            folder, self._history, self.logger,
            monitor=monitor, mode=mode, async_save=async_save, epoch_every=epoch_every,
        )  # fmt: skip
        self._loader = CheckpointLoader(folder, self._finder, self._history, self.logger)
        folder.start()

    # saving

    def save_checkpoint(
        self,
        model: nn.Module,
        optimizer: Stateful | None = None,
        scheduler: Stateful | None = None,
        config: object = None,
        epoch: int = 0,
        metrics: Mapping[str, Any] | None = None,
        is_best: bool | None = None,
        *,
        save_optimizer: bool = True,
        extra: Mapping[str, Any] | None = None,
    ) -> SaveResult:
        """Save everything that is needed to resume; blocks only for a memory copy of it.

        `is_best=None` lets `monitor` decide; NaN is never best. `extra`: further plain values and (nested)
        tensors, stored under their own top-level keys. Returns a mapping with `path, type, size` (bytes),
        `epoch_path, sequence, sha256`; reading from it waits for the commit. Raises
        CheckpointWriteFailed, also for an earlier background save that failed unseen.
        """
        return self._saver.save(
            model, optimizer, scheduler, config, epoch, metrics, is_best, save_optimizer, extra
        )

    def wait(self) -> None:
        """Return when the save in flight is committed. Raises CheckpointWriteFailed if it failed."""
        self._saver.settle()

    def close(self) -> None:
        """Like `wait`, and give the memory of the background writer back."""
        self._saver.close()

    def __enter__(self) -> CheckpointManager:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # loading

    def load_checkpoint(
        self,
        checkpoint_path: Pathish | None = None,
        device: str | torch.device | None = None,
        model: nn.Module | None = None,
        optimizer: Stateful | None = None,
        scheduler: Stateful | None = None,
        *,
        which: str | int = "best",
        strict: bool = True,
    ) -> dict[str, Any]:
        """Load a checkpoint, verified, and put its states into the objects given, in place.

        Without a path: `which` is "best", "latest" or an epoch number; a damaged file is passed over for the
        newest older good one, which is logged and named in the result's `fallback_from`. With a path:
        that file or an error. `strict=False` loads what fits; the result then lists `missing_keys,
        unexpected_keys, mismatched_shapes` and the `skipped` parts. Tensors are on `device` (CPU).
        Raises CheckpointNotFound, CheckpointCorrupt, CheckpointUntrusted, CheckpointMismatch.
        """
        self._saver.settle()
        path = None if checkpoint_path is None else Path(checkpoint_path)
        return self._loader.load(path, device, model, optimizer, scheduler, which, strict)

    # finding

    def find_best_checkpoint(self) -> Path | None:
        """The newest checkpoint marked best that verifies, else the newest that does; None in an empty folder."""
        self._saver.settle()
        return self._finder.best()

    def find_latest_checkpoint(self) -> Path | None:
        """The newest checkpoint of any kind that verifies, or None. A resumed training starts here."""
        self._saver.settle()
        return self._finder.latest()

    def find_checkpoint_by_epoch(self, epoch: int) -> Path | None:
        """The newest checkpoint of that epoch that verifies, or None."""
        self._saver.settle()
        return self._finder.by_epoch(epoch)

    def filter_checkpoints(
        self,
        backbone: str | None = None,
        dataset: str | None = None,
        min_epoch: int | None = None,
        max_epoch: int | None = None,
        *,
        kind: str | None = None,
        min_metrics: Mapping[str, float] | None = None,
        max_metrics: Mapping[str, float] | None = None,
    ) -> list[CheckpointInfo]:
        """Checkpoints that meet all conditions, newest first. Labels compare whole, ignoring case."""
        self._saver.settle()
        return self._finder.filter(backbone, dataset, min_epoch, max_epoch, kind, min_metrics, max_metrics)

    def list_checkpoints(self) -> list[CheckpointInfo]:
        """Every checkpoint, newest first; files without a sidecar last, with state "unverified"."""
        self._saver.settle()
        return self._finder.all()

    # history

    def get_training_history(self) -> dict[str, Any]:
        """`total_runs` (training runs, not saves), `runs` (one row for each checkpoint), `last_resume`."""
        self._saver.settle()
        return self._history.get()
