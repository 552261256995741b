"""What the backend calls without knowing who answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

from smartcash.domain.events import Event

EventSink = Callable[[Event], None]

CommandName = Literal[
    "pause",  # save a checkpoint and wait
    "continue",  # go on after a pause
    "stop",  # save a checkpoint and end: the user wants it
    "preempt",  # the same: the system wants it
    "stop_after_epoch",  # end when the epoch is validated
    "keep_best",  # end now, with the best epoch's weights tested and reported
    "patience",  # early stopping waits `value` epochs from now on; 0: for ever
    "epochs",  # train `value` epochs in all
    "threads",  # compute with `value` CPU threads from now on
]
COMMANDS: tuple[CommandName, ...] = get_args(CommandName)
# the field of the configuration that a command changes
CHANGED: dict[CommandName, str] = {
    "patience": "training.early_stopping.patience",
    "epochs": "training.epochs",
    "threads": "runtime.threads",
}


@dataclass(frozen=True)
class Command:
    """A wish that reaches a running training between two steps. `source`: who wished it."""

    name: CommandName
    value: int | None = None
    source: str = ""


class Control(Protocol):
    """Brings commands to a training."""

    def __call__(self) -> Sequence[Command]:
        """The commands since the last call, in order. Called after every step, so it must be quick."""


class CheckpointStore(Protocol):
    """Where checkpoints go and come from; `handlers.checkpoint.CheckpointManager` is one."""

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
        kind: str | None = None,
    ) -> Mapping[str, Any]:
        """Keep everything needed to go on. Reading the answer's `path` and `saved_at` (when, s since 1970) waits until
        it is on the disk."""

    def load_checkpoint(self, *, which: str | int = "best") -> dict[str, Any]:
        """The newest whole checkpoint of that sort ("best", "latest", an epoch), as it was saved."""

    def wait(self) -> None:
        """Return when every checkpoint handed over is on the disk, or raise."""


@dataclass(frozen=True)
class ServingState:
    """What a served model is at this moment. `name`: the alias or number it was asked for by; `since`: when the version
    was loaded, UTC, ISO 8601; `trouble`: why the version that the alias names now is not the one that answers, or "";
    `waiting`: pictures in line."""

    name: str
    version: str
    sha256: str
    task: str
    classes: tuple[str, ...]
    since: str
    trouble: str
    reloads: int
    batches: int
    pictures: int
    waiting: int


class Serving(Protocol):
    """A model that answers many at once; `worker.serving.ServedModel` is one."""

    def predict(self, picture: bytes, threshold: float | None = None) -> Future[dict[str, Any]]:
        """What is in a picture, as plain values. Raises DataInvalid, ServingRefused."""

    def count(self, picture: bytes, abstain: float | None = None) -> Future[dict[str, Any]]:
        """The money in a picture, as plain values. Raises DataInvalid, ServingRefused."""

    def state(self) -> ServingState:
        """What is served now."""

    def close(self) -> None:
        """Answer what was asked, then end."""
