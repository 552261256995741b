"""Where the checkpoints of a training go: the manager, with the retention and backups of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from smartcash.domain.config import TrainConfig
from smartcash.domain.errors import CheckpointWriteFailed
from smartcash.domain.events import Warned
from smartcash.domain.ports import EventSink
from smartcash.handlers.checkpoint import CheckpointManager


class RetainingStore:
    """A CheckpointManager that deletes old epochs as the configuration says, before each save: by then the
    one before is on the disk, so that training never waits for a write. Every `backup_every` epochs the best goes
    to `backup_dir`; a copy that fails is a warning, not the end of the training."""

    def __init__(self, manager: CheckpointManager, config: TrainConfig, emit: EventSink) -> None:
        self.manager, self.rule, self.emit = manager, config.checkpoint, emit
        self._backed_up = 0

    def save_checkpoint(self, *parts: Any, **named: Any) -> Mapping[str, Any]:
        self._clean_up()
        epoch: int = parts[4]
        if self.rule.backup_dir and epoch >= self._backed_up + self.rule.backup_every:
            self._back_up(epoch)
        return self.manager.save_checkpoint(*parts, **named)

    def load_checkpoint(self, *, which: str | int = "best") -> dict[str, Any]:
        return self.manager.load_checkpoint(which=which)

    def wait(self) -> None:
        self.manager.wait()
        self._clean_up()
        if self.rule.backup_dir:
            self._back_up(self._backed_up)

    def _back_up(self, epoch: int) -> None:
        self._backed_up = epoch
        try:
            self.manager.copy_to_drive(self.rule.backup_dir)
        except CheckpointWriteFailed as error:
            self.emit(Warned("backup_failed", {"folder": self.rule.backup_dir, "reason": str(error)}))

    def _clean_up(self) -> None:
        keep = self.rule.keep_epochs
        self.manager.cleanup_checkpoints(
            max_checkpoints=keep, keep_best=False, keep_latest=True, max_epochs=keep
        )


class ReadingStore:
    """The store of a process that does not lead: it reads what the leader writes."""

    def __init__(self, manager: CheckpointManager) -> None:
        self.manager = manager

    def save_checkpoint(self, *parts: Any, **named: Any) -> Mapping[str, Any]:
        return {"path": "", "saved_at": None}

    def load_checkpoint(self, *, which: str | int = "best") -> dict[str, Any]:
        return self.manager.load_checkpoint(which=which)

    def wait(self) -> None:
        return None
