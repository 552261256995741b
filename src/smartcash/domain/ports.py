"""What the backend calls without knowing who answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from smartcash.domain.events import Event

EventSink = Callable[[Event], None]

# None: go on. Otherwise why to stop: "stopped" (the user), "preempted" (the system), "time_up".
StopSignal = Callable[[], str | None]


class CheckpointStore(Protocol):
    """Where checkpoints go; `handlers.checkpoint.CheckpointManager` is one."""

    def save_checkpoint(
        self,
        model: Any,
        optimizer: Any,
        scheduler: Any,
        config: Any,
        epoch: int,
        metrics: dict[str, float],
        is_best: bool | None = None,
        *,
        extra: dict[str, Any] | None = None,
    ) -> Mapping[str, Any]:
        """Keep everything needed to go on. Reading the answer's `path` waits until it is on the disk."""

    def wait(self) -> None:
        """Return when every checkpoint handed over is on the disk, or raise."""
