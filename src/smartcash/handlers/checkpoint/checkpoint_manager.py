"""`CheckpointManager`: the one door to the checkpoints of a folder. It only delegates."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from rich.console import Console
from torch import nn

from smartcash.handlers.checkpoint.checkpoint_finder import CheckpointFinder
from smartcash.handlers.checkpoint.checkpoint_history import CheckpointHistory
from smartcash.handlers.checkpoint.checkpoint_loader import CheckpointLoader
from smartcash.handlers.checkpoint.checkpoint_saver import CheckpointSaver, SaveResult, Stateful
from smartcash.handlers.checkpoint.checkpoint_utils import CheckpointFolder, CheckpointInfo, checkpoint_table
from smartcash.utils.i18n import text
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
        kind: str | None = None,
    ) -> SaveResult:
        """Save everything that is needed to resume; blocks only for a memory copy of it.

        `is_best=None` lets `monitor` decide; NaN is never best. `extra`: further plain values and (nested)
        tensors, stored under their own top-level keys. `kind` ("best", "epoch", "latest") says what it counts
        as, whatever `is_best` and `epoch_every` would. Returns a mapping with `path, type, size` (bytes),
        `epoch_path, sequence, sha256, saved_at` (s since 1970, as the log says it); reading from it
        waits for the commit. Raises CheckpointWriteFailed, also for an earlier background save that failed
        unseen; ValueError for an unknown kind.
        """
        return self._saver.save(
            model, optimizer, scheduler, config, epoch, metrics, is_best, save_optimizer, extra, kind
        )

    def save_multiple_checkpoints(
        self,
        state_dict: Mapping[str, Any],
        config: object = None,
        outputs: Sequence[str] = ("best", "latest"),
    ) -> dict[str, Path]:
        """Write a ready-made state (`epoch`, `model_state_dict`, …) once for each kind of `outputs`.

        Known from the earlier API. Returns kind → path; waits for the commits.
        """
        return self._saver.save_state(state_dict, config, outputs)

    def cleanup_checkpoints(
        self, max_checkpoints: int = 5, keep_best: bool = True, keep_latest: bool = True, max_epochs: int = 5
    ) -> list[Path]:
        """Delete the oldest checkpoints; returns the paths that are really gone.

        `max_checkpoints` of each kind (best, latest, epoch) stay, of kind epoch no more than
        `max_epochs`. `keep_best` keeps every best, `keep_latest` the newest. The only checkpoint that
        verifies is never deleted. Raises CheckpointWriteFailed.
        """
        self._saver.settle()
        return self._saver.cleanup(max_checkpoints, keep_best, keep_latest, max_epochs)

    def copy_to_drive(
        self,
        drive_dir: Pathish = "/content/drive/MyDrive/SmartCash/checkpoints",
        best_only: bool = True,
        *,
        paths: Sequence[Path] | None = None,
    ) -> list[Path]:
        """Copy checkpoints to Google Drive or any other folder; returns the new copies.

        A copy counts only after it was read back and its SHA-256 agreed; copies that did are in a ledger
        and not made again. `paths`: exactly these checkpoints of the folder. Raises
        CheckpointWriteFailed, also if the Drive is not mounted.
        """
        self._saver.settle()
        return self._saver.copy_to(Path(drive_dir).absolute(), best_only, paths)

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

    def load_state_without_model(
        self, checkpoint_path: Pathish | None = None, device: str | torch.device | None = None
    ) -> dict[str, Any]:
        """The content of a checkpoint (default: the best), verified; no object is touched."""
        return self.load_checkpoint(checkpoint_path, device)

    def extract_metadata(self, checkpoint_path: Pathish) -> dict[str, Any]:
        """The facts of one checkpoint without its tensors. Raises as `load_checkpoint` does."""
        self._saver.settle()
        return self._loader.metadata(Path(checkpoint_path))

    def validate_checkpoint(self, checkpoint_path: Pathish) -> tuple[bool, dict[str, Any]]:
        """Whether a file is whole and complete, and why not: `(valid, info)` with `info["message"]`.

        `info` also has `path, code, epoch, size` (bytes), `proof` ("sha256" or "crc") and `smartcash`: whether
        a SmartCash training wrote it, so that it can be predicted with. Weights of another program are valid
        when they come with an epoch; else their code is "checkpoint_foreign". Nothing in the file is run. Does
        not raise for a bad or missing file.
        """
        self._saver.settle()
        return self._loader.validate(Path(checkpoint_path))

    def doctor(self, *, adopt: bool = False) -> dict[str, Any]:
        """Read every file again, set damaged ones aside in `quarantine/`, complete the history.

        `adopt` also writes sidecars for good files that have none (an earlier layout). Returns `folder,
        writable, good, damaged, unverified, adopted, swept, history_rows, healthy, summary`.
        """
        self._saver.settle()
        return self._loader.doctor(adopt)

    def import_untrusted(self, path: Pathish) -> Path:
        """Convert a checkpoint with pickled objects, and commit it here as older than every other one.

        RUNS the code in the file, in a separate process: only for files whose author you trust. Returns
        the new path. Raises CheckpointCorrupt or CheckpointWriteFailed.
        """
        self._saver.settle()
        return self._loader.import_untrusted(Path(path))

    # finding

    def get_checkpoint_path(self, which: str | int = "best") -> Path | None:
        """The path of the "best", the "latest", or an epoch's checkpoint, or None."""
        if isinstance(which, int):
            return self.find_checkpoint_by_epoch(which)
        return self.find_best_checkpoint() if which == "best" else self.find_latest_checkpoint()

    def find_best_checkpoint(self) -> Path | None:
        """The newest checkpoint marked best that verifies, else the newest that does; None if none does."""
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

    def display_checkpoints(self, infos: Sequence[CheckpointInfo] | None = None) -> None:
        """Print checkpoints (default: all) as a table, in a terminal or a notebook cell."""
        infos = self.list_checkpoints() if infos is None else infos
        if infos:
            Console().print(checkpoint_table(infos, self.output_dir))
        else:
            Console().print(text("checkpoint.table_empty", path=str(self.output_dir)))

    # history

    def get_training_history(self) -> dict[str, Any]:
        """`total_runs` (training runs, not saves), `runs` (one row for each checkpoint), `last_resume`."""
        self._saver.settle()
        return self._history.get()

    def export_history_to_json(self, path: Pathish | None = None) -> Path:
        """Write the history as JSON and return the path; a relative one is below the current directory.

        Without a path: `training_history.json` in `output_dir`. Raises CheckpointWriteFailed.
        """
        self._saver.settle()
        target = self.output_dir / "training_history.json" if path is None else Path(path)
        return self._history.export_json(target)
