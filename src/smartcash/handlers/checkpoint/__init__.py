"""Checkpoints: saved durably, verified when loaded, found by facts. `CheckpointManager` is the only door."""

from smartcash.handlers.checkpoint.checkpoint_finder import CheckpointFinder
from smartcash.handlers.checkpoint.checkpoint_history import CheckpointHistory
from smartcash.handlers.checkpoint.checkpoint_loader import CheckpointLoader
from smartcash.handlers.checkpoint.checkpoint_manager import CheckpointManager
from smartcash.handlers.checkpoint.checkpoint_saver import CheckpointSaver, SaveResult
from smartcash.handlers.checkpoint.checkpoint_utils import CheckpointInfo

__all__ = [
    "CheckpointFinder",
    "CheckpointHistory",
    "CheckpointInfo",
    "CheckpointLoader",
    "CheckpointManager",
    "CheckpointSaver",
    "SaveResult",
]
